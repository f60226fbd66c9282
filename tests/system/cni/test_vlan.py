"""The plugin vlan: a link for the frames of one VLAN. Needs a kernel with them, as the virtual machine's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, UNSUPPORTED, UNSUPPORTED_FIELD
from tests.support.links import make_uplink, need_kind, refuse_kind
from tests.support.networks import Host, addresses, command, connect, link, unreachable
from tests.system.cni.conftest import MakeNetns, Plugin

IPAM = {"ipam": {"type": "static", "addresses": [{"address": "10.5.0.2/24", "gateway": "10.5.0.1"}]}}


@pytest.fixture(autouse=True)
def outside(netns: MakeNetns) -> str:
    """The network namespace beyond the host's link `up0`; its path."""
    path = netns()
    make_uplink(path)
    return path


def test_a_kernel_without_it(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    refuse_kind("vlan")
    path, before = netns(), host.traces()
    conf = {"master": "up0", "vlanId": 5, **IPAM}
    done = plugin("vlan", conf, netns=path)
    assert done.failed(UNSUPPORTED) == "/type: this kernel has no links of the kind vlan"
    assert done.answer is not None
    assert done.answer["details"] == "it takes a kernel with CONFIG_VLAN_8021Q, and its module 8021q if that is built as one"
    plugin("vlan", conf, "STATUS").failed(NOT_AVAILABLE)
    plugin("vlan", conf, "DEL", netns=path).ok()
    assert host.traces() == before


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"vlanId": 5}, INVALID_CONFIG, "/master: it is missing"),
        ({"master": "gone", "vlanId": 5}, INVALID_CONFIG, "/master: there is no link gone"),
        ({"master": "up0", "vlanId": 4095}, INVALID_CONFIG, "/vlanId: 4095 is not between 0 and 4094"),
        ({"master": "up0", "vlanId": -1}, INVALID_CONFIG, "/vlanId: -1 is not between 0 and 4094"),
        ({"master": "up0", "vlanId": "5"}, INVALID_CONFIG, "/vlanId: this is not a number"),
        ({"master": "up0", "vlanId": 5, "mtu": 9000}, INVALID_CONFIG, "/mtu: 9000 is more than that of up0, 1500"),
        ({"master": "up0", "vlan": 5}, UNSUPPORTED_FIELD, "/vlan: vlan has no such field"),
    ],
)
def test_wrong_configurations(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], code: int, message: str) -> None:
    path = netns()
    assert plugin("vlan", {**conf, **IPAM}, netns=path).failed(code).startswith(message)
    assert link("eth0", path) is None


@pytest.mark.parametrize("inside", [False, True])
def test_frames_of_one_vlan(plugin: Plugin, netns: MakeNetns, outside: str, inside: bool) -> None:
    need_kind("vlan")
    path = netns()
    for number, address in ((5, "10.5.0.1/24"), (6, "10.5.0.6/24")):
        command("ip", "link", "add", "link", "out0", "name", f"v{number}", "type", "vlan", "id", str(number), network=outside)
        command("ip", "addr", "add", address, "dev", f"v{number}", network=outside)
        command("ip", "link", "set", f"v{number}", "up", network=outside)
    if inside:
        command("ip", "link", "set", "up0", "netns", path)
        command("ip", "link", "set", "up0", "up", network=path)
    conf = {"master": "up0", "vlanId": 5, "mtu": 1400, "linkInContainer": inside, **IPAM}
    result = plugin("vlan", conf, netns=path).ok()
    found = link("eth0", path)
    assert found is not None
    assert (found["linkinfo"]["info_kind"], found["linkinfo"]["info_data"]["id"], found["mtu"]) == ("vlan", 5, 1400)
    assert result["interfaces"] == [{"name": "eth0", "mac": found["address"], "sandbox": path, "mtu": 1400}]
    assert addresses("eth0", path) == {"10.5.0.2/24"}
    assert connect(path, outside, "10.5.0.1") == "10.5.0.2"
    command("ip", "link", "set", "v5", "down", network=outside)
    assert unreachable(path, outside, "10.5.0.6")
    conf["prevResult"] = result
    plugin("vlan", conf, "CHECK", netns=path).ok()
    assert plugin("vlan", {**conf, "vlanId": 6}, "CHECK", netns=path).failed(CHECK_FAILED) == "eth0: its VLAN is 5, not 6"
    assert plugin("vlan", {**conf, "mtu": 1300}, "CHECK", netns=path).failed(CHECK_FAILED) == "eth0: its MTU is 1400, not 1300"
    plugin("vlan", conf, "STATUS").ok()
    for where in (path, path, ""):
        plugin("vlan", conf, "DEL", netns=where).ok()
        assert link("eth0", path) is None
