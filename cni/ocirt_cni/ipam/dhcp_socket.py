"""The socket of a DHCP client: IP packets on a link that may have no address yet (packet(7))."""

from __future__ import annotations

from ctypes import addressof, create_string_buffer
from socket import AF_PACKET, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOL_SOCKET, socket
from struct import pack

from ocirt_cni.ipam import dhcp_message as dhcp
from ocirt_cni.ipam.dhcp_client import Outgoing
from ocirt_cni.ipam.dhcp_message import Message

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_EVERYBODY = b"\xff" * 6
_LARGEST = 1 << 16
# Classic BPF (linux/filter.h) on the IP packet: UDP, no later part of a larger one, to port 68; else the kernel drops it here,
# so that what the container receives costs us nothing. (code, jump if true, jump if false, value)
_FILTER = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, 17),
    (0x28, 0, 0, 6),  # where the part belongs
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 0),  # the size of the head
    (0x48, 0, 0, 2),  # the port behind it
    (0x15, 0, 1, dhcp.CLIENT_PORT),
    (0x06, 0, 0, _LARGEST),
    (0x06, 0, 0, 0),
)


class Link:
    """A link in the network namespace that the thread is in when this is made; the socket stays there."""

    def __init__(self, name: str) -> None:
        """Raises OSError."""
        self._name = name
        self._socket = socket(
            AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0
        )  # 0: nothing arrives before the filter is there
        try:
            program = create_string_buffer(b"".join([pack("HBBI", *one) for one in _FILTER]))  # struct sock_filter
            self._socket.setsockopt(SOL_SOCKET, _SO_ATTACH_FILTER, pack("HP", len(_FILTER), addressof(program)))
            self._socket.bind((name, _ETH_P_IP))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For poll(2)."""
        return self._socket.fileno()

    def close(self) -> None:
        """Let go of the link, and of its namespace."""
        self._socket.close()

    def send(self, one: Outgoing) -> None:
        """Send a message. Raises OSError."""
        data = dhcp.packet(one.source, one.destination, one.message.encode())
        self._socket.sendto(data, (self._name, _ETH_P_IP, 0, 0, one.mac or _EVERYBODY))

    def receive(self) -> list[tuple[Message, bytes]]:
        """The messages that arrived, each with the hardware address that brought it. Raises OSError."""
        found: list[tuple[Message, bytes]] = []
        while True:
            try:
                data, address = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return found
            try:
                found.append((Message.decode(dhcp.unpack(data)[1]), address[4]))
            except ValueError:
                continue  # somebody's noise
