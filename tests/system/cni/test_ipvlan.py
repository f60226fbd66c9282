"""The plugin ipvlan: links told apart by IP address. Needs a kernel with them, as the virtual machine's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, TAKEN, UNSUPPORTED, UNSUPPORTED_FIELD
from tests.support.links import make_uplink, need_kind, refuse_kind
from tests.support.networks import Host, addresses, command, connect, link, routes
from tests.system.cni.conftest import MakeNetns, Plugin


@pytest.fixture(autouse=True)
def outside(netns: MakeNetns) -> str:
    """The network namespace beyond the host's link `up0`, with 10.5.0.1; its path."""
    path = netns()
    make_uplink(path)
    command("ip", "addr", "add", "10.5.0.1/24", "dev", "out0", network=path)
    return path


def ipam(number: int = 2) -> dict[str, Any]:
    """10.5.0.NUMBER, with the outside as gateway."""
    address = {"address": f"10.5.0.{number}/24", "gateway": "10.5.0.1"}
    return {"ipam": {"type": "static", "addresses": [address], "routes": [{"dst": "0.0.0.0/0"}]}}


def test_a_kernel_without_it(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    refuse_kind("ipvlan")
    path, before = netns(), host.traces()
    conf = {"master": "up0", **ipam()}
    done = plugin("ipvlan", conf, netns=path)
    assert done.failed(UNSUPPORTED) == "/type: this kernel has no links of the kind ipvlan"
    assert done.answer is not None
    assert done.answer["details"] == "it takes a kernel with CONFIG_IPVLAN, and its module ipvlan if that is built as one"
    plugin("ipvlan", conf, "STATUS").failed(NOT_AVAILABLE)
    plugin("ipvlan", conf, "DEL", netns=path).ok()
    assert link("eth0", path) is None
    assert host.traces() == before


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"mode": "l4"}, INVALID_CONFIG, "/mode: 'l4' is none of l2, l3, l3s"),
        ({"master": "gone"}, INVALID_CONFIG, "/master: there is no link gone"),
        ({"master": "up0", "mtu": 9000}, INVALID_CONFIG, "/mtu: 9000 is more than that of up0, 1500"),
        ({"mac": "02:00:00:00:00:01"}, UNSUPPORTED_FIELD, "/mac: ipvlan has no such field"),
        ({"prevResult": {"cniVersion": "1.1.0"}}, INVALID_CONFIG, "/master: it is missing, and the previous result has 0"),
    ],
)
def test_wrong_configurations(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], code: int, message: str) -> None:
    path = netns()
    assert plugin("ipvlan", {**conf, **ipam()}, netns=path).failed(code).startswith(message)
    assert link("eth0", path) is None


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_modes(plugin: Plugin, netns: MakeNetns, outside: str, mode: str) -> None:
    need_kind("ipvlan")
    path, other = netns(), netns()
    conf = {"master": "up0", "mode": mode, "mtu": 1400, **ipam()}
    result = plugin("ipvlan", conf, netns=path).ok()
    found, below = link("eth0", path), link("up0")
    assert found is not None
    assert below is not None
    assert (found["linkinfo"]["info_kind"], found["linkinfo"]["info_data"]["mode"]) == ("ipvlan", mode)
    assert (found["mtu"], found["address"], found["ifalias"]) == (1400, below["address"], "ocirt net c1 eth0")
    assert addresses("eth0", path) == {"10.5.0.2/24"}
    assert "default via 10.5.0.1 dev eth0" in routes(path)
    if mode == "l2":
        assert connect(path, outside, "10.5.0.1") == "10.5.0.2"
    plugin("ipvlan", {**conf, **ipam(3)}, netns=other, container="c2").ok()
    assert connect(path, other, "10.5.0.3") == "10.5.0.2"
    conf["prevResult"] = result
    plugin("ipvlan", conf, "CHECK", netns=path).ok()
    wrong = {**conf, "mode": "l3" if mode == "l2" else "l2"}
    assert plugin("ipvlan", wrong, "CHECK", netns=path).failed(CHECK_FAILED).startswith(f"eth0: its mode is {mode}, not l")
    for where in (path, path, ""):
        plugin("ipvlan", conf, "DEL", netns=where).ok()
        assert link("eth0", path) is None


def test_in_a_chain(plugin: Plugin, netns: MakeNetns, outside: str) -> None:
    need_kind("ipvlan")
    path = netns()
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "up0"}],
        "ips": [{"address": "10.5.0.4/24", "gateway": "10.5.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    result = plugin("ipvlan", {"prevResult": previous}, netns=path).ok()
    assert [one["name"] for one in result["interfaces"]] == ["eth0"]
    assert result["ips"] == [{"interface": 0, "address": "10.5.0.4/24", "gateway": "10.5.0.1"}]
    assert connect(path, outside, "10.5.0.1") == "10.5.0.4"
    plugin("ipvlan", {"prevResult": result, "master": "up0"}, "CHECK", netns=path).ok()
    plugin("ipvlan", {"prevResult": result}, "DEL", netns=path).ok()
    assert link("eth0", path) is None


def test_a_master_in_the_container(plugin: Plugin, netns: MakeNetns, outside: str) -> None:
    need_kind("ipvlan")
    path = netns()
    command("ip", "link", "set", "up0", "netns", path)
    command("ip", "link", "set", "up0", "up", network=path)
    conf = {"master": "up0", "linkInContainer": True, **ipam()}
    plugin("ipvlan", conf, netns=path).ok()
    assert connect(path, outside, "10.5.0.1") == "10.5.0.2"
    plugin("ipvlan", conf, netns=path).failed(TAKEN)
    plugin("ipvlan", conf, "STATUS").ok()
