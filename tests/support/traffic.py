"""Real traffic between network namespaces: pings, TCP, UDP, and how fast it goes. A socket stays where it was made."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from tests.support.networks import inside, ip, make_network
from tests.support.patience import patience

OUTSIDE = {4: "192.0.2.2", 6: "2001:db8::2"}  # the outside's addresses
EDGE = {4: "192.0.2.1", 6: "2001:db8::1"}  # the host's own, beside them
HERE = "/proc/thread-self/ns/net"
PATIENCE = patience(10.0)  # seconds until what has to come is missed
REFUSAL = 1.0  # seconds in which nothing comes where nothing may
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def version_of(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def outside(name: str = "outside") -> str:
    """A namespace that stands for all other machines. It knows no way to containers, only to the host's own addresses."""
    path = make_network(name)
    ip("link", "add", "edge0", "type", "veth", "peer", "name", "eth0", "netns", name)
    for network, device, addresses in (("", "edge0", EDGE), (path, "eth0", OUTSIDE)):
        ip("addr", "add", f"{addresses[4]}/24", "dev", device, network=network)
        ip("addr", "add", f"{addresses[6]}/64", "dev", device, "nodad", network=network)
        ip("link", "set", device, "up", network=network)
    ip("link", "set", "lo", "up", network=path)
    return path


@contextmanager
def server(network: str, port: int, protocol: str = "tcp", version: int = 4) -> Iterator[socket.socket]:
    """A socket that takes connections, or datagrams, at every address of a namespace."""
    with inside(network):
        made = socket.socket(_FAMILIES[version], _KINDS[protocol])
    with closing(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        if protocol == "tcp":
            made.listen()
        yield made


def reach(client: str, address: str, port: int, listening: socket.socket, *, patience: float = PATIENCE) -> str:
    """Whom the server sees when `client` (a namespace) sends there and gets an answer; "" if that does not come to pass."""
    with inside(client):
        asking = socket.socket(_FAMILIES[version_of(address)], listening.type)
    with closing(asking):
        asking.settimeout(patience)
        listening.settimeout(patience)
        try:
            asking.connect((address, port))
            if listening.type == socket.SOCK_STREAM:
                accepted, peer = listening.accept()
                with closing(accepted):
                    accepted.sendall(b"answer")
            else:
                asking.send(b"question")
                data, peer = listening.recvfrom(100)
                assert data == b"question"
                listening.sendto(b"answer", peer)
            assert asking.recv(100) == b"answer"
        except OSError:
            return ""
        return str(peer[0])


def ping(client: str, address: str, *, patience: float = PATIENCE) -> bool:
    """Whether an echo request is answered."""
    version = version_of(address)
    protocol, request, reply = (socket.IPPROTO_ICMP, 8, 0) if version == 4 else (socket.IPPROTO_ICMPV6, 128, 129)
    with inside(client):
        asking = socket.socket(_FAMILIES[version], socket.SOCK_RAW, protocol)
    identity = os.getpid() & 0xFFFF
    deadline = time.monotonic() + patience
    with closing(asking):
        sequence = 0
        while time.monotonic() < deadline:
            sequence += 1
            head = struct.pack("!BBHHH", request, 0, 0, identity, sequence)
            if version == 4:
                head = struct.pack("!BBHHH", request, 0, _checksum(head), identity, sequence)
            asking.settimeout(0.2)  # the first may be lost while the neighbour is looked for
            try:
                asking.sendto(head, (address, 0))
                while True:
                    packet, peer = asking.recvfrom(1500)
                    answer = packet[20:] if version == 4 else packet
                    kind, _, _, owner, _ = struct.unpack("!BBHHH", answer[:8])
                    if kind == reply and owner == identity and peer[0] == address:
                        return True
            except OSError:
                continue
    return False


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def rate(sender: str, receiver: str, address: str, size: int) -> float:
    """Bits per second of `size` bytes over TCP, without the first quarter, which a bucket may let through at once."""
    with ExitStack() as stack:
        listening = stack.enter_context(server(receiver, 5001, version=version_of(address)))
        with inside(sender):
            sending = stack.enter_context(closing(socket.socket(_FAMILIES[version_of(address)], socket.SOCK_STREAM)))
        sending.settimeout(PATIENCE)
        listening.settimeout(PATIENCE)
        sending.connect((address, 5001))
        receiving = stack.enter_context(closing(listening.accept()[0]))
        return _pump(sending, receiving, size)


def _pump(sending: socket.socket, receiving: socket.socket, size: int) -> float:
    """Send and receive in turn, as there is one thread."""
    sending.setblocking(False)
    receiving.settimeout(PATIENCE)
    sent = got = counted = 0
    began = 0.0
    block = bytes(1 << 14)
    while got < size:
        try:
            while sent < size:
                sent += sending.send(block[: size - sent])
        except BlockingIOError:
            pass
        part = len(receiving.recv(1 << 16))
        got += part
        if began:
            counted += part
        elif got >= size // 4:
            began = time.monotonic()
    return counted * 8 / (time.monotonic() - began)
