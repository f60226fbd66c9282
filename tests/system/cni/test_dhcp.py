"""dhcp: the plugin and its daemon, with busybox's DHCP server on the other end of a veth."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks import addresses, command, inside, link, routes
from tests.system.cni.conftest import MakeNetns, Plugin

SOCKET = Path("/run/cni/dhcp.sock")
BUSYBOX = shutil.which("busybox")
DNSMASQ = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE = 60.0

pytestmark = pytest.mark.skipif(BUSYBOX is None, reason="there is no busybox for a DHCP server")


def until(what: str, check: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)


SOON = "option 0x3a 00000001"  # renew after a second, of a lease that is long enough for a busy machine


def conf(**ipam: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "ipam": {"type": "dhcp", **ipam}}


class Running:
    """A process with a log."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


class Network:
    """The host's end of a link to a container, with a DHCP server at 10.1.0.1."""

    def __init__(self, tmp_path: Path, netns: str, plugins: Path) -> None:
        self.netns = netns
        self.plugins = plugins
        self.path = tmp_path
        command("ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", netns)
        command("ip", "addr", "add", "10.1.0.1/24", "dev", "lan")
        command("ip", "link", "set", "lan", "up")
        self.device = "lan"
        self.server: Running | None = None

    def serve(self, *lines: str, lease: int = 3600) -> Running:
        """Start the server."""
        (self.path / "leases").touch()
        (self.path / "udhcpd.conf").write_text(
            "\n".join(
                [
                    "start 10.1.0.50",
                    "end 10.1.0.59",
                    f"interface {self.device}",
                    f"lease_file {self.path}/leases",
                    f"pidfile {self.path}/pid",
                    "min_lease 1",
                    "offer_time 1",
                    f"option lease {lease}",
                    "option subnet 255.255.255.0",
                    *(lines or ["option router 10.1.0.1"]),
                ]
            )
            + "\n"
        )
        return self._start([str(BUSYBOX), "udhcpd", "-f", "-a", "1", str(self.path / "udhcpd.conf")])

    def dnsmasq(self, *options: str, first: int = 50, lease: int = 3600) -> Running:
        """Start another server, which says more."""
        argv = [
            str(DNSMASQ),
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            f"--interface={self.device}",
            "--bind-interfaces",
            f"--dhcp-leasefile={self.path}/dnsmasq.leases",
            "--pid-file=",
            "--user=root",
            "--log-facility=-",
            "--log-dhcp",
            "--no-ping",
            "--dhcp-authoritative",
            f"--dhcp-range=10.1.0.{first},10.1.0.{first + 9},255.255.255.0,{lease}",
            *options,
        ]
        return self._start(argv)

    def _start(self, argv: list[str]) -> Running:
        self.server = Running(argv, self.path / "server.log")
        until("the server listens", lambda: ":67 " in command("ss", "-Hnul"))
        return self.server

    def acks(self) -> int:
        assert self.server is not None
        return self.server.said().lower().count("sending ack")

    def given_back(self, address: str) -> bool:
        """Whether the lease for an address has no time left: of udhcpd's file, which it writes when told to."""
        assert self.server is not None
        os.kill(self.server.process.pid, signal.SIGUSR1)
        data = (self.path / "leases").read_bytes()[8:]
        records = [data[start : start + 36] for start in range(0, len(data) - 35, 36)]
        left = {socket.inet_ntoa(record[4:8]): int.from_bytes(record[:4], "big") for record in records}
        return left.get(address.partition("/")[0]) == 0

    def bridge(self, *links: str) -> None:
        """From now on the server is on a bridge, with these links as well."""
        command("ip", "link", "add", "bridge0", "type", "bridge")
        command("ip", "addr", "flush", "dev", "lan")
        for name in ("lan", *links):
            command("ip", "link", "set", name, "up", "master", "bridge0")
        command("ip", "addr", "add", "10.1.0.1/24", "dev", "bridge0")
        command("ip", "link", "set", "bridge0", "up")
        self.device = "bridge0"


@pytest.fixture
def network(tmp_path: Path, netns: MakeNetns, plugin_path: Path) -> Iterator[Network]:
    made = Network(tmp_path, netns(), plugin_path)
    yield made
    if made.server is not None:
        made.server.stop()


@contextmanager
def running(plugin_path: Path, log: Path, *options: str) -> Iterator[Running]:
    daemon = Running([str(plugin_path / "dhcp"), "daemon", *options], log)
    try:
        until("the daemon listens", lambda: SOCKET.exists() or daemon.process.poll() is not None)
        yield daemon
    finally:
        daemon.stop()


@pytest.fixture
def daemon(plugin_path: Path, tmp_path: Path) -> Iterator[Running]:
    with running(plugin_path, tmp_path / "daemon.log", "-timeout", "2s", "-resendmax", "1s") as made:
        yield made


def state() -> list[Path]:
    path = Path("/run/cni/dhcp")
    return sorted(path.iterdir()) if path.exists() else []


def test_a_lease_and_its_end(plugin: Plugin, network: Network, daemon: Running) -> None:
    network.serve()
    result = plugin("dhcp", conf(priority=7), netns=network.netns).ok()
    address = result["ips"][0]["address"]
    assert result == {
        "cniVersion": "1.1.0",
        "ips": [{"address": address, "gateway": "10.1.0.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 7}],
        "dns": {},
    }
    assert address.startswith("10.1.0.5")
    assert SOCKET.stat().st_mode & 0o777 == 0o600
    plugin("dhcp", {**conf(), "prevResult": result}, "CHECK", netns=network.netns).ok()
    assert plugin("dhcp", conf(priority=7), netns=network.netns).ok() == result, "a second ADD asks for no second lease"
    assert network.acks() == 1
    plugin("dhcp", conf(), "DEL", netns=network.netns).ok()
    until("the server got it back", lambda: network.given_back(address))
    assert "the daemon holds no lease" in plugin("dhcp", conf(), "CHECK", netns=network.netns).failed(104)
    plugin("dhcp", conf(), "DEL", netns=network.netns).ok()
    plugin("dhcp", conf(), "DEL").ok()
    assert state() == []
    assert daemon.stop() == 0
    assert not SOCKET.exists()


def test_in_old_versions(plugin: Plugin, network: Network, daemon: Running) -> None:
    network.serve()
    result = plugin("dhcp", {**conf(), "cniVersion": "0.2.0"}, netns=network.netns).ok()
    assert result["ip4"]["gateway"] == "10.1.0.1"
    assert result["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]


def test_what_the_server_is_told_and_tells(plugin: Plugin, network: Network, daemon: Running) -> None:
    network.serve(
        "option router 10.1.0.1",
        "option dns 10.1.0.3 10.1.0.4",
        "option domain a.example",
        "option staticroutes 10.2.0.0/16 10.1.0.9",
    )
    config = conf(
        provide=[{"option": "host-name", "fromArg": "K8S_POD_NAME"}],
        request=[{"option": "domain-name-servers"}, {"option": "domain-name"}],
    )
    result = plugin("dhcp", config, netns=network.netns, env={"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=pod-seven"}).ok()
    assert result["dns"] == {"nameservers": ["10.1.0.3", "10.1.0.4"], "domain": "a.example"}
    assert result["routes"] == [{"dst": "10.2.0.0/16", "gw": "10.1.0.9"}]
    assert network.server is not None
    os.kill(network.server.process.pid, signal.SIGUSR1)  # udhcpd writes its leases
    until("the name is known", lambda: b"pod-seven" in (network.path / "leases").read_bytes())


def test_it_is_renewed(plugin: Plugin, network: Network, daemon: Running) -> None:
    network.serve(SOON)
    plugin("dhcp", conf(), netns=network.netns).ok()
    until("it is renewed twice", lambda: network.acks() >= 3)
    found = link("eth0", network.netns)
    assert found is not None
    assert "UP" in found["flags"]
    plugin("dhcp", conf(), "CHECK", netns=network.netns).ok()


def test_a_daemon_takes_over(plugin: Plugin, plugin_path: Path, network: Network, tmp_path: Path) -> None:
    """Killed, with a lease that has to be renewed."""
    network.serve(SOON)
    with running(plugin_path, tmp_path / "first.log") as first:
        result = plugin("dhcp", conf(), netns=network.netns).ok()
        first.kill()
    with running(plugin_path, tmp_path / "second.log") as second:
        until("it took over", lambda: "taken over" in second.said())
        before = network.acks()
        plugin("dhcp", {**conf(), "prevResult": result}, "CHECK", netns=network.netns).ok()
        until("it is renewed", lambda: network.acks() > before)
        plugin("dhcp", conf(), "DEL", netns=network.netns).ok()
        until("it is given back", lambda: network.given_back(result["ips"][0]["address"]))


def test_the_container_is_gone(plugin: Plugin, network: Network, daemon: Running) -> None:
    """The daemon keeps no namespace alive, and stops to renew."""
    network.serve(SOON)
    plugin("dhcp", conf(), netns=network.netns).ok()
    command("umount", network.netns)
    until("the link is gone with its namespace", lambda: link("lan") is None)
    until("the lease is dropped", lambda: "left to expire" in daemon.said())
    until("it is forgotten", lambda: state() == [])
    plugin("dhcp", conf(), "DEL", netns=network.netns).ok()


def test_an_expired_lease_takes_the_interface_down(plugin: Plugin, network: Network, daemon: Running) -> None:
    server = network.serve(lease=3)
    plugin("dhcp", conf(), netns=network.netns).ok()
    server.kill()

    def is_down() -> bool:
        found = link("eth0", network.netns)
        return found is not None and "UP" not in found["flags"]

    until("it is down", is_down)
    assert "the lease is lost" in daemon.said()
    until("it is forgotten", lambda: state() == [])


def test_no_server(plugin: Plugin, network: Network) -> None:
    with running(network.plugins, network.path / "daemon.log", "-resendtimeout", "1500ms"):
        said = plugin("dhcp", conf(), netns=network.netns).failed(11)
        assert said == "eth0: no DHCP server gave an address within 1.5 s"
        assert state() == []


def test_a_plugin_that_is_killed_leaves_nothing(plugin_path: Path, network: Network, daemon: Running) -> None:
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": network.netns,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": str(plugin_path),
    }
    with subprocess.Popen([plugin_path / "dhcp"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(conf()).encode())
        process.stdin.close()
        until("it is asked", lambda: "looking for" in daemon.said())
        process.kill()
    until("it is given up", lambda: "nobody waits" in daemon.said())
    until("it is forgotten", lambda: state() == [])


def test_a_daemon_that_dies_meanwhile(plugin: Plugin, network: Network, daemon: Running) -> None:
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(plugin, "dhcp", conf(), netns=network.netns)
        until("it is asked", lambda: "looking for" in daemon.said())
        daemon.kill()
        assert done.result().failed(11) == f"{SOCKET}: the DHCP daemon ended before it answered"


def test_gc(plugin: Plugin, network: Network, netns: MakeNetns, daemon: Running) -> None:
    other = netns()
    command("ip", "link", "add", "lan2", "type", "veth", "peer", "name", "eth0", "netns", other)
    network.bridge("lan2")
    network.serve()
    first = plugin("dhcp", conf(), netns=network.netns, container="a").ok()
    second = plugin("dhcp", conf(), netns=other, container="b").ok()
    assert first["ips"] != second["ips"]
    plugin("dhcp", {**conf(), "name": "another", "cni.dev/valid-attachments": []}, "GC").ok()
    assert len(state()) == 2
    valid = [{"containerID": "b", "ifname": "eth0"}]
    plugin("dhcp", {**conf(), "cni.dev/valid-attachments": valid}, "GC").ok()
    assert len(state()) == 1
    plugin("dhcp", conf(), "CHECK", netns=other, container="b").ok()
    plugin("dhcp", conf(), "CHECK", netns=network.netns, container="a").failed(104)


def test_many_wait_at_once(plugin_path: Path, network: Network, netns: MakeNetns, daemon: Running) -> None:
    """One thread serves them all: none is answered before the server is there, then each."""
    networks = [netns() for _ in range(8)]
    for number, path in enumerate(networks):
        command("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", path)
    network.bridge(*[f"v{number}" for number in range(8)])
    started = []
    for number, path in enumerate(networks):
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"c{number}",
            "CNI_NETNS": path,
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(plugin_path),
        }
        process = subprocess.Popen([plugin_path / "dhcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert process.stdin is not None
        process.stdin.write(json.dumps(conf()).encode())
        process.stdin.close()
        process.stdin = None
        started.append(process)
    until("all are looking", lambda: daemon.said().count("looking for") == 8)
    network.serve()
    answers = [json.loads(process.communicate(timeout=PATIENCE)[0]) for process in started]
    assert len({answer["ips"][0]["address"] for answer in answers}) == 8, answers


def outside(tmp_path: Path, netns: MakeNetns) -> Running:
    """A DHCP server in a network namespace of its own, behind the host's link `uplink`."""
    router = netns()
    command("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "lan", "netns", router)
    command("ip", "link", "set", "uplink", "up")
    with inside(router):
        command("ip", "addr", "add", "10.1.0.1/24", "dev", "lan")
        command("ip", "link", "set", "lan", "up")
        (tmp_path / "leases").touch()
        lines = ("start 10.1.0.50", "end 10.1.0.59", "interface lan", f"lease_file {tmp_path}/leases", f"pidfile {tmp_path}/pid")
        options = ("option lease 3600", "option subnet 255.255.255.0", "option router 10.1.0.1")
        (tmp_path / "udhcpd.conf").write_text("\n".join((*lines, *options)) + "\n")
        argv = [str(BUSYBOX), "udhcpd", "-f", "-a", "1", str(tmp_path / "udhcpd.conf")]
        server = Running(argv, tmp_path / "server.log")
        until("the server listens", lambda: ":67 " in command("ss", "-Hnul"))
    return server


@pytest.mark.parametrize("kind", ["macvlan", "bridge"])
def test_a_network_that_others_run(kind: str, plugin: Plugin, netns: MakeNetns, daemon: Running, tmp_path: Path) -> None:
    """The container is on the network of the host's uplink: an address from there, traffic, and the lease is given back."""
    server = outside(tmp_path, netns)
    try:
        if kind == "bridge":
            command("ip", "link", "add", "name", "br0", "type", "bridge")
            command("ip", "link", "set", "br0", "up")
            command("ip", "link", "set", "uplink", "master", "br0")
        path = netns()
        config = {**conf(), "type": kind, **({"bridge": "br0"} if kind == "bridge" else {"master": "uplink"})}
        result = plugin(kind, config, netns=path).ok()
        [ip] = result["ips"]
        assert ip["gateway"] == "10.1.0.1"
        assert addresses("eth0", path) == {ip["address"]}
        assert "default via 10.1.0.1 dev eth0" in routes(path)
        command(str(BUSYBOX), "ping", "-c", "1", "-W", "5", "10.1.0.1", network=path)
        plugin(kind, {**config, "prevResult": result}, "CHECK", netns=path).ok()
        plugin(kind, config, "DEL", netns=path).ok()
        until("it is forgotten", lambda: state() == [])
        assert "given back" in daemon.said()
        assert "left to expire" not in daemon.said()
        assert link("eth0", path) is None
    finally:
        server.stop()


@pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed")
def test_another_server_with_classless_routes(plugin: Plugin, network: Network, daemon: Running) -> None:
    server = network.dnsmasq(
        "--dhcp-option=option:router,10.1.0.1",
        "--dhcp-option=121,0.0.0.0/0,10.1.0.9,10.2.0.0/16,0.0.0.0",
        "--dhcp-option=33,10.3.0.1,10.1.0.8",
    )
    result = plugin("dhcp", conf(), netns=network.netns).ok()
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}, {"dst": "10.2.0.0/16", "scope": 253}]
    assert result["ips"][0]["gateway"] == "10.1.0.1"
    assert b"\0c1/net/eth0".hex(":") in (network.path / "dnsmasq.leases").read_text()
    plugin("dhcp", conf(), "DEL", netns=network.netns).ok()
    until("it is given back", lambda: "DHCPRELEASE" in server.said())


@pytest.mark.skipif(DNSMASQ is None, reason="dnsmasq is not installed")
def test_a_lease_that_is_taken_back(plugin: Plugin, network: Network, daemon: Running) -> None:
    """The server has other addresses when it is asked to renew; the container's does not change, so its interface goes down."""
    server = network.dnsmasq(lease=120, first=50)
    plugin("dhcp", conf(), netns=network.netns).ok()
    server.stop()
    (network.path / "dnsmasq.leases").unlink()
    [file] = state()
    document = json.loads(file.read_text())
    document["since"] -= 60  # so that the next daemon has to renew at once
    file.write_text(json.dumps(document))
    daemon.stop()
    server = network.dnsmasq(lease=120, first=100)
    with running(network.plugins, network.path / "second.log", "-timeout", "3s") as second:
        until("it is lost", lambda: "the lease is lost" in second.said())
        assert "DHCPNAK" in server.said()
        found = link("eth0", network.netns)
        assert found is not None
        assert "UP" not in found["flags"]


def test_without_a_daemon(plugin: Plugin, netns: MakeNetns) -> None:
    said = plugin("dhcp", conf(), netns=netns()).failed(50)
    assert said == "/run/cni/dhcp.sock: the DHCP daemon is not there: No such file or directory"
    plugin("dhcp", conf(), "STATUS").failed(50)
    plugin("dhcp", conf(), "DEL").ok()
    plugin("dhcp", conf(), "GC").ok()


def test_status(plugin: Plugin, daemon: Running) -> None:
    plugin("dhcp", conf(), "STATUS").ok()


def test_another_socket(plugin: Plugin, plugin_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "sock"
    daemon = Running([str(plugin_path / "dhcp"), "daemon", f"--socketpath={path}", f"-pidfile={tmp_path}/pid"], tmp_path / "log")
    try:
        until("it listens", path.exists)
        plugin("dhcp", conf(daemonSocketPath=str(path)), "STATUS").ok()
        assert (tmp_path / "pid").read_text() == str(daemon.process.pid)
    finally:
        assert daemon.stop() == 0
    assert not (tmp_path / "pid").exists()


def test_there_is_one_daemon(plugin_path: Path, tmp_path: Path, daemon: Running) -> None:
    second = Running([str(plugin_path / "dhcp"), "daemon"], tmp_path / "second.log")
    assert second.process.wait(PATIENCE) == 1
    assert second.said() == "/run/cni/dhcp.sock: another daemon listens there\n"
    assert daemon.process.poll() is None


def test_a_socket_of_a_daemon_that_died(plugin: Plugin, plugin_path: Path, tmp_path: Path) -> None:
    with running(plugin_path, tmp_path / "first.log") as first:
        first.kill()
    assert SOCKET.exists()
    with running(plugin_path, tmp_path / "second.log") as second:
        until("it listens", lambda: "listening" in second.said())
        plugin("dhcp", conf(), "STATUS").ok()


@pytest.mark.parametrize(
    ("ipam", "ifname", "code", "said"),
    [
        ({"provide": [{"option": "x"}]}, "eth0", 7, "/ipam/provide/0/option: 'x' is no option"),
        ({}, "eth7", 3, "there is no interface eth7"),
    ],
)
def test_what_is_refused(
    plugin: Plugin, network: Network, daemon: Running, ipam: dict[str, Any], ifname: str, code: int, said: str
) -> None:
    assert said in plugin("dhcp", conf(**ipam), netns=network.netns, ifname=ifname).failed(code)


def test_noise_does_not_stop_the_daemon(plugin: Plugin, network: Network, daemon: Running) -> None:
    for data in (b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b'{"command": 1}\n', b"\xff\n", b"", b"x" * (2 << 20)):
        with socket.socket(socket.AF_UNIX) as connection, suppress(BrokenPipeError, ConnectionResetError):
            connection.connect(str(SOCKET))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        noise.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        noise.bind(("10.1.0.1", 0))
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(plugin, "dhcp", conf(), netns=network.netns)
            until("it is asked", lambda: "looking for" in daemon.said())
            for data in (b"", b"x", bytes(300), b"\2\1\6\0" + bytes(232) + b"\x63\x82\x53\x63\x35\1\5"):
                noise.sendto(data, ("10.1.0.255", 68))
            network.serve()
            done.result().ok()


def test_a_foreign_daemon_is_recognized(plugin: Plugin) -> None:
    """That of the reference answers in HTTP."""
    SOCKET.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(SOCKET))
        listener.listen()
        pid = os.fork()
        if not pid:
            connection, _ = listener.accept()
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            os._exit(0)
        assert "this is not our DHCP daemon" in plugin("dhcp", conf(), "STATUS").failed(999)
        os.waitpid(pid, 0)
