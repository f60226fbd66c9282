"""The plugin tuning: sysctls and properties of the container's link, and what they were before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import (
    CHECK_FAILED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    IO_FAILURE,
    KERNEL,
    UNSUPPORTED,
    UNSUPPORTED_FIELD,
)
from tests.support.isolation import mount, umount
from tests.support.networks import Host, command, link, sysctl
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

OLD = "02:00:00:00:00:01"
MAC = "02:00:00:00:00:07"
FOLDER = Path("/run/cni/tuning")
SYSCTLS = {"net.ipv4.conf.IFNAME.arp_filter": "1", "net/ipv4/ip_default_ttl": "33", "net.core.somaxconn": "200"}
LINK = {"mac": MAC, "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 300}


@pytest.fixture
def path(netns: MakeNetns) -> str:
    """A container with a veth; the path of its namespace."""
    made = netns()
    command("ip", "link", "add", "eth0", "address", OLD, "type", "veth", "peer", "name", "host0", network=made)
    command("ip", "link", "set", "eth0", "txqueuelen", "100", "up", network=made)
    return made


@pytest.fixture
def etc() -> Iterator[Path]:
    """An empty /etc/cni/tuning."""
    folder = Path("/etc/cni")
    if not folder.exists():
        pytest.skip("this machine has no folder /etc/cni to put a list into")
    mount("tmpfs", str(folder), "tmpfs", 0)
    try:
        (folder / "tuning").mkdir()
        yield folder / "tuning"
    finally:
        umount(str(folder))


def previous(path: str) -> dict[str, Any]:
    """What the plugin before returned."""
    return {"cniVersion": "1.1.0", "interfaces": [{"name": "host0"}, {"name": "eth0", "mac": OLD, "sandbox": path}], "dns": {}}


def state(path: str) -> dict[str, Any]:
    """What the plugin may change."""
    found = link("eth0", path)
    assert found is not None
    shown = {
        "mac": found["address"],
        "mtu": found["mtu"],
        "promisc": "PROMISC" in found["flags"],
        "allmulti": "ALLMULTI" in found["flags"],
        "txQLen": found["txqlen"],
    }
    names = ("ipv4/conf/eth0/arp_filter", "ipv4/ip_default_ttl", "core/somaxconn")
    return shown | {name: sysctl(name, path) for name in names}


def test_all_and_back(plugin: Plugin, path: str, host: Host) -> None:
    before, traces = state(path), host.traces()
    conf = {"sysctl": SYSCTLS, **LINK, "prevResult": previous(path)}
    result = plugin("tuning", conf, netns=path).ok()
    assert [(one["name"], one.get("mac"), one.get("mtu")) for one in result["interfaces"]] == [
        ("host0", None, None),
        ("eth0", MAC, 1400),
    ]
    assert state(path) == {
        **LINK,
        "ipv4/conf/eth0/arp_filter": "1",
        "ipv4/ip_default_ttl": "33",
        "core/somaxconn": "200",
    }
    plugin("tuning", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    file = FOLDER / "c1_eth0.json"
    assert file.stat().st_mode & 0o777 == 0o600
    noted = json.loads(file.read_text())
    assert {key: noted[key] for key in LINK} == {"mac": OLD, "mtu": 1500, "promisc": False, "allmulti": False, "txQLen": 100}
    for _ in range(2):
        plugin("tuning", {**conf, "prevResult": result}, "DEL", netns=path).ok()
        assert state(path) == before
    assert host.traces() == traces


def test_what_is_not_configured_stays(plugin: Plugin, path: str) -> None:
    before = state(path)
    for conf in ({}, {"mtu": 0, "mac": "", "sysctl": {}}):
        assert plugin("tuning", {**conf, "prevResult": previous(path)}, netns=path).ok() == previous(path)
        plugin("tuning", {**conf, "prevResult": previous(path)}, "CHECK", netns=path).ok()
    assert state(path) == before
    assert not FOLDER.exists()


def test_flags_off(plugin: Plugin, path: str) -> None:
    command("ip", "link", "set", "eth0", "promisc", "on", "allmulticast", "on", network=path)
    conf = {"promisc": False, "allmulti": False, "prevResult": previous(path)}
    plugin("tuning", conf, netns=path).ok()
    assert (state(path)["promisc"], state(path)["allmulti"]) == (False, False)
    plugin("tuning", conf, "CHECK", netns=path).ok()
    plugin("tuning", conf, "DEL", netns=path).ok()
    assert (state(path)["promisc"], state(path)["allmulti"]) == (True, True)


def test_arguments_win(plugin: Plugin, path: str) -> None:
    conf = {
        "sysctl": {"net.core.somaxconn": "100", "net.ipv4.ip_default_ttl": "33"},
        "mac": "02:00:00:00:00:05",
        "mtu": 1300,
        "promisc": True,
        "txQLen": 5,
        "args": {"cni": {"sysctl": {"net/core/somaxconn": "200"}, "mac": MAC, "mtu": 1400, "promisc": False, "txQLen": 300}},
        "prevResult": previous(path),
    }
    plugin("tuning", conf, netns=path, env={"CNI_ARGS": "MAC=02:00:00:00:00:06"}).ok()
    found = state(path)
    assert {key: found[key] for key in ("mac", "mtu", "promisc", "txQLen")} == {
        "mac": MAC,
        "mtu": 1400,
        "promisc": False,
        "txQLen": 300,
    }
    assert (found["core/somaxconn"], found["ipv4/ip_default_ttl"]) == ("200", "33")


@pytest.mark.parametrize("conf", [{"runtimeConfig": {"mac": MAC}}, {}])
def test_hardware_address_of_the_runtime(plugin: Plugin, path: str, conf: dict[str, Any]) -> None:
    args = "" if conf else f"IgnoreUnknown=1;MAC={MAC};K8S_POD_NAME=x"
    plugin("tuning", {**conf, "prevResult": previous(path)}, netns=path, env={"CNI_ARGS": args}).ok()
    assert state(path)["mac"] == MAC


def test_a_name_with_a_dot(plugin: Plugin, path: str) -> None:
    command("ip", "link", "set", "eth0", "down", network=path)
    command("ip", "link", "set", "eth0", "name", "eth0.7", network=path)
    conf = {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "prevResult": previous(path)}
    plugin("tuning", conf, netns=path, ifname="eth0.7").ok()
    assert sysctl("ipv4/conf/eth0.7/arp_filter", path) == "1"
    plugin("tuning", conf, "DEL", netns=path, ifname="eth0.7").ok()
    assert sysctl("ipv4/conf/eth0.7/arp_filter", path) == "0"


def test_several_values(plugin: Plugin, path: str) -> None:
    conf = {"sysctl": {"net.ipv4.tcp_rmem": "4096 87380 100000"}, "prevResult": previous(path)}
    plugin("tuning", conf, netns=path).ok()
    assert sysctl("ipv4/tcp_rmem", path).split() == ["4096", "87380", "100000"]
    plugin("tuning", conf, "CHECK", netns=path).ok()


def test_two_in_a_chain(plugin: Plugin, path: str) -> None:
    before = state(path)
    first = {"mtu": 1400, "sysctl": {"net.core.somaxconn": "100"}, "prevResult": previous(path)}
    second = {"mtu": 1300, "mac": MAC, "sysctl": SYSCTLS, "prevResult": previous(path)}
    plugin("tuning", first, netns=path).ok()
    plugin("tuning", second, netns=path).ok()
    assert state(path)["mtu"] == 1300
    plugin("tuning", second, "DEL", netns=path).ok()
    plugin("tuning", first, "DEL", netns=path).ok()
    assert state(path) == before


def test_a_folder_of_its_own(plugin: Plugin, path: str, tmp_path: Path) -> None:
    conf = {"mtu": 1400, "dataDir": str(tmp_path / "a/b"), "prevResult": previous(path)}
    plugin("tuning", conf, netns=path).ok()
    assert [one.name for one in (tmp_path / "a/b").iterdir()] == ["c1_eth0.json"]
    plugin("tuning", conf, "DEL", netns=path).ok()
    assert list((tmp_path / "a/b").iterdir()) == []
    assert state(path)["mtu"] == 1500


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"sysctl": {"kernel.hostname": "x"}}, INVALID_CONFIG, "/sysctl/kernel.hostname: kernel.hostname is not a sysctl of the"),
        ({"sysctl": {"net/../kernel/x": "x"}}, INVALID_CONFIG, "/sysctl/net~1..~1kernel~1x: "),
        ({"sysctl": {"net.ipv4": "x", "net": "x"}}, INVALID_CONFIG, "/sysctl/net: "),
        ({"sysctl": {"net.core.somaxconn": 5}}, INVALID_CONFIG, "/sysctl/net.core.somaxconn: this is not a string"),
        (
            {"sysctl": {"net.core.somaxconn": "5", "net/core/somaxconn": "6"}},
            INVALID_CONFIG,
            "/sysctl/net~1core~1somaxconn: it is the same as /sysctl/net.core.somaxconn",
        ),
        ({"args": {"cni": {"sysctl": {"kernel.x": "5"}}}}, INVALID_CONFIG, "/args/cni/sysctl/kernel.x: "),
        ({"sysctl": {"net.core.nothing": "1"}}, UNSUPPORTED, "/sysctl/net.core.nothing: "),
        ({"sysctl": {"net.core.somaxconn": "nonsense"}}, KERNEL, "/sysctl/net.core.somaxconn: "),
        ({"mtu": -1}, INVALID_CONFIG, "/mtu: -1 is not between"),
        ({"mtu": 20}, KERNEL, "RTM_NEWLINK eth0: EINVAL"),
        ({"txQLen": -1}, INVALID_CONFIG, "/txQLen: -1 is not between"),
        ({"args": {"cni": {"txQLen": "1"}}}, INVALID_CONFIG, "/args/cni/txQLen: this is not a number"),
        ({"promisc": 1}, INVALID_CONFIG, "/promisc: this is not true or false"),
        ({"mac": "nonsense"}, INVALID_CONFIG, "/mac: 'nonsense' is not a hardware address"),
        ({"dataDir": "here"}, INVALID_CONFIG, "/dataDir: 'here' is not an absolute path"),
        ({"txqlen": 5}, UNSUPPORTED_FIELD, "/txqlen: tuning has no such field"),
    ],
)
def test_wrong_configurations(plugin: Plugin, path: str, host: Host, conf: dict[str, Any], code: int, message: str) -> None:
    before, traces = state(path), host.traces()
    # What is right about it is not left behind.
    whole = {"allmulti": True, **conf, "prevResult": previous(path)}
    whole["sysctl"] = {"net.ipv4.ip_default_ttl": "33", **whole.get("sysctl", {})}
    assert plugin("tuning", whole, netns=path).failed(code).startswith(message)
    assert state(path) == before
    assert host.traces() == traces
    if code in (INVALID_CONFIG, UNSUPPORTED_FIELD):
        assert plugin("tuning", whole, "STATUS").failed(code).startswith(message)


def test_wrong_environment(plugin: Plugin, path: str) -> None:
    assert plugin("tuning", {"mtu": 1400}, netns=path).failed(INVALID_CONFIG).startswith("/prevResult: ")
    conf = {"mtu": 1400, "prevResult": previous(path)}
    assert plugin("tuning", conf, netns=path, ifname="eth9").failed(INVALID_CONFIG).startswith("eth9: ")
    args = {"CNI_ARGS": "MAC=nonsense"}
    assert plugin("tuning", conf, netns=path, env=args).failed(INVALID_ENVIRONMENT).startswith("CNI_ARGS: ")
    plugin("tuning", conf, netns="/run/netns/gone").failed(INVALID_NETNS)


def test_no_room_for_the_old_values(plugin: Plugin, path: str) -> None:
    before = state(path)
    FOLDER.mkdir(parents=True)
    mount("tmpfs", str(FOLDER), "tmpfs", 0, "size=4k,nr_inodes=1")
    try:
        message = plugin("tuning", {"mtu": 1400, "prevResult": previous(path)}, netns=path).failed(IO_FAILURE)
    finally:
        umount(str(FOLDER))
    assert message == f"{FOLDER}/c1_eth0.json: the old values cannot be noted: No space left on device"
    assert state(path) == before


def test_the_list_of_what_is_allowed(plugin: Plugin, path: str, etc: Path) -> None:
    conf = {"sysctl": {"net.core.somaxconn": "200"}, "prevResult": previous(path)}
    file = etc / "allowlist.conf"
    for text in ("", "\n", "^net\\.ipv4\\..*$\n^net\\.core\\.wmem_max$\n"):
        file.write_text(text)
        message = plugin("tuning", conf, netns=path).failed(INVALID_CONFIG)
        assert message == "/sysctl/net.core.somaxconn: /etc/cni/tuning/allowlist.conf does not allow net.core.somaxconn"
        plugin("tuning", {"mtu": 1400, "prevResult": previous(path)}, netns=path).ok()
    for text in ("^net\\.core\\.so.*$\n", "  core  \nx"):
        file.write_text(text)
        plugin("tuning", conf, netns=path).ok()
    file.write_text("(\n")
    message = plugin("tuning", conf, netns=path).failed(INVALID_CONFIG)
    assert message.startswith("/etc/cni/tuning/allowlist.conf: '(' is not a regular expression")
    file.unlink()
    file.mkdir()
    plugin("tuning", conf, netns=path).failed(IO_FAILURE)


def test_the_regular_expressions_are_loaded_if_there_is_a_list(plugin: Plugin, path: str, etc: Path) -> None:
    assert list(etc.iterdir()) == []
    plugin("tuning", {"sysctl": SYSCTLS, "prevResult": previous(path)}, netns=path).ok()


@pytest.mark.parametrize("where", ["", "/run/netns/gone"])
def test_del_without_namespace(plugin: Plugin, path: str, netns: MakeNetns, where: str) -> None:
    conf = {**LINK, "prevResult": previous(path)}
    plugin("tuning", conf, netns=path).ok()
    umount(path)
    os.unlink(path)
    plugin("tuning", {"mtu": 1400}, "DEL", netns=where).ok()
    assert list(FOLDER.iterdir()) == []


def test_del_with_another_namespace_at_the_path(plugin: Plugin, path: str, netns: MakeNetns) -> None:
    plugin("tuning", {**LINK, "sysctl": SYSCTLS, "prevResult": previous(path)}, netns=path).ok()
    other = netns()
    command("ip", "link", "add", "eth0", "mtu", "1200", "type", "veth", "peer", "name", "host0", network=other)
    before = state(other)
    plugin("tuning", LINK, "DEL", netns=other).ok()
    assert state(other) == before
    assert list(FOLDER.iterdir()) == []


@pytest.mark.parametrize("network", ["net", "net@01234567"])
def test_del_of_hardware_that_the_kernel_moved_back(plugin: Plugin, path: str, network: str) -> None:
    # As host-device notes it, whose network may keep its addresses in a folder of its own.
    command("ip", "link", "set", "eth0", "alias", f"ocirt {network} c1 eth0 was nic0 up", network=path)
    plugin("tuning", {**LINK, "prevResult": previous(path)}, netns=path).ok()
    with open("/proc/thread-self/ns/net", encoding="utf-8") as own:
        for name in ("host0", "eth0"):  # both ends, as a pair ends with either
            command("ip", "link", "set", name, "netns", f"/proc/{os.getpid()}/fd/{own.fileno()}", network=path)
    umount(path)
    os.unlink(path)
    plugin("tuning", LINK, "DEL").ok()
    found = link("eth0")
    assert found is not None
    assert (found["address"], found["mtu"], found["txqlen"]) == (OLD, 1500, 100)
    assert list(FOLDER.iterdir()) == []


def test_del_without_the_link(plugin: Plugin, path: str) -> None:
    plugin("tuning", {**LINK, "sysctl": SYSCTLS, "prevResult": previous(path)}, netns=path).ok()
    command("ip", "link", "del", "eth0", network=path)
    plugin("tuning", LINK, "DEL", netns=path).ok()
    assert sysctl("ipv4/ip_default_ttl", path) == "64"
    assert list(FOLDER.iterdir()) == []


@pytest.mark.parametrize("text", ["", '{"mtu": 15', "[]"])
def test_del_with_a_file_that_a_crash_left(plugin: Plugin, path: str, text: str) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "c1_eth0.json").write_text(text)
    (FOLDER / "c1_eth0.json@net.new").write_text("{")
    plugin("tuning", LINK, "DEL", netns=path).ok()
    assert list(FOLDER.iterdir()) == []


def test_del_of_what_the_reference_plugin_did(plugin: Plugin, path: str) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "c1_eth0.json").write_text('{"mac": "02:00:00:00:00:09", "promisc": true, "mtu": 1450}')
    plugin("tuning", LINK, "DEL", netns=path).ok()
    found = state(path)
    assert (found["mac"], found["promisc"], found["mtu"]) == ("02:00:00:00:00:09", True, 1450)


def test_del_of_a_caller_that_drops_the_namespace(invoke: Invoke, path: str) -> None:
    conf = {**LINK, "prevResult": previous(path)}
    invoke("tuning", conf, netns=path)
    invoke("tuning", conf, "DEL", netns=path, lazy=True)
    assert state(path)["mtu"] == 1400
    assert list(FOLDER.iterdir()) == []


def test_gc(plugin: Plugin, path: str) -> None:
    before = state(path)
    for network, container in (("net", "c1"), ("net", "c2"), ("net2", "c3")):
        conf = {"name": network, "mtu": 1400, "prevResult": previous(path)}
        plugin("tuning", conf, netns=path, container=container).ok()
    (FOLDER / "c4_eth0.json").write_text('{"mtu": 1450}')
    (FOLDER / "c4_eth0.json@net.new").write_text("{")
    (FOLDER / "c4_eth0.json@net2.new").write_text("{")
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    plugin("tuning", {"cni.dev/valid-attachments": valid}, "GC").ok()
    left = sorted(one.name for one in FOLDER.iterdir())
    assert left == ["c2_eth0.json", "c3_eth0.json", "c4_eth0.json", "c4_eth0.json@net2.new"]
    assert state(path) == before, "the namespace is there, so the values of c1 are put back"


def test_check_says_what_is_wrong(plugin: Plugin, path: str) -> None:
    conf = {"sysctl": SYSCTLS, **LINK, "prevResult": previous(path)}
    plugin("tuning", conf, netns=path).ok()

    def check(**changed: Any) -> str:
        return plugin("tuning", {**conf, **changed}, "CHECK", netns=path).failed(CHECK_FAILED)

    assert check(mac=OLD) == f"eth0: its hardware address is {MAC}, not {OLD}"
    assert check(mtu=1300) == "eth0: its MTU is 1400, not 1300"
    assert check(txQLen=5) == "eth0: its length of the transmit queue is 300, not 5"
    assert check(promisc=False) == "eth0: its promisc is on, not off"
    assert check(allmulti=False) == "eth0: its allmulti is on, not off"
    assert check(sysctl={"net.core.somaxconn": "7"}) == "net/core/somaxconn: the value is '200', not '7'"
    command("ip", "link", "del", "eth0", network=path)
    assert check(sysctl={}) == "eth0: the container has no such link"


def test_status(plugin: Plugin) -> None:
    plugin("tuning", {"sysctl": SYSCTLS, **LINK}, "STATUS").ok()
