"""bridge: VLANs, where the kernel's bridges have them (as the virtual machine's; see docs/contributing.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, TAKEN, UNSUPPORTED
from tests.support.networks import addresses, command, connect, link, unreachable
from tests.system.cni.conftest import MakeNetns, Plugin
from tests.system.cni.test_bridge_options import has_vlans

PVID = {"PVID", "Egress Untagged"}


@pytest.fixture(autouse=True)
def vlans(host: object) -> None:
    if not has_vlans():
        pytest.skip("this kernel's bridges have no VLANs (BRIDGE_VLAN_FILTERING)")


def conf(address: str, **options: Any) -> dict[str, Any]:
    return {"bridge": "br0", "ipam": {"type": "static", "addresses": [{"address": address}]}, **options}


def of_port(name: str) -> dict[int, set[str]]:
    """The VLANs of a port, with the flags that `bridge` shows."""
    found = json.loads(command("bridge", "-j", "vlan", "show", "dev", name))
    return {one["vlan"]: set(one.get("flags", [])) for port in found for one in port["vlans"]}


def outer(result: dict[str, Any]) -> str:
    name: str = result["interfaces"][1]["name"]
    return name


def test_ports_of_one_vlan_reach_each_other_and_no_others(plugin: Plugin, netns: MakeNetns) -> None:
    paths = [netns() for _ in range(4)]
    for number, (path, vlan) in enumerate(zip(paths, (100, 100, 200, 0), strict=True)):
        more = {"vlan": vlan} if vlan else {}
        result = plugin("bridge", conf(f"10.1.0.{number + 1}/24", **more), netns=path, container=f"c{number}").ok()
        assert of_port(outer(result)) == {vlan or 1: PVID}
    assert connect(paths[0], paths[1], "10.1.0.2") == "10.1.0.1"
    assert unreachable(paths[0], paths[2], "10.1.0.3")
    assert unreachable(paths[0], paths[3], "10.1.0.4")


def test_each_vlan_has_a_gateway_of_its_own(plugin: Plugin, netns: MakeNetns) -> None:
    paths = [netns(), netns(), netns()]
    wanted = [("10.1.0.5/24", 100), ("10.2.0.5/24", 200), ("10.1.0.6/24", 100)]
    results = []
    for number, (path, (address, vlan)) in enumerate(zip(paths, wanted, strict=True)):
        options = conf(address, vlan=vlan, isDefaultGateway=True)
        results.append(plugin("bridge", options, netns=path, container=f"c{number}").ok())
    assert [one["interfaces"][3]["name"] for one in results] == ["br0.100", "br0.200", "br0.100"]
    assert (addresses("br0"), addresses("br0.100"), addresses("br0.200")) == (set(), {"10.1.0.1/24"}, {"10.2.0.1/24"})
    assert connect(paths[0], "", "10.1.0.1") == "10.1.0.5"
    assert connect(paths[0], paths[1], "10.2.0.5") == "10.1.0.5", "the host routes between them"
    assert connect(paths[0], paths[2], "10.1.0.6") == "10.1.0.5"
    plugin("bridge", conf("10.1.0.5/24", vlan=100, isDefaultGateway=True), "DEL", netns=paths[0], container="c0").ok()
    assert link("br0.100") is not None, "another container has it as its gateway"


def test_a_gateway_that_was_left_half_made_is_finished(plugin: Plugin, netns: MakeNetns) -> None:
    options = conf("10.1.0.5/24", vlan=100, isGateway=True)
    plugin("bridge", options, netns=netns(), container="a").ok()
    gateway = link("br0.100")
    assert gateway is not None
    port = gateway["link"]
    command("ip", "link", "set", port, "nomaster")
    command("ip", "link", "set", port, "down")
    path = netns()
    plugin("bridge", conf("10.1.0.6/24", vlan=100, isGateway=True), netns=path, container="b").ok()
    assert of_port(port) == {100: PVID}
    assert connect(path, "", "10.1.0.1") == "10.1.0.6"


def test_a_foreign_link_with_the_gateways_name(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0.100", "type", "veth", "peer", "name", "other")
    path = netns()
    message = plugin("bridge", conf("10.1.0.5/24", vlan=100, isGateway=True), netns=path).failed(TAKEN)
    assert message.startswith("/vlan: br0.100 exists")
    assert link("eth0", path) is None


def test_a_trunk_carries_tagged_frames(plugin: Plugin, netns: MakeNetns) -> None:
    trunk, access = netns(), netns()
    options = conf("10.9.0.1/24", vlanTrunk=[{"minID": 100, "maxID": 102}, {"id": 200}])
    result = plugin("bridge", options, netns=trunk, container="a").ok()
    assert of_port(outer(result)) == {1: PVID, 100: set(), 101: set(), 102: set(), 200: set()}
    plugin("bridge", conf("10.1.0.2/24", vlan=101), netns=access, container="b").ok()
    command("ip", "link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", "101", network=trunk)
    command("ip", "addr", "add", "10.1.0.1/24", "dev", "tagged", network=trunk)
    command("ip", "link", "set", "tagged", "up", network=trunk)
    assert connect(trunk, access, "10.1.0.2") == "10.1.0.1"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"vlan": 100, "preserveDefaultVlan": True}, {1: {"Egress Untagged"}, 100: PVID}),
        ({"vlan": 1}, {1: PVID}),
        ({"vlan": 100, "vlanTrunk": [{"id": 101}]}, {100: PVID, 101: set()}),
        ({"vlanTrunk": [{"id": 101}], "preserveDefaultVlan": True}, {1: PVID, 101: set()}),
    ],
)
def test_vlans_of_a_port(plugin: Plugin, netns: MakeNetns, options: dict[str, Any], expected: dict[int, set[str]]) -> None:
    assert of_port(outer(plugin("bridge", conf("10.1.0.1/24", **options), netns=netns()).ok())) == expected


def test_a_bridge_that_does_not_tell_vlans_apart_is_refused(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0", "type", "bridge")
    path = netns()
    message = plugin("bridge", conf("10.1.0.1/24", vlan=100), netns=path).failed(UNSUPPORTED)
    assert message.startswith("/bridge: br0 exists and does not tell VLANs apart")
    assert link("eth0", path) is None
    command("ip", "link", "set", "br0", "type", "bridge", "vlan_filtering", "1")
    plugin("bridge", conf("10.1.0.1/24", vlan=100), netns=path).ok()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("bridge vlan del vid 100 dev PORT", "PORT: it does not take part in VLAN 100"),
        ("bridge vlan del vid 100 dev PORT; bridge vlan add vid 100 dev PORT", "PORT: it does not take part in VLAN 100"),
        ("bridge vlan del vid 101 dev PORT", "PORT: it does not take part in VLAN 101"),
        ("ip link set br0 type bridge vlan_filtering 0", "br0: it does not tell VLANs apart"),
        ("ip link delete br0.100", "br0.100: it does not exist"),
        ("ip addr flush dev br0.100", "br0.100: it does not have the gateway's address 10.1.0.1"),
    ],
)
def test_check(plugin: Plugin, netns: MakeNetns, how: str, says: str) -> None:
    path = netns()
    options = conf("10.1.0.5/24", vlan=100, vlanTrunk=[{"id": 101}], isGateway=True)
    result = plugin("bridge", options, netns=path).ok()
    options["prevResult"] = result
    plugin("bridge", options, "CHECK", netns=path).ok()
    command("sh", "-ec", how.replace("PORT", outer(result)))
    message = plugin("bridge", options, "CHECK", netns=path).failed(CHECK_FAILED)
    assert says.replace("PORT", outer(result)) in message
