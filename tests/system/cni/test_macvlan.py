"""The plugin macvlan: links with hardware addresses of their own on top of one of the host's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni import versions
from ocirt_cni.errors import (
    CHECK_FAILED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    NOT_AVAILABLE,
    TAKEN,
    UNSUPPORTED_FIELD,
)
from tests.support.links import make_uplink
from tests.support.networks import Host, addresses, command, connect, link, routes, unreachable
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

MAC = "02:00:00:00:00:07"


@pytest.fixture(autouse=True)
def outside(netns: MakeNetns) -> str:
    """The network namespace beyond the host's link `up0`, with 10.5.0.1; its path."""
    path = netns()
    make_uplink(path)
    command("ip", "addr", "add", "10.5.0.1/24", "dev", "out0", network=path)
    command("ip", "addr", "add", "fd05::1/64", "dev", "out0", "nodad", network=path)
    return path


def ipam(number: int = 2) -> dict[str, Any]:
    """10.5.0.NUMBER and fd05::NUMBER, with routes by way of the outside."""
    return {
        "ipam": {
            "type": "static",
            "addresses": [
                {"address": f"10.5.0.{number}/24", "gateway": "10.5.0.1"},
                {"address": f"fd05::{number}/64", "gateway": "fd05::1"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            "dns": {"nameservers": ["10.5.0.53"]},
        }
    }


def details(path: str) -> dict[str, Any]:
    """What is special of the container's link."""
    found = link("eth0", path)
    assert found is not None
    assert found["linkinfo"]["info_kind"] == "macvlan"
    data: dict[str, Any] = found["linkinfo"]["info_data"]
    return data


def test_addresses_and_traffic(plugin: Plugin, netns: MakeNetns, outside: str) -> None:
    path = netns()
    result = plugin("macvlan", {"master": "up0", **ipam()}, netns=path).ok()
    found = link("eth0", path)
    assert found is not None
    assert result["interfaces"] == [{"name": "eth0", "mac": found["address"], "sandbox": path, "mtu": 1500}]
    assert [(one["address"], one["gateway"], one["interface"]) for one in result["ips"]] == [
        ("10.5.0.2/24", "10.5.0.1", 0),
        ("fd05::2/64", "fd05::1", 0),
    ]
    assert result["dns"] == {"nameservers": ["10.5.0.53"]}
    assert found["ifalias"] == "ocirt net c1 eth0"
    assert details(path)["mode"] == "bridge"
    assert addresses("eth0", path) == {"10.5.0.2/24", "fd05::2/64"}
    assert {"default via 10.5.0.1 dev eth0", "default via fd05::1 dev eth0"} <= routes(path)
    for address, own in (("10.5.0.1", "10.5.0.2"), ("fd05::1", "fd05::2")):
        assert connect(path, outside, address) == own


@pytest.mark.parametrize(("mode", "reached"), [("bridge", True), ("private", False), ("vepa", False), ("passthru", None)])
def test_modes(plugin: Plugin, netns: MakeNetns, outside: str, mode: str, reached: bool | None) -> None:
    path, other = netns(), netns()
    conf = {"master": "up0", "mode": mode}
    result = plugin("macvlan", {**conf, **ipam()}, netns=path).ok()
    assert details(path)["mode"] == mode
    assert connect(path, outside, "10.5.0.1") == "10.5.0.2"
    plugin("macvlan", {**conf, "prevResult": result, **ipam()}, "CHECK", netns=path).ok()
    second = plugin("macvlan", {**conf, **ipam(3)}, netns=other, container="c2")
    if reached is None:  # the only one on its link
        second.failed(100)
        assert link("eth0", other) is None
    else:
        second.ok()
        assert unreachable(path, other, "10.5.0.3") is not reached


def test_the_master_of_the_default_route(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "addr", "add", "10.5.0.9/24", "dev", "up0")
    command("ip", "link", "add", "up1", "type", "veth", "peer", "name", "out1")
    command("ip", "link", "set", "up1", "up")
    path = netns()
    assert plugin("macvlan", {}, netns=path).failed(INVALID_CONFIG).startswith("/master: it is missing")
    command("ip", "route", "add", "default", "dev", "up1", "metric", "100")
    command("ip", "route", "add", "default", "via", "10.5.0.1", "dev", "up0", "metric", "10")
    plugin("macvlan", {}, netns=path).ok()
    upper, lower = link("eth0", path), link("up0")
    assert upper is not None
    assert lower is not None
    assert upper["link_index"] == lower["ifindex"]


def test_the_master_of_the_default_route_of_ipv6(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "-6", "route", "add", "default", "dev", "up0")
    plugin("macvlan", {}, netns=netns()).ok()


def test_a_master_in_the_container(plugin: Plugin, netns: MakeNetns, outside: str) -> None:
    path = netns()
    command("ip", "link", "set", "up0", "netns", path)
    command("ip", "link", "set", "up0", "up", network=path)
    conf = {"master": "up0", "linkInContainer": True, **ipam()}
    result = plugin("macvlan", conf, netns=path).ok()
    assert connect(path, outside, "10.5.0.1") == "10.5.0.2"
    plugin("macvlan", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    plugin("macvlan", conf, "STATUS").ok()
    plugin("macvlan", conf, "DEL", netns=path).ok()
    assert link("eth0", path) is None
    command("ip", "route", "add", "default", "dev", "up0", network=path)
    plugin("macvlan", {"linkInContainer": True, **ipam()}, netns=path).ok()


def test_mtu_and_queue(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"master": "up0", "mtu": 1400, "bcqueuelen": 200}
    assert plugin("macvlan", conf, netns=path).ok()["interfaces"][0]["mtu"] == 1400
    found = link("eth0", path)
    assert found is not None
    assert found["mtu"] == 1400
    assert details(path)["bcqueuelen"] == 200


def test_layer_2_alone(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("macvlan", {"master": "up0", "dns": {"domain": "x"}}, netns=path).ok()
    assert set(result) == {"cniVersion", "interfaces", "dns"}
    assert result["dns"] == {"domain": "x"}
    found = link("eth0", path)
    assert found is not None
    assert "UP" in found["flags"]
    plugin("macvlan", {"master": "up0", "prevResult": result}, "CHECK", netns=path).ok()


@pytest.mark.parametrize(
    ("conf", "args"),
    [
        ({"mac": MAC}, ""),
        ({"mac": "02:00:00:00:00:01"}, f"IgnoreUnknown=1;MAC={MAC}"),
        ({"args": {"cni": {"mac": MAC}}}, "MAC=02:00:00:00:00:01"),
        ({"runtimeConfig": {"mac": MAC}, "args": {"cni": {"mac": "02:00:00:00:00:01"}}}, "MAC=02:00:00:00:00:02"),
    ],
)
def test_hardware_address(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], args: str) -> None:
    path = netns()
    result = plugin("macvlan", {"master": "up0", **conf}, netns=path, env={"CNI_ARGS": args}).ok()
    found = link("eth0", path)
    assert found is not None
    assert result["interfaces"][0]["mac"] == found["address"] == MAC


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_all_versions(plugin: Plugin, netns: MakeNetns, version: str) -> None:
    path = netns()
    conf = {"cniVersion": version, "master": "up0", **ipam()}
    result = plugin("macvlan", conf, netns=path).ok()
    assert result["cniVersion"] == version
    if versions.at_least(version, "0.3.0"):
        assert [one["address"] for one in result["ips"]] == ["10.5.0.2/24", "fd05::2/64"]
    else:
        assert (result["ip4"]["ip"], result["ip6"]["ip"]) == ("10.5.0.2/24", "fd05::2/64")
    if versions.at_least(version, versions.CHECK):
        plugin("macvlan", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    plugin("macvlan", {**conf, "prevResult": result}, "DEL", netns=path).ok()
    assert link("eth0", path) is None


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"master": "up0", "mode": "bridged"}, INVALID_CONFIG, "/mode: 'bridged' is none of private, vepa, bridge, passthru"),
        ({"master": "nothing"}, INVALID_CONFIG, "/master: there is no link nothing"),
        ({"master": 5}, INVALID_CONFIG, "/master: this is not a string"),
        ({"master": "up0", "mtu": 9000}, INVALID_CONFIG, "/mtu: 9000 is more than that of up0, 1500"),
        ({"master": "up0", "mtu": 67}, INVALID_CONFIG, "/mtu: 67 is not between 68 and 65535"),
        ({"master": "up0", "mtu": "1400"}, INVALID_CONFIG, "/mtu: this is not a number"),
        ({"master": "up0", "bcqueuelen": -1}, INVALID_CONFIG, "/bcqueuelen: -1 is not between 0 and 4294967295"),
        ({"master": "up0", "linkInContainer": "yes"}, INVALID_CONFIG, "/linkInContainer: this is not true or false"),
        ({"master": "up0", "mac": "01:00:00:00:00:01"}, INVALID_CONFIG, "/mac: '01:00:00:00:00:01' is not the hardware address"),
        ({"master": "up0", "mac": "02:00"}, INVALID_CONFIG, "/mac: '02:00' is not a hardware address"),
        ({"master": "up0", "runtimeConfig": {"mac": 1}}, INVALID_CONFIG, "/runtimeConfig/mac: this is not a string"),
        ({"maste": "up0"}, UNSUPPORTED_FIELD, "/maste: macvlan has no such field"),
        ({"master": "lo"}, 100, "RTM_NEWLINK"),
    ],
)
def test_wrong_configurations(
    plugin: Plugin, netns: MakeNetns, host: Host, conf: dict[str, Any], code: int, message: str
) -> None:
    path, before = netns(), host.traces()
    assert plugin("macvlan", {**conf, **ipam()}, netns=path).failed(code).startswith(message)
    assert [one for one in ("eth0",) if link(one, path)] == []
    assert host.traces() == before


def test_wrong_environment(plugin: Plugin, netns: MakeNetns) -> None:
    path, conf = netns(), {"master": "up0"}
    args = {"CNI_ARGS": "MAC=nonsense"}
    assert plugin("macvlan", conf, netns=path, env=args).failed(INVALID_ENVIRONMENT).startswith("CNI_ARGS: 'nonsense'")
    assert "/run/netns/gone" in plugin("macvlan", conf, netns="/run/netns/gone").failed(INVALID_NETNS)


def test_a_name_that_is_taken(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path = netns()
    command("ip", "tuntap", "add", "eth0", "mode", "tap", network=path)
    before = host.traces()
    conf = {"master": "up0", **ipam()}
    assert plugin("macvlan", conf, netns=path).failed(TAKEN) == f"CNI_IFNAME: {path} has an interface eth0 already"
    assert host.traces() == before
    plugin("macvlan", conf, "DEL", netns=path).ok()
    assert link("eth0", path) is not None, "somebody else's"


def test_the_host_has_a_link_of_the_name(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0p")
    path = netns()
    plugin("macvlan", {"master": "up0", **ipam()}, netns=path).ok()
    assert details(path)
    plugin("macvlan", {"master": "up0", **ipam()}, "DEL", netns=path).ok()
    assert link("eth0") is not None


def test_a_failed_add_leaves_nothing(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path, before = netns(), host.traces()
    conf = {
        "master": "up0",
        "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "routes": [{"dst": "fd09::/64", "gw": "10.5.0.1"}]},
    }
    plugin("macvlan", conf, netns=path).failed(100)  # the address is given before the route is refused
    assert link("eth0", path) is None
    taken = [path for path in set(host.traces()) - set(before) if path.rsplit("/", 1)[-1].startswith("10.5.")]
    assert taken == []


def test_del(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path, before = netns(), host.traces()
    conf = {"master": "up0", "ipam": {"type": "host-local", "subnet": "10.5.0.0/24"}}
    result = plugin("macvlan", conf, netns=path).ok()
    for _ in range(2):
        plugin("macvlan", {**conf, "prevResult": result}, "DEL", netns=path).ok()
        assert link("eth0", path) is None
    left = {one for one in set(host.traces()) - set(before) if one.startswith("link")}
    assert left == set()


@pytest.mark.parametrize("where", ["", "/run/netns/gone", "file"])
def test_del_without_namespace_gives_the_address_back(plugin: Plugin, netns: MakeNetns, tmp_path: Any, where: str) -> None:
    (tmp_path / "file").touch()
    conf = {"master": "up0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/30"}]]}}
    plugin("macvlan", conf, netns=netns()).ok()
    plugin("macvlan", conf, netns=netns(), container="c2").failed(101)
    plugin("macvlan", conf, "DEL", netns=str(tmp_path / "file") if where == "file" else where).ok()
    plugin("macvlan", conf, netns=netns(), container="c2").ok()


def test_del_of_what_was_not_finished(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("macvlan", {"master": "up0"}, netns=path).ok()
    found = link("eth0", path)
    assert found is not None
    # As an ADD that was killed leaves it: under its first name, without an owner.
    from ocirt_cni.call import Call  # noqa: PLC0415
    from ocirt_cni.plugins import devices  # noqa: PLC0415

    conf = {"name": "net", "type": "macvlan", "cniVersion": "1.1.0"}
    name = devices.temporary_name(Call("DEL", conf, container="c1", ifname="eth0"))
    command("ip", "link", "set", "eth0", "down", network=path)
    command("ip", "link", "set", "eth0", "name", name, "alias", "", network=path)
    plugin("macvlan", {"master": "up0"}, "DEL", netns=path).ok()
    assert link(name, path) is None


def test_del_of_a_caller_that_drops_the_namespace(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    invoke("macvlan", {"master": "up0", **ipam()}, netns=path)
    invoke("macvlan", {"master": "up0", **ipam()}, "DEL", netns=path, lazy=True)
    assert link("eth0", path) is not None


def test_gc_frees_addresses(plugin: Plugin, netns: MakeNetns) -> None:
    conf = {"master": "up0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/30"}]]}}
    plugin("macvlan", conf, netns=netns()).ok()
    plugin("macvlan", {**conf, "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}, "GC").ok()
    assert plugin("macvlan", conf, "STATUS").rc == 1
    plugin("macvlan", {**conf, "cni.dev/valid-attachments": []}, "GC").ok()
    plugin("macvlan", conf, "STATUS").ok()
    plugin("macvlan", conf, netns=netns(), container="c2").ok()


def test_check_says_what_is_wrong(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"master": "up0", **ipam()}
    assert plugin("macvlan", conf, "CHECK", netns=path).failed(INVALID_CONFIG).startswith("/prevResult: ")
    conf["prevResult"] = plugin("macvlan", conf, netns=path).ok()

    def check(**changed: Any) -> str:
        return plugin("macvlan", {**conf, **changed}, "CHECK", netns=path).failed(CHECK_FAILED)

    plugin("macvlan", conf, "CHECK", netns=path).ok()
    assert check(mode="private") == "eth0: its mode is bridge, not private"
    command("ip", "route", "del", "default", network=path)
    assert check() == "eth0: there is no route to 0.0.0.0/0 via 10.5.0.1 as it was made"
    command("ip", "addr", "del", "10.5.0.2/24", "dev", "eth0", network=path)
    assert check() == "eth0: it does not have the address 10.5.0.2/24"
    command("ip", "link", "set", "eth0", "address", MAC, network=path)
    assert check().startswith(f"eth0: its hardware address is {MAC}")
    command("ip", "link", "set", "eth0", "down", network=path)
    assert check() == "eth0: it is not up"
    command("ip", "link", "del", "eth0", network=path)
    assert check() == "eth0: it does not exist"
    command("ip", "tuntap", "add", "eth0", "mode", "tap", network=path)
    assert check().startswith("eth0: it is not a macvlan")


def test_status(plugin: Plugin) -> None:
    plugin("macvlan", {"master": "up0", **ipam()}, "STATUS").ok()
    assert plugin("macvlan", {"master": "gone"}, "STATUS").failed(NOT_AVAILABLE) == "/master: there is no link gone"
    plugin("macvlan", {"master": "up0", "mtu": 9000}, "STATUS").failed(NOT_AVAILABLE)


def test_after_another_plugin(plugin: Plugin, netns: MakeNetns) -> None:
    previous = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "x"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}],
        "dns": {},
    }
    result = plugin("macvlan", {"master": "up0", "prevResult": previous, **ipam()}, netns=netns()).ok()
    assert [one["name"] for one in result["interfaces"]] == ["x", "eth0"]
    assert [one["interface"] for one in result["ips"]] == [0, 1, 1]
