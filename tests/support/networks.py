"""Network namespaces as the tests of CNI plugins see them: hosts, containers, and one plugin's call."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocirt_cni.nft import kept
from tests.support.isolation import CLONE_NEWNET, MS_BIND, loopback_up, mount, setns, umount, unshare

NETNS = Path("/run/netns")
_OWN = "/proc/thread-self/ns/net"
_FOLDERS = ("/run", "/var/lib")
_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextmanager
def new_network() -> Iterator[int]:
    """This thread in a new network namespace, whose descriptor it yields, for as long as the context lasts."""
    back = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        made = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield made
        finally:
            os.close(made)
            setns(back, CLONE_NEWNET)
    finally:
        os.close(back)


@contextmanager
def inside(path: str) -> Iterator[None]:
    """This thread in the network namespace at a path, for as long as the context lasts."""
    back = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(target, CLONE_NEWNET)
        finally:
            os.close(target)
        try:
            yield
        finally:
            setns(back, CLONE_NEWNET)
    finally:
        os.close(back)


def make_network(name: str) -> str:
    """A network namespace bound to /run/netns/NAME, as ip-netns(8) does it; its path. `lo` is down."""
    NETNS.mkdir(exist_ok=True)
    path = NETNS / name
    path.touch()
    with new_network() as made:
        mount(f"/proc/self/fd/{made}", str(path), "none", MS_BIND)
    return str(path)


def command(*args: str, network: str = "", check: bool = True) -> str:
    """What a program prints, run in this or another network namespace. Raises AssertionError with its words if it fails."""
    argv = ["nsenter", f"--net={network}", *args] if network else list(args)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "PATH": _SBIN})
    assert done.returncode == 0 or not check, f"{' '.join(argv)}: {done.stderr or done.stdout}"
    return done.stdout


def ip(*args: str, network: str = "") -> list[dict[str, Any]]:
    """What `ip -j -d ARGS` shows."""
    text = command("ip", "-j", "-d", *args, network=network)
    found: list[dict[str, Any]] = json.loads(text) if text.strip() else []
    return [one for one in found if one]


def link(name: str, network: str = "") -> dict[str, Any] | None:
    """A link as `ip` shows it; None if there is none of that name."""
    return next((one for one in ip("link", "show", network=network) if one["ifname"] == name), None)


def addresses(name: str, network: str = "") -> set[str]:
    """The addresses of a link with the length of their network, without IPv6's link-local ones."""
    found = [one for each in ip("addr", "show", network=network) if each["ifname"] == name for one in each["addr_info"]]
    return {f"{one['local']}/{one['prefixlen']}" for one in found if one["scope"] != "link"}


def routes(network: str = "", table: str = "main") -> set[str]:
    """The routes of both IP versions, as text: `default via 10.1.0.1 dev eth0`; without IPv6's link-local ones."""
    found = set()
    for version in ("-4", "-6"):
        # All, because to ask for one without routes is an error: there is no such table.
        for one in ip(version, "route", "show", "table", "all", network=network):
            if str(one.get("table", "main")) != table:
                continue
            via = f" via {one['gateway']}" if "gateway" in one else ""
            if not one["dst"].startswith(("fe80:", "ff00:")):
                found.add(f"{one['dst']}{via} dev {one.get('dev', '-')}")
    return found


def sysctl(name: str, network: str = "") -> str:
    """The value of a sysctl below net, with slashes."""
    if network:
        with inside(network):
            return sysctl(name)
    return Path("/proc/sys/net", name).read_text().strip()


def ruleset() -> str:
    """All nftables rules, without counters."""
    return command("nft", "-s", "list", "ruleset")


class Host:
    """The network namespace and the folders that a test has for itself."""

    def traces(self) -> dict[str, str]:
        """What a plugin could leave: links, nftables rules, the addresses and routes of the host, files below /run and /var/lib.

        For comparing before and after. IPv6's link-local addresses and what the kernel makes of its own accord is not in it.
        """
        found = {f"link {one['ifname']}": "" for one in ip("link", "show")}
        for one in ip("addr", "show"):
            for each in one["addr_info"]:
                if each["scope"] != "link":
                    found[f"address {each['local']}/{each['prefixlen']} of {one['ifname']}"] = ""
        found |= {f"route {one}": "" for one in routes()}
        found |= {f"rule {number}: {line}": "" for number, line in enumerate(ruleset().splitlines())}
        for root in (Path("/run"), Path("/var/lib")):
            for path in root.rglob("*"):
                # The number of the rule set's last change is another after any change.
                if path.is_file() and NETNS not in path.parents and path.name != "generation":
                    found[f"file {path}"] = path.read_text(errors="replace")
        return found


@contextmanager
def new_host() -> Iterator[Host]:
    """This thread on a host of its own: a fresh network namespace, and empty folders at /run and /var/lib."""
    with new_network():
        for folder in _FOLDERS:
            mount("tmpfs", folder, "tmpfs", 0, "mode=755")
        try:
            loopback_up()
            # A new namespace takes over what the machine's own has.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("0")
            yield Host()
        finally:
            kept.release()  # what this process has opened to nftables would hold the namespace
            for folder in _FOLDERS:
                umount(folder)


@dataclass(frozen=True)
class Done:
    """How an executed plugin ended: the exit status, the JSON that it printed (None: nothing), and its standard error."""

    rc: int
    answer: dict[str, Any] | None
    err: str

    def ok(self) -> dict[str, Any]:
        """What it printed, as a plugin that succeeded; {} if nothing."""
        assert self.rc == 0, f"exit status {self.rc}: {self.answer} {self.err}"
        assert self.err == ""
        return self.answer or {}

    def failed(self, code: int) -> str:
        """The message of a plugin that failed with this code of CNI's."""
        assert self.rc == 1, f"exit status {self.rc}: {self.answer} {self.err}"
        assert self.answer is not None
        assert self.answer["code"] == code, self.answer
        message: str = self.answer["msg"]
        return message


def execute(path: Path, name: str, data: bytes, environment: dict[str, str]) -> Done:
    """Run the executable of a plugin with nothing in its environment but these and PATH."""
    done = subprocess.run(
        [str(path / name)],
        input=data,
        capture_output=True,
        check=False,
        timeout=60,
        env={"PATH": _SBIN, **environment},
    )
    text = done.stdout.decode()
    return Done(done.returncode, json.loads(text) if text.strip() else None, done.stderr.decode())


def connect(source: str, target: str, address: str, *, seconds: float = 10) -> str:
    """Connect by TCP from one namespace to an address of another; the address that the target sees the source with.

    An empty path is the namespace of this thread. Raises OSError if nobody is reached within `seconds`.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as stack:
        with _maybe_inside(target):
            server = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        server.bind(("", 0))
        server.listen()
        with _maybe_inside(source):
            client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.settimeout(seconds)
        client.connect((address, server.getsockname()[1]))
        server.settimeout(seconds)
        accepted, seen = server.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
        return str(seen[0])


def _maybe_inside(path: str) -> contextlib.AbstractContextManager[None]:
    return inside(path) if path else contextlib.nullcontext()


def unreachable(source: str, target: str, address: str) -> bool:
    """Whether a connection by TCP gets nowhere, as far as a second tells."""
    try:
        connect(source, target, address, seconds=1)
    except OSError:
        return True
    return False
