"""ptp: what an ADD makes and a DEL removes, with traffic."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, EXHAUSTED, INVALID_CONFIG, TAKEN
from tests.support.networks import Host, addresses, command, connect, ip, link, routes, sysctl
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
CONF: dict[str, Any] = {"ipam": IPAM}


def outer(result: dict[str, Any]) -> str:
    name: str = result["interfaces"][0]["name"]
    return name


def test_the_result_names_both_ends(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("ptp", CONF, netns=path).ok()
    ours, theirs = result["interfaces"]
    assert (theirs["name"], theirs["sandbox"]) == ("eth0", path)
    assert "sandbox" not in ours
    for one, network in ((ours, ""), (theirs, path)):
        found = link(one["name"], network)
        assert found is not None
        assert (found["address"], found["mtu"], found["operstate"]) == (one["mac"], one["mtu"], "UP")
    assert result["ips"] == [
        {"interface": 1, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 1, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ]


def test_only_the_gateway_is_on_the_link(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("ptp", CONF, netns=path).ok()
    assert addresses("eth0", path) == {"10.1.0.2/24", "fd00:1::2/64"}
    assert routes(path) == {
        "10.1.0.1 dev eth0",
        "10.1.0.0/24 via 10.1.0.1 dev eth0",
        "default via 10.1.0.1 dev eth0",
        "fd00:1::1 dev eth0",
        "fd00:1::/64 via fd00:1::1 dev eth0",
        "default via fd00:1::1 dev eth0",
    }
    name = outer(result)
    assert addresses(name) == {"10.1.0.1/32", "fd00:1::1/128"}
    assert {f"10.1.0.2 dev {name}", f"fd00:1::2 dev {name}"} <= routes()
    assert (sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")) == ("1", "1")
    assert sysctl(f"ipv6/conf/{name}/accept_ra") == "0"


def test_containers_reach_each_other_by_the_host(plugin: Plugin, netns: MakeNetns) -> None:
    one, other = netns(), netns()
    plugin("ptp", CONF, netns=one, container="a").ok()
    plugin("ptp", CONF, netns=other, container="b").ok()
    assert connect(one, other, "10.1.0.3") == "10.1.0.2"
    assert connect(one, other, "fd00:1::3") == "fd00:1::2"
    assert connect(one, "", "10.1.0.1") == "10.1.0.2"
    assert connect("", one, "10.1.0.2") == "10.1.0.1"
    assert connect("", other, "fd00:1::3") == "fd00:1::1"


def test_no_address_waits_for_duplicate_address_detection(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    name = outer(plugin("ptp", CONF, netns=path).ok())
    for one, network in (("eth0", path), (name, "")):
        found = ip("-6", "addr", "show", "dev", one, network=network)[0]["addr_info"]
        assert [address["local"] for address in found if address.get("tentative") and address["scope"] == "global"] == []


def test_mtu(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("ptp", {**CONF, "mtu": 1400}, netns=path).ok()
    assert [one["mtu"] for one in result["interfaces"]] == [1400, 1400]
    found = link("eth0", path)
    assert found is not None
    assert found["mtu"] == 1400


def test_dns_of_the_configuration_replaces_that_of_the_ipam_plugin(plugin: Plugin, netns: MakeNetns) -> None:
    ipam = {"type": "static", "addresses": [{"address": "10.1.0.9/24"}], "dns": {"nameservers": ["10.1.0.1"]}}
    result = plugin("ptp", {"ipam": ipam}, netns=netns(), container="a").ok()
    assert result["dns"] == {"nameservers": ["10.1.0.1"]}
    assert result["ips"][0]["gateway"] == "10.1.0.1", "nobody chose one"
    own = {"nameservers": ["9.9.9.9"], "domain": "example"}
    assert plugin("ptp", {"ipam": ipam, "dns": own}, netns=netns(), container="b").ok()["dns"] == own


def test_an_address_alone_in_its_network(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    addresses_ = [{"address": "10.1.0.9/32", "gateway": "169.254.1.1"}]
    ipam = {"type": "static", "addresses": addresses_, "routes": [{"dst": "0.0.0.0/0"}]}
    plugin("ptp", {"ipam": ipam}, netns=path).ok()
    assert routes(path) == {"169.254.1.1 dev eth0", "default via 169.254.1.1 dev eth0"}
    assert connect(path, "", "169.254.1.1") == "10.1.0.9"


@pytest.mark.parametrize("given", ["there", "empty", "gone"])
def test_del_needs_neither_namespace_nor_result(plugin: Plugin, netns: MakeNetns, host: Host, given: str) -> None:
    plugin("ptp", CONF, netns=netns(), container="first").ok()
    before = {key for key in host.traces() if not key.startswith("file")}
    path = netns()
    name = outer(plugin("ptp", CONF, netns=path).ok())
    if given == "gone":
        command("umount", path)
        command("rm", path)
    for _ in range(2):
        plugin("ptp", CONF, "DEL", netns="" if given == "empty" else path).ok()
        assert link(name) is None
    assert {key for key in host.traces() if not key.startswith("file")} == before


def test_a_second_add_is_refused_and_disturbs_nothing(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path = netns()
    plugin("ptp", CONF, netns=path).ok()
    before = host.traces()
    plugin("ptp", CONF, netns=path).failed(TAKEN)
    assert host.traces() == before


def test_an_exhausted_pool_leaves_nothing(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    conf = {"ipam": {"type": "host-local", "subnet": "10.1.0.0/30"}}
    plugin("ptp", conf, "STATUS").ok()
    plugin("ptp", conf, netns=netns(), container="a").ok()
    before = {key for key in host.traces() if not key.startswith("file")}
    path = netns()
    plugin("ptp", conf, netns=path, container="b").failed(EXHAUSTED)
    plugin("ptp", conf, "STATUS").failed(50)
    assert link("eth0", path) is None
    assert {key for key in host.traces() if not key.startswith("file")} == before


def test_an_old_route_to_the_address_gives_way(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "old", "type", "bridge")
    command("ip", "link", "set", "old", "up")
    command("ip", "route", "add", "10.1.0.2/32", "dev", "old")
    path = netns()
    name = outer(plugin("ptp", CONF, netns=path).ok())
    assert f"10.1.0.2 dev {name}" in routes()
    assert connect("", path, "10.1.0.2") == "10.1.0.1"


def test_gc_removes_what_is_not_valid(plugin: Plugin, netns: MakeNetns) -> None:
    made = {name: outer(plugin("ptp", CONF, netns=netns(), container=name).ok()) for name in ("a", "b", "c", "d")}
    valid = [{"containerID": "b", "ifname": "eth0"}]
    plugin("ptp", {**CONF, "cni.dev/valid-attachments": valid}, "GC").ok()
    assert [name for name in made if link(made[name])] == ["b"]
    again = plugin("ptp", CONF, netns=netns(), container="e").ok()
    assert again["ips"][0]["address"] != "10.1.0.3/24", "b has it"


PORT = "PORT"
BROKEN: list[tuple[str, str, str]] = [
    ("", "ip link set PORT down", "PORT: it is not up"),
    ("", "ip link set PORT down; ip link set PORT name another", "PORT: it does not exist"),
    ("", "ip addr del 10.1.0.1/32 dev PORT", "PORT: it does not have the gateway's address 10.1.0.1"),
    ("", "ip route del 10.1.0.2 dev PORT", "PORT: the host has no route to 10.1.0.2 over it"),
    ("", "ip -6 route del fd00:1::2 dev PORT", "PORT: the host has no route to fd00:1::2 over it"),
    ("", "echo 0 > /proc/sys/net/ipv4/ip_forward", "net/ipv4/ip_forward: the host does not forward packets"),
    ("in", "ip link set eth0 down", "eth0: it is not up"),
    ("in", "ip addr del fd00:1::2/64 dev eth0", "eth0: it does not have the address fd00:1::2/64"),
    ("in", "ip route del default", "eth0: there is no route to 0.0.0.0/0 via 10.1.0.1"),
]


@pytest.mark.parametrize(("where", "how", "says"), BROKEN, ids=[f"{one[0]}{one[1]}" for one in BROKEN])
def test_check_names_what_is_broken(plugin: Plugin, netns: MakeNetns, where: str, how: str, says: str) -> None:
    path = netns()
    result = plugin("ptp", CONF, netns=path).ok()
    conf = {**CONF, "prevResult": result}
    plugin("ptp", conf, "CHECK", netns=path).ok()
    command("sh", "-ec", how.replace(PORT, outer(result)), network=path if where else "")
    message = plugin("ptp", conf, "CHECK", netns=path).failed(CHECK_FAILED)
    assert says.replace(PORT, outer(result)) in message


@pytest.mark.parametrize(
    ("conf", "pointer"),
    [
        ({}, "/ipam/type"),
        ({**CONF, "MTU": 1400}, "/MTU"),
        ({**CONF, "mtu": "big"}, "/mtu"),
        ({**CONF, "ipMasqBackend": "x"}, "/ipMasqBackend"),
    ],
)
def test_a_bad_configuration_is_named(plugin: Plugin, netns: MakeNetns, host: Host, conf: dict[str, Any], pointer: str) -> None:
    path = netns()
    before = host.traces()
    done = plugin("ptp", conf, netns=path)
    assert done.failed(2 if pointer == "/MTU" else INVALID_CONFIG).startswith(f"{pointer}: ")
    assert host.traces() == before


def test_in_process(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    result = invoke("ptp", CONF, netns=path)
    assert result is not None
    assert connect(path, "", "10.1.0.1") == "10.1.0.2"
    invoke("ptp", CONF, "DEL", netns=path)
    assert link("eth0", path) is None
