"""Containers behind a bridge, a neighbour outside, and real connections between them, all from the thread of the test.

A socket stays in the network namespace in which it was made. So both ends of a connection live in one thread, and nothing waits
for another process.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.support.networks import command, inside, make_network
from tests.support.patience import patience

BRIDGE = "cni0"
OUTSIDE, HOST_OUTSIDE = "192.0.2.9", "192.0.2.1"
OUTSIDE6, HOST_OUTSIDE6 = "2001:db8::9", "2001:db8::1"
_PATIENCE = patience(3.0)  # seconds for what should arrive
_SILENCE = 0.3  # seconds after which what should not arrive has not
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class Topology:
    """A host with a bridge 10.88.0.1/16, fd00:88::1/64, and a link to an outside that knows no way to the containers."""

    def __init__(self, bridge: str = BRIDGE, number: int = 88, *, outside: bool = True) -> None:
        self.bridge = bridge
        self.number = number
        _settle("")
        command("ip", "link", "add", bridge, "type", "bridge")
        command("ip", "addr", "add", f"10.{number}.0.1/16", "dev", bridge)
        command("ip", "addr", "add", f"fd00:{number}::1/64", "dev", bridge, "nodad")
        command("ip", "link", "set", bridge, "up")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path("/proc/sys/net", name).write_text("1")
        if outside:
            self.outside = make_network("outside")
            _settle(self.outside)
            command("ip", "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", self.outside)
            command("ip", "addr", "add", f"{HOST_OUTSIDE}/24", "dev", "out0")
            command("ip", "addr", "add", f"{HOST_OUTSIDE6}/64", "dev", "out0", "nodad")
            command("ip", "link", "set", "out0", "up")
            command("ip", "addr", "add", f"{OUTSIDE}/24", "dev", "eth0", network=self.outside)
            command("ip", "addr", "add", f"{OUTSIDE6}/64", "dev", "eth0", "nodad", network=self.outside)
            for link in ("eth0", "lo"):
                command("ip", "link", "set", link, "up", network=self.outside)

    def container(self, last: int) -> Container:
        """A new container with an address of either version."""
        return Container(self, last)


class Container:
    """A network namespace with eth0 on the bridge, and the result that a plugin would have returned for it."""

    def __init__(self, topology: Topology, last: int) -> None:
        self.bridge = topology.bridge
        self.path = make_network(f"{self.bridge}-{last}")
        _settle(self.path)
        self.port = f"v{self.bridge}{last}"
        self.address = f"10.{topology.number}.0.{last}"
        self.address6 = f"fd00:{topology.number}::{last}"
        for words in (
            f"link add {self.port} master {self.bridge} type veth peer name eth0 netns {self.path}",
            f"link set {self.port} up",
            # br_netfilter bridges what was sent to an address of the host back to the port from which it came.
            f"link set {self.port} type bridge_slave hairpin on",
        ):
            command("ip", *words.split())
        for words in (
            "link set lo up",
            f"addr add {self.address}/16 dev eth0",
            f"addr add {self.address6}/64 dev eth0 nodad",
            "link set eth0 up",
            f"route add default via 10.{topology.number}.0.1",
            f"route add default via fd00:{topology.number}::1",
        ):
            command("ip", *words.split(), network=self.path)

    def result(self) -> dict[str, Any]:
        """As a bridge plugin returns it."""
        return {
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": self.bridge},
                {"name": self.port},
                {"name": "eth0", "sandbox": self.path},
            ],
            "ips": [
                {"address": f"{self.address}/16", "interface": 2},
                {"address": f"{self.address6}/64", "interface": 2},
            ],
        }


def _settle(network: str) -> None:
    """No duplicate address detection, which delays the first packets of IPv6."""
    if network:
        with inside(network):
            _settle("")
        return
    for name in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")


def source_seen(
    server: str, at: tuple[str, int], client: str, to: tuple[str, int], *, protocol: str = "tcp", local: str = ""
) -> str | None:
    """The address from which a server in namespace `server` ("": the host's) sees a client's connection; None if none arrives.

    `at`: where the server listens; `to`: where the client connects, from the address `local` if it is given. Data goes both ways.
    """
    family = socket.AF_INET6 if ":" in at[0] else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(_socket(server, family, protocol))
        listener.bind(at)
        caller = stack.enter_context(_socket(client, socket.AF_INET6 if ":" in to[0] else socket.AF_INET, protocol))
        if local:
            caller.bind((local, 0))
        if protocol == "udp":
            return _by_datagrams(listener, caller, to)
        listener.listen()
        return _by_stream(listener, caller, to)


def reaches(server: str, at: tuple[str, int], client: str, to: tuple[str, int], *, protocol: str = "tcp") -> bool:
    """Whether a connection arrives; see `source_seen`."""
    return source_seen(server, at, client, to, protocol=protocol) is not None


def _socket(network: str, family: int, protocol: str) -> socket.socket:
    if network:
        with inside(network):
            made = socket.socket(family, _KINDS[protocol])
    else:
        made = socket.socket(family, _KINDS[protocol])
    made.settimeout(_PATIENCE)
    if protocol == "tcp":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _by_stream(listener: socket.socket, caller: socket.socket, to: tuple[str, int]) -> str | None:
    caller.settimeout(_SILENCE * 4)
    try:
        caller.connect(to)
    except OSError:
        return None
    # Connected to another server's socket perhaps: then nobody arrives here.
    listener.settimeout(_SILENCE)
    try:
        accepted, (source, *_) = listener.accept()
    except TimeoutError:
        return None
    with accepted:
        accepted.settimeout(_PATIENCE)
        caller.settimeout(_PATIENCE)
        caller.sendall(b"ping")
        assert accepted.recv(4) == b"ping"
        accepted.sendall(b"pong")
        assert caller.recv(4) == b"pong"
    return str(source)


def _by_datagrams(listener: socket.socket, caller: socket.socket, to: tuple[str, int]) -> str | None:
    listener.settimeout(_SILENCE)
    try:
        caller.connect(to)
        caller.send(b"ping")
        data, source = listener.recvfrom(16)
    except OSError:
        return None
    assert data == b"ping"
    listener.sendto(b"pong", source)
    assert caller.recv(16) == b"pong"
    return str(source[0])
