"""bridge: CHECK finds everything that is not as ADD made it, and names it."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG
from tests.support.networks import command
from tests.system.cni.conftest import MakeNetns, Plugin

CONF: dict[str, Any] = {
    "bridge": "br0",
    "isDefaultGateway": True,
    "hairpinMode": True,
    "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
        "routes": [{"dst": "10.7.0.0/16", "mtu": 1400, "priority": 50}, {"dst": "fd00:7::/48"}],
    },
}
PORT = "PORT"  # stands for the name of the host's end

# What is broken: where ("": on the host), how, and what CHECK says.
BROKEN: list[tuple[str, str, str]] = [
    ("", "ip link delete br0", "br0: it does not exist"),
    ("", "ip link delete br0; ip link add br0 type veth peer name other", "br0: it is not a bridge"),
    ("", "ip link set br0 down", "br0: it is not up"),
    ("", "ip link set br0 address 02:00:00:00:00:99", "br0: its hardware address is 02:00:00:00:00:99"),
    ("", "ip addr del 10.1.0.1/24 dev br0", "br0: it does not have the gateway's address 10.1.0.1"),
    ("", "ip addr del fd00:1::1/64 dev br0", "br0: it does not have the gateway's address fd00:1::1"),
    ("", "echo 0 > /proc/sys/net/ipv4/ip_forward", "net/ipv4/ip_forward: the host does not forward packets"),
    ("", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", "net/ipv6/conf/all/forwarding: the host does not forward packets"),
    ("", "ip link set PORT nomaster", "PORT: it is not a port of br0"),
    ("", "ip link add br1 type bridge; ip link set PORT master br1", "PORT: it is not a port of br0"),
    ("", "ip link set PORT down", "PORT: it is not up"),
    ("", "ip link set PORT alias somebody", "PORT: it is not this attachment's, by its alias 'somebody'"),
    ("", "ip link set PORT address 02:00:00:00:00:99", "PORT: its hardware address is 02:00:00:00:00:99"),
    ("", "bridge link set dev PORT hairpin off", "PORT: it is without hairpin mode"),
    ("", "bridge link set dev PORT isolated on", "PORT: it is in isolation"),
    ("", "ip link set PORT down; ip link set PORT name another", "PORT: it does not exist"),
    ("in", "ip link delete eth0", "eth0: it does not exist"),
    ("in", "ip link set eth0 down; ip link set eth0 name eth1; ip link add eth0 type bridge", "eth0: it is not a veth"),
    ("in", "ip link set eth0 down", "eth0: it is not up"),
    ("in", "ip link set eth0 address 02:00:00:00:00:99", "eth0: its hardware address is 02:00:00:00:00:99"),
    ("in", "ip addr del 10.1.0.2/24 dev eth0", "eth0: it does not have the address 10.1.0.2/24"),
    ("in", "ip addr del fd00:1::2/64 dev eth0", "eth0: it does not have the address fd00:1::2/64"),
    ("in", "ip route del default", "eth0: there is no route to 0.0.0.0/0 via 10.1.0.1"),
    ("in", "ip -6 route del default", "eth0: there is no route to ::/0 via fd00:1::1"),
    ("in", "ip route del 10.7.0.0/16", "eth0: there is no route to 10.7.0.0/16 via 10.1.0.1"),
    ("in", "ip route change 10.7.0.0/16 via 10.1.0.1 metric 50", "eth0: there is no route to 10.7.0.0/16"),
    (
        "in",
        "ip route del 10.7.0.0/16; ip route add 10.7.0.0/16 via 10.1.0.9 mtu 1400 metric 50",
        "there is no route to 10.7.0.0/16",
    ),
    ("in", "ip -6 route del fd00:7::/48", "eth0: there is no route to fd00:7::/48 via fd00:1::1"),
    ("in", "ip route add 10.1.0.1/32 via 10.1.0.9", "eth0: the gateway 10.1.0.1 is not reached by it"),
    ("in", "ip link set lo up; ip -6 route add fd00:1::1/128 dev lo", "eth0: the gateway fd00:1::1 is not reached by it"),
    ("", "rm /var/lib/cni/networks/net/10.1.0.2", "10.1.0.2"),
]


@pytest.mark.parametrize(("where", "how", "says"), BROKEN, ids=[f"{one[0]}{one[1]}" for one in BROKEN])
def test_check_names_what_is_broken(plugin: Plugin, netns: MakeNetns, where: str, how: str, says: str) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    port = result["interfaces"][1]["name"]
    conf = {**CONF, "prevResult": result}
    plugin("bridge", conf, "CHECK", netns=path).ok()
    # The commands are run with /proc/sys/net of the namespace, which follows the process.
    command("sh", "-ec", how.replace(PORT, port), network=path if where else "")
    done = plugin("bridge", conf, "CHECK", netns=path)
    assert done.rc == 1, "nothing was found"
    assert done.answer is not None
    assert says.replace(PORT, port) in done.answer["msg"]
    if "rm " not in how:
        assert done.answer["code"] == CHECK_FAILED


def test_check_needs_the_previous_result(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    assert plugin("bridge", CONF, "CHECK", netns=path).failed(INVALID_CONFIG).startswith("/prevResult: ")
    conf = {**CONF, "prevResult": result}
    message = plugin("bridge", conf, "CHECK", netns=netns()).failed(INVALID_CONFIG)
    assert message.startswith("/prevResult/interfaces: there is no interface eth0 in ")


def test_check_of_a_promiscuous_bridge(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"bridge": "br0", "promiscMode": True}
    conf = {**conf, "prevResult": plugin("bridge", conf, netns=path).ok()}
    plugin("bridge", conf, "CHECK", netns=path).ok()
    command("ip", "link", "set", "br0", "promisc", "off")
    message = plugin("bridge", conf, "CHECK", netns=path).failed(CHECK_FAILED)
    assert message == "br0: it is not in promiscuous mode"


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_check_in_every_version_that_has_it(plugin: Plugin, netns: MakeNetns, version: str) -> None:
    path = netns()
    conf = {**CONF, "cniVersion": version}
    result = plugin("bridge", conf, netns=path).ok()
    assert result["cniVersion"] == version
    plugin("bridge", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
