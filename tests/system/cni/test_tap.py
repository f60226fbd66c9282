"""The plugin tap: a device in the container for a program that reads and writes frames."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni import versions
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, KERNEL, NOT_AVAILABLE, TAKEN, UNSUPPORTED, UNSUPPORTED_FIELD
from tests.support.isolation import MS_BIND, mount, umount
from tests.support.networks import Host, addresses, command, inside, link
from tests.system.cni.conftest import MakeNetns, Plugin

MAC = "02:00:00:00:00:07"
IPAM = {"ipam": {"type": "static", "addresses": [{"address": "10.6.0.2/24", "gateway": "10.6.0.1"}]}}


def device(path: str, name: str = "eth0") -> dict[str, Any]:
    """The device as `ip` shows it."""
    found = link(name, path)
    assert found is not None
    assert found["linkinfo"]["info_kind"] == "tun"
    return found


def test_frames_reach_a_program(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("tap", IPAM, netns=path).ok()
    found = device(path)
    assert result["interfaces"] == [{"name": "eth0", "mac": found["address"], "sandbox": path, "mtu": 1500}]
    assert result["ips"] == [{"interface": 0, "address": "10.6.0.2/24", "gateway": "10.6.0.1"}]
    assert addresses("eth0", path) == {"10.6.0.2/24"}
    assert found["ifalias"] == "ocirt net c1 eth0"
    data = found["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["pi"], data["multi_queue"]) == ("tap", True, False, False)
    with inside(path):
        fd = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"eth0", 0x1002))
            # Whoever looks for 10.6.0.1 asks this program.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("10.6.0.1", 9))
            asked = _arp_request(fd)
            assert asked[28:32] == bytes((10, 6, 0, 2))
            assert asked[38:42] == bytes((10, 6, 0, 1))
        finally:
            os.close(fd)
    plugin("tap", {**IPAM, "prevResult": result}, "CHECK", netns=path).ok()


def _arp_request(fd: int) -> bytes:
    """The next frame that is one."""
    while True:
        assert select.select([fd], [], [], 10)[0], "no frame came"
        frame = os.read(fd, 2000)
        if frame[12:14] == b"\x08\x06" and frame[38:42] != frame[28:32]:
            return frame


def test_options(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"multiQueue": True, "owner": 1234, "group": 2345, "mtu": 1400, "mac": MAC}
    result = plugin("tap", conf, netns=path).ok()
    found = device(path)
    data = found["linkinfo"]["info_data"]
    assert (data["multi_queue"], data["user"], data["group"]) == (True, 1234, 2345)
    assert (found["mtu"], found["address"]) == (1400, MAC)
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": path, "mtu": 1400}]
    plugin("tap", {**conf, "prevResult": result}, "CHECK", netns=path).ok()


@pytest.mark.parametrize(("name", "shown"), [("owner", "user"), ("group", "group")])
def test_owner_or_group_alone(plugin: Plugin, netns: MakeNetns, name: str, shown: str) -> None:
    path = netns()
    plugin("tap", {name: 0}, netns=path).ok()
    data = device(path)["linkinfo"]["info_data"]
    assert {key: data[key] for key in ("user", "group") if key in data} in ({shown: 0}, {shown: "root"})


_OPEN = """
import fcntl, os, struct, sys
flags = int(sys.argv[1])
for _ in range(int(sys.argv[2])):
    fcntl.ioctl(os.open("/dev/net/tun", os.O_RDWR), 0x400454CA, struct.pack("16sH22x", b"eth0", flags))
"""


def may_open(path: str, user: int, group: int, times: int = 1, flags: int = 0x1002) -> bool:
    """Whether a user without privileges may open the device so many times."""
    identity = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups")
    argv = [*identity, sys.executable, "-I", "-S", "-c", _OPEN, str(flags), str(times)]
    return subprocess.run(["nsenter", f"--net={path}", *argv], capture_output=True, check=False).returncode == 0


@pytest.fixture
def _open_to_all() -> Iterator[None]:
    """A /dev/net/tun that everybody may open, as on most machines."""
    mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755")
    try:
        os.mknod("/dev/net/tun", stat.S_IFCHR | 0o600, os.makedev(10, 200))
        os.chmod("/dev/net/tun", 0o666)
        yield
    finally:
        umount("/dev/net")


@pytest.mark.usefixtures("_open_to_all")
def test_who_may_open_it(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("tap", {"owner": 1234, "group": 2345}, netns=path).ok()
    assert may_open(path, 1234, 2345)
    assert not may_open(path, 1235, 2345)
    assert not may_open(path, 1234, 2346)
    assert not may_open(path, 1234, 2345, times=2)


def test_several_queues(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("tap", {"multiQueue": True}, netns=path).ok()
    assert may_open(path, 0, 0, times=3, flags=0x1102)


def test_hardware_address_of_the_runtime(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": MAC}}
    plugin("tap", conf, netns=path, env={"CNI_ARGS": "MAC=02:00:00:00:00:02"}).ok()
    assert device(path)["address"] == MAC


def test_a_bridge_of_the_container(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    assert plugin("tap", {"bridge": "br0"}, netns=path).failed(INVALID_CONFIG) == "/bridge: there is no br0 in the container"
    command("ip", "link", "add", "br0", "type", "bridge", network=path)
    plugin("tap", {"bridge": "br0"}, netns=path).ok()
    assert device(path)["master"] == "br0"
    message = plugin("tap", {"bridge": "eth0"}, netns=path, ifname="eth1").failed(INVALID_CONFIG)
    assert message == "/bridge: eth0 is not a bridge"
    assert link("eth1", path) is None


def test_selinux(plugin: Plugin, netns: MakeNetns) -> None:
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("this machine runs SELinux")
    path = netns()
    message = plugin("tap", {"selinuxContext": "system_u:system_r:container_t:s0"}, netns=path).failed(UNSUPPORTED)
    assert message == "/selinuxContext: this machine does not run SELinux"
    assert link("eth0", path) is None


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"owner": -1}, INVALID_CONFIG, "/owner: -1 is not between 0 and 4294967294"),
        ({"group": "users"}, INVALID_CONFIG, "/group: this is not a number"),
        ({"multiQueue": 1}, INVALID_CONFIG, "/multiQueue: this is not true or false"),
        ({"mtu": 10}, INVALID_CONFIG, "/mtu: 10 is not between"),
        ({"mac": "x"}, INVALID_CONFIG, "/mac: 'x' is not a hardware address"),
        ({"bridge": 1}, INVALID_CONFIG, "/bridge: this is not a string"),
        ({"multiqueue": True}, UNSUPPORTED_FIELD, "/multiqueue: tap has no such field"),
        ({"ipam": {"type": "static", "addresses": [{"address": "10.6.0.2"}]}}, None, ""),
    ],
)
def test_wrong_configurations(
    plugin: Plugin, netns: MakeNetns, host: Host, conf: dict[str, Any], code: int | None, message: str
) -> None:
    path, before = netns(), host.traces()
    done = plugin("tap", conf, netns=path)
    assert done.rc == 1
    if code is not None:
        assert done.failed(code).startswith(message)
    assert link("eth0", path) is None
    assert host.traces() == before


def test_a_failed_add_leaves_nothing(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    routes = [{"dst": "fd09::/64", "gw": "10.6.0.1"}]
    plugin("tap", {"ipam": {**IPAM["ipam"], "routes": routes}}, netns=path).failed(KERNEL)
    assert link("eth0", path) is None


def test_a_name_that_is_taken(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other", network=path)
    plugin("tap", {}, netns=path).failed(TAKEN)
    plugin("tap", {}, "DEL", netns=path).ok()
    assert link("eth0", path) is not None, "somebody else's"


def test_del(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("tap", IPAM, netns=path).ok()
    for _ in range(2):
        plugin("tap", {**IPAM, "prevResult": result}, "DEL", netns=path).ok()
        assert link("eth0", path) is None
    for gone in ("", "/run/netns/gone"):
        plugin("tap", IPAM, "DEL", netns=gone).ok()
    command("ip", "tuntap", "add", "eth0", "mode", "tap", network=path)
    command("ip", "link", "set", "eth0", "alias", "ocirt net c2 eth0", network=path)
    plugin("tap", IPAM, "DEL", netns=path).ok()
    assert link("eth0", path) is not None, "another attachment's"


def test_check_says_what_is_wrong(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf: dict[str, Any] = {"owner": 1, "group": 2, "mtu": 1400}
    conf["prevResult"] = plugin("tap", conf, netns=path).ok()

    def check(**changed: Any) -> str:
        return plugin("tap", {**conf, **changed}, "CHECK", netns=path).failed(CHECK_FAILED)

    plugin("tap", conf, "CHECK", netns=path).ok()
    assert check(owner=3) == "eth0: its owner is 1, not 3"
    assert check(group=3) == "eth0: its group is 2, not 3"
    assert check(multiQueue=True) == "eth0: its number of queues is one, not many"
    assert check(mtu=1300) == "eth0: its MTU is 1400, not 1300"
    command("ip", "link", "del", "eth0", network=path)
    assert check() == "eth0: it does not exist"


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_all_versions(plugin: Plugin, netns: MakeNetns, version: str) -> None:
    result = plugin("tap", {"cniVersion": version, **IPAM}, netns=netns()).ok()
    assert result["cniVersion"] == version
    if versions.at_least(version, "0.3.0"):
        assert result["ips"][0]["address"] == "10.6.0.2/24"
    else:
        assert result["ip4"]["ip"] == "10.6.0.2/24"


def test_status_and_gc(plugin: Plugin) -> None:
    plugin("tap", IPAM, "STATUS").ok()
    plugin("tap", {**IPAM, "cni.dev/valid-attachments": []}, "GC").ok()


def test_without_the_device(plugin: Plugin, netns: MakeNetns, tmp_path: Path) -> None:
    path = netns()
    mount(str(tmp_path), "/dev/net", "none", MS_BIND)
    try:
        done, status = plugin("tap", {}, netns=path), plugin("tap", {}, "STATUS")
    finally:
        umount("/dev/net")
    assert done.failed(UNSUPPORTED) == "/dev/net/tun: it cannot be opened: No such file or directory"
    assert done.answer is not None
    assert "CONFIG_TUN" in done.answer["details"]
    status.failed(NOT_AVAILABLE)
    assert link("eth0", path) is None
