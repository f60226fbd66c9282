"""bridge: each option by what it does."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import EXHAUSTED, INVALID_CONFIG, TAKEN, UNSUPPORTED
from tests.support.networks import Host, addresses, command, connect, inside, ip, link, routes, sysctl, unreachable
from tests.system.cni.conftest import MakeNetns, Plugin

IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]]}
CONF: dict[str, Any] = {"bridge": "br0", "ipam": IPAM}
ETH_P_EXPERIMENT = 0x88B5  # IEEE 802: for local experiments


def static(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"type": "static", "addresses": [{"address": one} for one in addresses], **more}


def seen(name: str, network: str = "") -> dict[str, Any]:
    found = link(name, network)
    assert found is not None
    return found


def slave(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = seen(result["interfaces"][1]["name"])["linkinfo"]["info_slave_data"]
    return found


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold within some seconds: what the kernel does on its own, a moment later."""
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_without_a_gateway_the_bridge_has_no_address(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    assert addresses("br0") == set()
    assert "routes" not in result
    assert not any(one.startswith("default") for one in routes(path))
    assert sysctl("ipv4/ip_forward") == "0"


def test_is_gateway_brings_no_default_route(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("bridge", {**CONF, "isGateway": True}, netns=path).ok()
    assert addresses("br0") == {"10.1.0.1/24", "fd00:1::1/64"}
    assert not any(one.startswith("default") for one in routes(path))
    assert connect(path, "", "10.1.0.1") == "10.1.0.2"


def test_the_ipam_plugins_default_route_is_not_doubled(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    ipam = static("10.1.0.9/24", routes=[{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}])
    result = plugin("bridge", {"bridge": "br0", "isDefaultGateway": True, "ipam": ipam}, netns=path).ok()
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}]
    assert "default via 10.1.0.254 dev eth0" in routes(path)


def test_a_gateway_that_nobody_chose_is_the_first_address(plugin: Plugin, netns: MakeNetns) -> None:
    result = plugin("bridge", {"bridge": "br0", "isGateway": True, "ipam": static("10.1.0.9/24")}, netns=netns()).ok()
    assert result["ips"][0]["gateway"] == "10.1.0.1"
    assert addresses("br0") == {"10.1.0.1/24"}


def test_two_subnets_of_one_version_have_two_gateways(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}
    plugin("bridge", {"bridge": "br0", "isDefaultGateway": True, "ipam": ipam}, netns=path).ok()
    assert addresses("br0") == {"10.1.0.1/24", "10.2.0.1/24"}
    assert connect(path, "", "10.2.0.1") == "10.2.0.2"


@pytest.mark.parametrize(
    ("old", "kept"),
    [("10.9.0.1/24", False), ("10.1.0.7/24", False), ("fd00:1::7/64", False), ("fd00:9::1/64", True)],
)
def test_force_address(plugin: Plugin, netns: MakeNetns, old: str, kept: bool) -> None:
    command("ip", "link", "add", "br0", "type", "bridge")
    command("ip", "addr", "add", old, "dev", "br0")
    path = netns()
    conf = {**CONF, "isGateway": True}
    if not kept:
        message = plugin("bridge", conf, netns=path).failed(TAKEN)
        assert "already has an IP address different from" in message
        assert "/isGateway" in message
        assert old in message
        assert addresses("br0") == {old}
        assert link("eth0", path) is None
    plugin("bridge", {**conf, "forceAddress": True}, netns=path).ok()
    assert addresses("br0") == {"10.1.0.1/24", "fd00:1::1/64", *([old] if kept else [])}


def test_a_bridge_that_others_made_is_used_as_it_is(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0", "type", "bridge")
    one, other = netns(), netns()
    first = plugin("bridge", {**CONF, "isGateway": True}, netns=one, container="a").ok()
    plugin("bridge", {**CONF, "isGateway": True}, netns=other, container="b").ok()
    # Without an address of its own it would take over the lowest one of its ports.
    assert seen("br0")["address"] == first["interfaces"][0]["mac"]
    assert connect(one, other, "10.1.0.3") == "10.1.0.2"


def test_the_hardware_address_of_a_foreign_bridge_is_the_one_it_has_afterwards(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0", "type", "bridge")
    result = plugin("bridge", CONF, netns=netns()).ok()
    assert result["interfaces"][0]["mac"] == seen("br0")["address"]


def test_mtu(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", {**CONF, "mtu": 1400}, netns=path).ok()
    assert {seen("br0")["mtu"], seen("eth0", path)["mtu"], seen(result["interfaces"][1]["name"])["mtu"]} == {1400}
    assert [one["mtu"] for one in result["interfaces"]] == [1400] * 3
    small = netns()
    assert plugin("bridge", {**CONF, "mtu": 1000}, netns=small, container="c2").failed(INVALID_CONFIG).startswith("/mtu: ")
    assert link("eth0", small) is None


def test_without_mtu_it_is_the_bridges(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0", "mtu", "1400", "type", "bridge")
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    assert [one["mtu"] for one in result["interfaces"]] == [1400] * 3
    assert {seen("br0")["mtu"], seen("eth0", path)["mtu"]} == {1400}


def test_a_bridge_without_room_for_one_more_port(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "add", "br0", "type", "bridge")
    lines = [f"link add p{number} master br0 type veth peer name q{number}" for number in range(1023)]
    Path("/run/batch").write_text("\n".join(lines))
    command("ip", "-batch", "/run/batch")
    path = netns()
    assert plugin("bridge", CONF, netns=path).failed(EXHAUSTED) == "/bridge: br0 has no room for one more port"
    assert link("eth0", path) is None
    assert not Path("/var/lib/cni/networks/net/10.1.0.2").exists()


@pytest.mark.parametrize("on", [True, False])
def test_hairpin_mode_sends_a_frame_back_where_it_came_from(plugin: Plugin, netns: MakeNetns, on: bool) -> None:
    path = netns()
    result = plugin("bridge", {**CONF, "hairpinMode": on}, netns=path).ok()
    assert slave(result)["hairpin"] is on
    with inside(path), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_EXPERIMENT)) as raw:
        raw.bind(("eth0", ETH_P_EXPERIMENT))
        mac = bytes.fromhex(seen("eth0", path)["address"].replace(":", ""))
        raw.send(b"\xff" * 6 + mac + ETH_P_EXPERIMENT.to_bytes(2, "big") + b"come back".ljust(46))
        raw.settimeout(10 if on else 0.5)
        if on:
            assert b"come back" in raw.recv(100)
        else:
            with pytest.raises(TimeoutError):
                raw.recv(100)


@pytest.mark.parametrize("on", [True, False])
def test_promiscuous_mode(plugin: Plugin, netns: MakeNetns, on: bool) -> None:
    plugin("bridge", {**CONF, "promiscMode": on}, netns=netns()).ok()
    assert ("PROMISC" in seen("br0")["flags"]) is on


def test_isolated_ports_reach_the_gateway_alone(plugin: Plugin, netns: MakeNetns) -> None:
    paths = [netns() for _ in range(3)]
    conf = {**CONF, "isGateway": True}
    for number, path in enumerate(paths):
        result = plugin("bridge", {**conf, "portIsolation": number < 2}, netns=path, container=f"c{number}").ok()
        assert slave(result)["isolated"] is (number < 2)
    assert connect(paths[0], "", "10.1.0.1") == "10.1.0.2"
    assert connect(paths[0], paths[2], "10.1.0.4") == "10.1.0.2", "the third is not isolated"
    # The bridge would route between them: a container has no need of the gateway in its own network.
    assert unreachable(paths[0], paths[1], "10.1.0.3")
    assert unreachable(paths[1], paths[0], "fd00:1::2")


def test_the_hardware_address_is_the_last_one_that_is_given(plugin: Plugin, netns: MakeNetns) -> None:
    by_args = {"CNI_ARGS": "IgnoreUnknown=1;MAC=02:00:00:00:00:01;K8S_POD_NAME=web"}
    conf = dict(CONF)
    for number, mac in enumerate(("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03")):
        if number == 1:
            conf["args"] = {"cni": {"mac": mac}}
        if number == 2:
            conf["runtimeConfig"] = {"mac": "02-00-00-00-00-03"}
        path = netns()
        result = plugin("bridge", conf, netns=path, container=f"c{number}", env=by_args).ok()
        assert seen("eth0", path)["address"] == mac
        assert result["interfaces"][2]["mac"] == mac


def test_dns_of_the_configuration_replaces_that_of_the_ipam_plugin(plugin: Plugin, netns: MakeNetns) -> None:
    ipam = static("10.1.0.9/24", dns={"nameservers": ["10.1.0.1"], "search": ["a.example"]})
    assert plugin("bridge", {"ipam": ipam}, netns=netns(), container="a").ok()["dns"]["search"] == ["a.example"]
    own = {"nameservers": ["9.9.9.9"]}
    assert plugin("bridge", {"ipam": ipam, "dns": own}, netns=netns(), container="b").ok()["dns"] == own


def test_duplicates_are_detected_where_that_is_wanted(plugin: Plugin, netns: MakeNetns) -> None:
    conf = {"bridge": "br0", "enabledad": True, "ipam": static("fd00:1::9/64")}
    path = netns()
    plugin("bridge", conf, netns=path, container="a").ok()
    assert sysctl("ipv6/conf/eth0/accept_dad", path) == "1"
    assert not any(one.get("tentative") for one in ip("-6", "addr", "show", "dev", "eth0", network=path)[0]["addr_info"])
    second = netns()
    assert "somebody else has the address fd00:1::9" in plugin("bridge", conf, netns=second, container="b").failed(TAKEN)
    assert link("eth0", second) is None


def test_an_address_survives_its_link_being_down(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("bridge", CONF, netns=path).ok()
    command("ip", "link", "set", "eth0", "down", network=path)
    assert "fd00:1::2/64" in addresses("eth0", path)


def test_ipv6_is_switched_on_in_a_container_that_gets_an_ipv6_address(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", network=path)
    command("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6", network=path)
    plugin("bridge", CONF, netns=path).ok()
    assert "fd00:1::2/64" in addresses("eth0", path)


def test_a_container_interface_that_stays_down(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"bridge": "br0", "disableContainerInterface": True}
    result = plugin("bridge", conf, netns=path).ok()
    assert "UP" not in seen("eth0", path)["flags"]
    assert addresses("eth0", path) == set()
    assert seen(result["interfaces"][1]["name"])["master"] == "br0"
    plugin("bridge", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    message = plugin("bridge", {**CONF, "disableContainerInterface": True}, netns=path).failed(INVALID_CONFIG)
    assert message.startswith("/ipam: ")


def test_without_ipam_the_interface_is_up_and_has_no_address(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", {"bridge": "br0"}, netns=path).ok()
    assert "ips" not in result
    assert "UP" in seen("eth0", path)["flags"]
    assert addresses("eth0", path) == set()
    plugin("bridge", {"bridge": "br0"}, "DEL", netns=path).ok()
    assert link("eth0", path) is None


def test_bridged_packets_pass_the_firewall_of_the_node_where_it_is_a_gateway(plugin: Plugin, netns: MakeNetns) -> None:
    plugin("bridge", CONF, netns=netns(), container="a").ok()
    assert seen("br0")["linkinfo"]["info_data"]["nf_call_iptables"] == 0
    plugin("bridge", {**CONF, "isGateway": True}, netns=netns(), container="b").ok()
    data = seen("br0")["linkinfo"]["info_data"]
    assert (data["nf_call_iptables"], data["nf_call_ip6tables"]) == (1, 1)


@pytest.mark.parametrize(("address", "peer"), [("10.1.0.9/24", "10.1.0.8/24"), ("fd00:1::9/64", "fd00:1::8/64")])
def test_neighbours_hear_who_has_an_address_now(plugin: Plugin, netns: MakeNetns, address: str, peer: str) -> None:
    neighbour = netns()
    plugin("bridge", {"bridge": "br0", "ipam": static(peer)}, netns=neighbour, container="n").ok()

    def known(mac: str) -> bool:
        found = ip("neigh", "show", address.partition("/")[0], network=neighbour)
        return bool(found) and found[0].get("lladdr") == mac

    for container in ("old", "new"):
        path = netns()
        result = plugin("bridge", {"bridge": "br0", "ipam": static(address)}, netns=path, container=container).ok()
        mac = result["interfaces"][2]["mac"]
        if container == "old":
            connect(neighbour, path, address.partition("/")[0])
        assert eventually(partial(known, mac)), f"{container}: not {mac}"
        plugin("bridge", {"bridge": "br0", "ipam": static(address)}, "DEL", netns=path, container=container).ok()


def advertise(path: str, device: str) -> None:
    """Send a router's advertisement from a namespace: this is the default router for half an hour (RFC 4861, section 4.2)."""
    with inside(path), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
        router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        message = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        router.sendto(message, ("ff02::1", 0, 0, socket.if_nametoindex(device)))


def test_a_node_that_becomes_a_router_keeps_the_router_that_it_has(plugin: Plugin, netns: MakeNetns) -> None:
    router = netns()
    command("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", router)
    for device, network in (("uplink", ""), ("eth0", router)):
        with inside(network or "/proc/self/ns/net"):
            Path(f"/proc/sys/net/ipv6/conf/{device}/accept_dad").write_text("0")
        command("ip", "link", "set", device, "up", network=network)
    assert eventually(lambda: bool(ip("-6", "addr", "show", "dev", "eth0", "scope", "link", "-tentative", network=router)))

    def has_default() -> bool:
        return any(one.startswith("default via fe80:") and one.endswith("dev uplink") for one in routes())

    def heard() -> bool:
        advertise(router, "eth0")
        return has_default()

    assert eventually(heard)
    plugin("bridge", {**CONF, "isGateway": True}, netns=netns()).ok()
    assert sysctl("ipv6/conf/all/forwarding") == "1"
    assert has_default()
    command("ip", "-6", "route", "del", "default", "dev", "uplink")
    assert eventually(heard), "it hears no router any more"
    assert sysctl("ipv6/conf/br0/accept_ra") == "0"


def test_routes_are_made_as_the_ipam_plugin_has_them(plugin: Plugin, netns: MakeNetns) -> None:
    wanted = [
        {"dst": "10.7.0.0/16", "gw": "10.1.0.254", "mtu": 1400, "advmss": 1300, "priority": 50},
        {"dst": "10.8.0.0/16", "table": 100},
        {"dst": "10.9.0.0/16", "scope": 253},
        {"dst": "10.10.0.0/16", "gw": "192.0.2.7"},
        {"dst": "0.0.0.0/0", "gw": "10.1.0.2", "priority": 1},
        {"dst": "0.0.0.0/0", "gw": "10.1.0.3", "priority": 2},
        {"dst": "fd00:7::/48", "mtu": 1400, "priority": 50},
    ]
    path = netns()
    addresses = [{"address": "10.1.0.9/24", "gateway": "10.1.0.1"}, {"address": "fd00:1::9/64", "gateway": "fd00:1::1"}]
    conf = {"bridge": "br0", "ipam": {"type": "static", "addresses": addresses, "routes": wanted}}
    result = plugin("bridge", conf, netns=path).ok()
    assert result["routes"] == wanted
    text = command("ip", "route", "show", "table", "all", network=path)
    text += command("ip", "-6", "route", "show", network=path)
    for line in (
        "10.7.0.0/16 via 10.1.0.254 dev eth0 metric 50 mtu 1400 advmss 1300",
        "10.8.0.0/16 via 10.1.0.1 dev eth0 table 100",
        "10.9.0.0/16 dev eth0 scope link",
        "10.10.0.0/16 via 192.0.2.7 dev eth0 onlink",
        "default via 10.1.0.2 dev eth0 metric 1",
        "default via 10.1.0.3 dev eth0 metric 2",
        "fd00:7::/48 via fd00:1::1 dev eth0 metric 50 mtu 1400",
    ):
        assert line in text
    plugin("bridge", {**conf, "prevResult": result}, "CHECK", netns=path).ok()


def test_several_routes_to_one_destination(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    both = [{"dst": "10.7.0.0/16", "gw": "10.1.0.2"}, {"dst": "10.7.0.0/16", "gw": "10.1.0.3"}]
    plugin("bridge", {"bridge": "br0", "ipam": static("10.1.0.9/24", routes=[*both, both[0]])}, netns=path).ok()
    assert {"10.7.0.0/16 via 10.1.0.2 dev eth0", "10.7.0.0/16 via 10.1.0.3 dev eth0"} <= routes(path)


@pytest.mark.parametrize("option", [{"vlan": 100}, {"vlanTrunk": [{"id": 100}]}])
def test_a_kernel_without_vlans_says_so(plugin: Plugin, netns: MakeNetns, host: Host, option: dict[str, Any]) -> None:
    if has_vlans():
        pytest.skip("this kernel's bridges have VLANs")
    path = netns()
    before = host.traces()
    message = plugin("bridge", {**CONF, **option}, netns=path).failed(UNSUPPORTED)
    assert message == "/vlan: this kernel's bridges have no VLANs"
    after = {key for key in host.traces() if not key.startswith("file")}
    assert after == {key for key in before if not key.startswith("file")}
    assert link("eth0", path) is None


def has_vlans() -> bool:
    """Whether bridges of this kernel tell VLANs apart."""
    command("ip", "link", "add", "probe", "type", "bridge")
    try:
        data = seen("probe")["linkinfo"]["info_data"]
        return "vlan_default_pvid" in data
    finally:
        command("ip", "link", "delete", "probe")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"bridge": "much-too-long-name"}, "/bridge", "15 bytes"),
    ({"bridge": "a/b"}, "/bridge", "interface"),
    ({"bridge": 1}, "/bridge", "string"),
    ({"isgateway": True}, "/isgateway", "isGateway"),
    ({"ipmasq/": True}, "/ipmasq~1", "ipMasq"),
    ({"isGateway": "yes"}, "/isGateway", "true or false"),
    ({"hairpinMode": True, "promiscMode": True}, "/promiscMode", "hairpinMode"),
    ({"vlan": 4095}, "/vlan", "4094"),
    ({"vlan": -1}, "/vlan", "0"),
    ({"vlanTrunk": [{"id": 1}, {"id": 0}]}, "/vlanTrunk/1/id", "1"),
    ({"vlanTrunk": [{"minID": 5}]}, "/vlanTrunk/0", "maxID"),
    ({"vlanTrunk": [{"minID": 5, "maxID": 4}]}, "/vlanTrunk/0/minID", "maxID"),
    ({"vlanTrunk": [7]}, "/vlanTrunk/0", "object"),
    ({"mtu": 10}, "/mtu", "68"),
    ({"mtu": 1 << 20}, "/mtu", "65535"),
    ({"ipMasqBackend": "ebtables"}, "/ipMasqBackend", "nftables"),
    ({"runtimeConfig": {"mac": "02:00"}}, "/runtimeConfig/mac", "hardware address"),
    ({"args": {"cni": {"mac": "01:00:00:00:00:01"}}}, "/args/cni/mac", "one link"),
    ({"ipam": 7}, "/ipam", "object"),
    ({"dns": {"nameservers": [7]}}, "/dns/nameservers/0", "string"),
    ({"bridge": "bridge-of-ours", "vlan": 4000}, "/bridge", "too long"),
]


@pytest.mark.parametrize(("option", "pointer", "says"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_bad_configuration_is_named_and_leaves_nothing(
    plugin: Plugin, netns: MakeNetns, host: Host, option: dict[str, Any], pointer: str, says: str
) -> None:
    path = netns()
    before = host.traces()
    done = plugin("bridge", {**CONF, **option}, netns=path)
    assert done.rc == 1
    assert done.answer is not None
    assert done.answer["code"] in (2, 6, INVALID_CONFIG)
    assert done.answer["msg"].startswith(f"{pointer}: ")
    assert says in done.answer["msg"] + done.answer.get("details", "")
    assert host.traces() == before
    assert link("eth0", path) is None


def test_a_bad_hardware_address_in_cni_args(plugin: Plugin, netns: MakeNetns) -> None:
    done = plugin("bridge", CONF, netns=netns(), env={"CNI_ARGS": "MAC=nonsense"})
    assert done.failed(4).startswith("CNI_ARGS: ")
