"""Links of the host in the container's network namespace (`linux.netDevices`): what they bring along, and where they end."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.isolation import CLONE_NEWNET, setns
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace

ADDRESS = "02:00:00:00:00:07"


def ip(*words: str) -> Any:
    """What ip(8) says, as JSON."""
    done = subprocess.run(["ip", "-json", *words], check=True, capture_output=True)
    return json.loads(done.stdout) if done.stdout.strip() else []


def names() -> set[str]:
    """The links of the network namespace that the tests run in."""
    return {link["ifname"] for link in ip("link", "show")}


@pytest.fixture
def link(no_leaks: list[Path]) -> Iterator[str]:
    """One end of a veth pair, up, with addresses of all sorts; the other end keeps the host from losing both."""
    del no_leaks
    wait_for(lambda: not names() & {"there0", "here0"}, "the end of the last test's links")
    ip("link", "add", "here0", "type", "veth", "peer", "name", "there0")
    try:
        # No address that the kernel makes: it comes when the link is up, and is tentative for a second.
        ip("link", "set", "there0", "mtu", "1400", "address", ADDRESS, "addrgenmode", "none")
        ip("link", "property", "add", "dev", "there0", "altname", "also0")
        for words in (
            "10.1.2.3/24 brd 10.1.2.255",
            "10.9.9.1 peer 10.9.9.2/32",
            "10.1.3.4/24 scope link",
            "10.1.4.5/24 valid_lft 1000 preferred_lft 1000",
            "fd00::5/64 nodad",
        ):
            ip("address", "add", "dev", "there0", *words.split())
        ip("link", "set", "there0", "up")
        ip("link", "set", "here0", "up")
        # The kernel says some time later that there is a carrier.
        wait_for(lambda: ip("link", "show", "dev", "there0")[0]["operstate"] == "UP", "the link's state")
        yield "there0"
    finally:
        subprocess.run(["ip", "link", "delete", "here0"], check=False, capture_output=True)


def moving(made: Bundle, devices: dict[str, Any], *words: str) -> Bundle:
    """The bundle with network devices; its program is busybox's ip."""
    made.config["linux"]["netDevices"] = devices
    return made.edit(args=["busybox", "ip", *words]) if words else made.edit()


@pytest.mark.parametrize("user_namespace", [False, True])
@pytest.mark.parametrize("inside", ["", "eth7"])
def test_it_brings_what_it_has(runtime: Runtime, bundle: MakeBundle, link: str, user_namespace: bool, inside: str) -> None:
    """Number of bytes, hardware address, and the permanent addresses of global scope; it is up, and gone outside."""
    name = inside or link
    made = moving(bundle(), {link: {"name": inside} if inside else {}}, "address", "show", "dev", name)
    if user_namespace:
        with_user_namespace(made)
    said = runtime.run(made).ok().out
    assert "mtu 1400" in said
    assert ADDRESS in said
    assert ",UP," in said
    assert "inet 10.1.2.3/24 brd 10.1.2.255 scope global" in said
    assert "inet 10.9.9.1" in said
    for unwanted in ("10.1.3.4", "10.1.4.5"):
        assert unwanted not in said
    if runtime.is_ocirt:  # runc asks for the addresses when the link is down, and those of IPv6 are gone
        assert "10.9.9.1 peer 10.9.9.2/32" in said
        assert "fd00::5/64 scope global" in said
    # What is virtual ends with its namespace, and its other end with it.
    wait_for(lambda: "here0" not in names(), "the end of the pair")


def test_the_name_is_found_by_the_kernel(runtime: Runtime, bundle: MakeBundle, link: str) -> None:
    """`%d` stands for a number that is free there; an alternative name finds a device, too."""
    if not runtime.is_ocirt:
        pytest.skip("runc looks for a device with %d in its name, and refuses alternative names")
    made = moving(bundle(), {"also0": {"name": "lo%d"}, "here0": {"name": "lo%d"}}, "-o", "link", "show")
    said = runtime.run(made).ok().out
    assert {line.split()[1].partition("@")[0].rstrip(":") for line in said.splitlines()} == {"lo", "lo0", "lo1"}
    assert [ADDRESS in line for line in said.splitlines() if "lo0@" in line] == [True]
    assert f"{link}@" not in said


def test_an_alternative_name_is_not_its_name(runtime: Runtime, bundle: MakeBundle, link: str) -> None:
    """Found by one, it keeps the name that it has."""
    if not runtime.is_ocirt:
        pytest.skip("runc refuses it: file exists")
    assert f"{link}@" in runtime.run(moving(bundle(), {"also0": {}}, "-o", "link", "show")).ok().out


def test_it_is_there_for_hooks_and_sysctls(runtime: Runtime, bundle: MakeBundle, link: str, tmp_path: Path) -> None:
    """And before `start`: the container's namespace has it when the first hook runs."""
    told = tmp_path / "told"
    script = f"nsenter --net=/proc/$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')/ns/net ip -o link > {told}"
    made = moving(bundle(hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}), {link: {}})
    made.edit(sysctl={f"net.ipv4.conf.{link}.proxy_arp": "1"}, args=["cat", f"/proc/sys/net/ipv4/conf/{link}/proxy_arp"])
    container = runtime.create(made)
    assert f"{link}@" in told.read_text()
    assert link not in names()
    pid = runtime.pid(container)
    runtime.start(container).ok()
    runtime.wait(container, pid)
    assert runtime.output_of(container).read_text() == "1\n"


@pytest.fixture
def namespace(no_leaks: list[Path]) -> Iterator[str]:
    """The path of a network namespace that somebody else holds."""
    del no_leaks
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        process.stdout.read(1)  # unshare has become cat
        yield f"/proc/{process.pid}/ns/net"
        process.stdin.close()


def links_in(path: str) -> Any:
    """The links of another network namespace, by name."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(path, os.O_RDONLY)
    try:
        setns(other, CLONE_NEWNET)
        return {link["ifname"]: link for link in ip("address", "show")}
    finally:
        setns(own, CLONE_NEWNET)
        os.close(own)
        os.close(other)


def joining(made: Bundle, path: str) -> Bundle:
    """The bundle with a network namespace that is joined."""
    others = [each for each in made.config["linux"]["namespaces"] if each["type"] != "network"]
    return made.edit(namespaces=[*others, {"type": "network", "path": path}])


def test_a_namespace_that_outlives_the_container(runtime: Runtime, bundle: MakeBundle, link: str, namespace: str) -> None:
    """The device stays where it is: its namespace is not the runtime's to clear."""
    made = joining(moving(bundle(), {link: {"name": "eth0"}}, "address", "show", "dev", "eth0"), namespace)
    assert "10.1.2.3/24" in runtime.run(made).ok().out
    found = links_in(namespace)["eth0"]
    assert found["address"] == ADDRESS
    assert "UP" in found["flags"]
    assert "here0" in names()


def test_the_host_s_own_namespace(runtime: Runtime, bundle: MakeBundle, link: str) -> None:
    """Joined by its path it is no other: the device stays, under its new name."""
    if not runtime.is_ocirt:
        pytest.skip("runc fails to add the addresses, which are still there")
    path = f"/proc/{os.getpid()}/ns/net"
    made = joining(moving(bundle(), {link: {"name": "other0"}}, "address", "show", "dev", "other0"), path)
    said = runtime.run(made).ok().out
    assert "10.1.2.3/24" in said
    assert "fd00::5/64 scope global" in said
    assert "other0" in names()


@pytest.mark.parametrize(
    ("devices", "runc", "ours"),
    [
        ({"nosuch0": {}}, "Link not found", "/linux/netDevices/nosuch0: network device: nosuch0: netlink: no such device"),
        (
            {"lo": {"name": "lo7"}},
            "invalid argument",
            "/linux/netDevices/lo: move network device: lo: netlink: .*invalid argument",
        ),
        ({"there0": {"name": "lo"}}, "file exists", '/linux/netDevices/there0: .*file exists .*"lo" is the name'),
        ({"there0": {"name": "also0"}}, "file exists", '/linux/netDevices/there0: .*file exists .*"also0" is the name'),
        ({"there0": {"name": "a b"}}, 'invalid network device name "a b"', '/linux/netDevices/there0/name: invalid .*"a b"'),
        ({"there0": {"name": "x" * 16}}, "out of range", "/linux/netDevices/there0/name: .*16 bytes"),
        ({"there0": {"name": "a/b"}}, 'invalid network device name "a/b"', "/linux/netDevices/there0/name: "),
    ],
)
def test_refused(runtime: Runtime, bundle: MakeBundle, link: str, devices: dict[str, Any], runc: str, ours: str) -> None:
    """With a pointer; the device that is meant stays as it was."""
    subprocess.run(["ip", "address", "delete", "10.1.4.5/24", "dev", link], check=True)  # its time runs
    before = ip("address", "show", "dev", link)
    result = runtime.run(moving(bundle(), devices)).failed(rc=1)
    result.failed((ours if runtime.is_ocirt else runc).replace('"', '\\\\"'))
    if runtime.is_ocirt:  # runc takes it down first, and loses it where the kernel moves it before it finds fault with the name
        assert ip("address", "show", "dev", link) == before


def test_a_name_that_is_taken(runtime: Runtime, bundle: MakeBundle, link: str, namespace: str) -> None:
    """In a namespace that is joined this is seen before anything is made."""
    made = joining(moving(bundle(), {link: {"name": "lo"}}), namespace)
    result = runtime.run(made).failed("file exists", rc=1)
    if runtime.is_ocirt:
        assert "/linux/netDevices/there0: network device: there0" in result.err
        assert ip("address", "show", "dev", link)[0]["operstate"] == "UP"


def test_only_in_a_namespace_of_its_own(runtime: Runtime, bundle: MakeBundle, link: str) -> None:
    """On the host's network there is nothing to move."""
    made = moving(bundle(namespaces=["pid", "mount", "ipc", "uts"]), {link: {}})
    runtime.run(made).failed("unable to move network devices without a (network|NET) namespace", rc=1)


def test_what_fails_before_leaves_it_alone(runtime: Runtime, bundle: MakeBundle, link: str) -> None:
    """Mounts are made first: what they refuse takes no device away."""
    if not runtime.is_ocirt:
        pytest.skip("runc moves the devices first, and a virtual one is lost")
    mounts = [{"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["nonsense=1"]}]
    runtime.run(moving(bundle(add_mounts=mounts), {link: {}})).failed("/mounts/6", rc=1)
    assert "10.1.2.3" in str(ip("address", "show", "dev", link))
