"""portmap: real connections to published ports, and what is refused."""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.links import make_uplink
from tests.support.networks import Host, command, inside, ruleset, sysctl
from tests.support.topology import (
    BRIDGE,
    HOST_OUTSIDE,
    HOST_OUTSIDE6,
    OUTSIDE,
    OUTSIDE6,
    Container,
    Topology,
    reaches,
    source_seen,
)
from tests.system.cni.conftest import MakeNetns, Plugin

_PORT, _INNER = 8080, 80


@pytest.fixture
def topology(host: Host) -> Topology:
    """A bridge, and an outside."""
    return Topology()


@pytest.fixture
def plugin(plugin: Plugin) -> Plugin:
    """Portmap does not look into the container, so a path will do."""
    return partial(plugin, netns="/run/netns/unseen")


def _conf(container: Container, *mappings: dict[str, Any], **options: Any) -> dict[str, Any]:
    asked = list(mappings) or [{"hostPort": _PORT, "containerPort": _INNER, "protocol": "tcp"}]
    return {"runtimeConfig": {"portMappings": asked}, "prevResult": container.result(), **options}


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_is_reached_from_everywhere(protocol: str, topology: Topology, plugin: Plugin, host: Host) -> None:
    one, other = topology.container(5), topology.container(6)
    before, localnet = host.traces(), sysctl(f"ipv4/conf/{BRIDGE}/route_localnet")
    conf = _conf(one, {"hostPort": _PORT, "containerPort": _INNER, "protocol": protocol})
    result = plugin("portmap", conf).ok()
    assert result["ips"] == one.result()["ips"]
    plugin("portmap", conf, "CHECK").ok()
    at, at6 = (one.address, _INNER), (one.address6, _INNER)
    outer, outer6 = (HOST_OUTSIDE, _PORT), (HOST_OUTSIDE6, _PORT)
    assert source_seen(one.path, at, topology.outside, outer, protocol=protocol) == OUTSIDE
    assert source_seen(one.path, at6, topology.outside, outer6, protocol=protocol) == OUTSIDE6
    assert reaches(one.path, at, "", outer, protocol=protocol), "from the host, to its outer address"
    assert reaches(one.path, at, "", ("10.88.0.1", _PORT), protocol=protocol), "to its address on the bridge"
    assert reaches(one.path, at6, "", outer6, protocol=protocol)
    assert reaches(one.path, at, "", ("127.0.0.1", _PORT), protocol=protocol), "from loopback"
    assert source_seen(one.path, at, other.path, outer, protocol=protocol) == "10.88.0.1", "a neighbour on the bridge"
    assert source_seen(one.path, at, one.path, outer, protocol=protocol) == "10.88.0.1", "the container itself"
    assert source_seen(one.path, at6, one.path, outer6, protocol=protocol) == "fd00:88::1"
    plugin("portmap", conf, "DEL").ok()
    assert host.traces() == before
    assert sysctl(f"ipv4/conf/{BRIDGE}/route_localnet") == localnet
    assert not reaches(one.path, at, topology.outside, outer, protocol=protocol)
    plugin("portmap", conf, "DEL").ok()


def test_nobody_from_the_bridge_gets_to_the_loopback_of_the_host(topology: Topology, plugin: Plugin) -> None:
    one, other = topology.container(5), topology.container(6)
    command("ip", "route", "replace", "127.0.0.0/8", "via", "10.88.0.1", "table", "7", network=other.path)
    command("ip", "rule", "add", "pref", "1", "to", "127.0.0.0/8", "lookup", "7", network=other.path)
    command("ip", "rule", "add", "pref", "2", "lookup", "local", network=other.path)
    command("ip", "rule", "del", "pref", "0", network=other.path)
    with inside(other.path):
        command("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    plugin("portmap", _conf(one)).ok()
    assert sysctl(f"ipv4/conf/{BRIDGE}/route_localnet") == "1"
    here = ("127.0.0.1", 9999)
    assert source_seen("", here, other.path, here, protocol="udp", local="10.88.0.6") is None
    command("nft", "flush chain inet ocirt raw")
    assert source_seen("", here, other.path, here, protocol="udp", local="10.88.0.6") == "10.88.0.6", (
        "without the rules the attack works"
    )


def test_a_port_of_one_address(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    mapping = {"hostPort": _PORT, "containerPort": _INNER, "protocol": "TCP", "hostIP": HOST_OUTSIDE}
    plugin("portmap", _conf(one, mapping)).ok()
    at = (one.address, _INNER)
    assert reaches(one.path, at, topology.outside, (HOST_OUTSIDE, _PORT))
    assert not reaches(one.path, at, "", ("10.88.0.1", _PORT))
    assert not reaches(one.path, (one.address6, _INNER), topology.outside, (HOST_OUTSIDE6, _PORT))


def test_loopback_alone(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    plugin("portmap", _conf(one, {"hostPort": _PORT, "containerPort": _INNER, "hostIP": "127.0.0.1"})).ok()
    at = (one.address, _INNER)
    assert reaches(one.path, at, "", ("127.0.0.1", _PORT))
    assert not reaches(one.path, at, topology.outside, (HOST_OUTSIDE, _PORT))


def test_any_address_of_one_version(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    plugin("portmap", _conf(one, {"hostPort": _PORT, "containerPort": _INNER, "hostIP": "::"})).ok()
    assert reaches(one.path, (one.address6, _INNER), topology.outside, (HOST_OUTSIDE6, _PORT))
    assert not reaches(one.path, (one.address, _INNER), topology.outside, (HOST_OUTSIDE, _PORT))


def test_without_snat_a_neighbour_gets_no_answer_by_the_host(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    plugin("portmap", _conf(one, snat=False)).ok()
    at = (one.address, _INNER)
    assert source_seen(one.path, at, topology.outside, (HOST_OUTSIDE, _PORT)) == OUTSIDE
    assert not reaches(one.path, at, "", ("127.0.0.1", _PORT))
    assert sysctl(f"ipv4/conf/{BRIDGE}/route_localnet") == "0"
    assert "hairpin-" not in ruleset()


def test_masq_all_hides_the_outside(topology: Topology, plugin: Plugin, host: Host) -> None:
    one = topology.container(5)
    before = host.traces()
    plugin("portmap", _conf(one, masqAll=True)).ok()
    assert source_seen(one.path, (one.address, _INNER), topology.outside, (HOST_OUTSIDE, _PORT)) == "10.88.0.1"
    plugin("portmap", _conf(one, masqAll=True), "DEL").ok()
    assert host.traces() == before


@pytest.mark.parametrize("condition", [["!", "-s", "192.0.2.0/24"], ["ip", "saddr", "!=", "192.0.2.0/24"], ["-i", BRIDGE]])
def test_conditions_choose_who_is_meant(condition: list[str], topology: Topology, plugin: Plugin, host: Host) -> None:
    one, other = topology.container(5), topology.container(6)
    before = host.traces()
    conf = _conf(one, conditionsV4=condition)
    plugin("portmap", conf).ok()
    plugin("portmap", conf, "CHECK").ok()
    at = (one.address, _INNER)
    assert not reaches(one.path, at, topology.outside, (HOST_OUTSIDE, _PORT))
    assert reaches(one.path, at, other.path, ("10.88.0.1", _PORT))
    assert reaches(one.path, (one.address6, _INNER), topology.outside, (HOST_OUTSIDE6, _PORT)), "conditions are IPv4's"
    message = plugin("portmap", _conf(other), container="c2").failed(102)
    assert message == "*:8080/tcp: the port of the host belongs to the attachment 'net c1 eth0'"
    plugin("portmap", conf, "DEL").ok()
    assert host.traces() == before


def test_a_stream_of_datagrams_finds_the_new_container(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    conf = _conf(one, {"hostPort": 53, "containerPort": 5353, "protocol": "udp"})
    with inside(topology.outside):
        caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(one.path):
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # The rules of somebody's bring connection tracking, so that the first packet is remembered as one to the host itself.
    command("nft", "add table ip t; add chain ip t c { type filter hook input priority 0; }; add rule ip t c ct state new accept")
    with caller, listener:
        caller.connect((HOST_OUTSIDE, 53))
        listener.bind((one.address, 5353))
        listener.settimeout(3)
        caller.send(b"lost")
        plugin("portmap", conf).ok()
        # The host has told that nobody listens; that error is the caller's next answer.
        with pytest.raises(ConnectionRefusedError):
            caller.send(b"told")
        caller.send(b"found")
        assert listener.recv(16) == b"found"
        plugin("portmap", conf, "DEL").ok()
        caller.send(b"to the host again")
        with pytest.raises(ConnectionRefusedError):
            caller.recv(16)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_port_that_a_process_has_is_refused(
    protocol: str, address: str, topology: Topology, plugin: Plugin, host: Host
) -> None:
    one = topology.container(5)
    before = host.traces()
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as holder:
        holder.bind((address, _PORT))
        if protocol == "tcp":
            holder.listen()
        conf = _conf(one, {"hostPort": _PORT, "containerPort": _INNER, "protocol": protocol})
        message = plugin("portmap", conf).failed(102)
        mine = f"{Path('/proc/self/comm').read_text().strip()} ({os.getpid()})"
        assert f"*:8080/{protocol}: the port of the host belongs to {mine}" in message
        assert host.traces() == before
    plugin("portmap", conf).ok()


def test_any_address_and_one_address_are_rivals(topology: Topology, plugin: Plugin, host: Host) -> None:
    one, other = topology.container(5), topology.container(6)
    whole = _conf(one)
    part = _conf(other, {"hostPort": _PORT, "containerPort": _INNER, "hostIP": HOST_OUTSIDE})
    plugin("portmap", whole).ok()
    before = host.traces()
    assert "net c1 eth0" in plugin("portmap", part, container="c2").failed(102)
    assert host.traces() == before
    plugin("portmap", whole, "DEL").ok()
    plugin("portmap", part, container="c2").ok()
    assert "net c2 eth0" in plugin("portmap", whole).failed(102)


@pytest.mark.parametrize(
    ("mappings", "options", "message"),
    [
        (
            [{"hostPort": 0, "containerPort": 80}],
            {},
            "/runtimeConfig/portMappings/0/hostPort: a port is a number from 1 to 65535",
        ),
        ([{"hostPort": 1}], {}, "/runtimeConfig/portMappings/0/containerPort: a port is a number"),
        ([{"hostPort": 70000, "containerPort": 1}], {}, "/runtimeConfig/portMappings/0/hostPort: a port is a number"),
        ([{"hostPort": "1", "containerPort": 1}], {}, "/runtimeConfig/portMappings/0/hostPort: this is not a number"),
        ([7], {}, "/runtimeConfig/portMappings/0: this is not an object"),
        ([{"hostPort": 1, "containerPort": 1, "protocol": "icmp"}], {}, "/0/protocol: 'icmp' is none of tcp, udp, sctp"),
        ([{"hostPort": 1, "containerPort": 1, "hostIP": "host"}], {}, "/0/hostIP: 'host' is not an IP address"),
        (
            [{"hostPort": 1, "containerPort": 1}, {"hostPort": 1, "containerPort": 2}],
            {},
            "/runtimeConfig/portMappings/1: the same port of the host as in /runtimeConfig/portMappings/0",
        ),
        ([], {"backend": "ebtables"}, "/backend: this is neither iptables nor nftables"),
        ([], {"markMasqBit": 32}, "/markMasqBit: a bit is a number from 0 to 31"),
        (
            [],
            {"markMasqBit": 1, "externalSetMarkChain": "X"},
            "/externalSetMarkChain: it cannot be set together with markMasqBit",
        ),
        ([], {"conditionsV4": ["--sport", "1"]}, "/conditionsV4/0: '--sport' is not understood"),
        ([], {"conditionsV6": ["-d", "10.0.0.1"]}, "/conditionsV6/1: 10.0.0.1 is no address of IPv6"),
        ([], {"conditionsV4": ["accept; flush ruleset"]}, "/conditionsV4: 'accept; flush ruleset' is no condition of nftables"),
        ([], {"prevResult": None}, "/prevResult: it is missing: portmap needs the container's addresses"),
        ([{"hostPort": 1, "containerPort": 1, "hostIP": "fd00::1"}], {"ips": 1}, "the container does not have an IPv6 address"),
    ],
)
def test_bad_configuration(
    mappings: list[Any], options: dict[str, Any], message: str, topology: Topology, plugin: Plugin, host: Host
) -> None:
    before = host.traces()
    conf = {**_conf(topology.container(5), *mappings), **options}
    if "ips" in options:
        conf["prevResult"]["ips"] = conf["prevResult"]["ips"][: conf.pop("ips")]
    assert message in plugin("portmap", conf).failed(7)
    after = host.traces()
    assert {one for one in after if one not in before and not one.startswith(("link", "address", "route"))} == set()


def test_no_port_asked_for_is_no_work(topology: Topology, plugin: Plugin, host: Host) -> None:
    one = topology.container(5)
    before = host.traces()
    plugin("portmap", {"prevResult": one.result()}).ok()
    assert host.traces() == before
    plugin("portmap", {"prevResult": one.result()}, "DEL").ok()
    assert host.traces() == before


def test_the_same_port_twice_is_one(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    mapping = {"hostPort": _PORT, "containerPort": _INNER, "protocol": "tcp"}
    plugin("portmap", _conf(one, mapping, mapping, {**mapping, "protocol": "udp"}, {**mapping, "hostPort": 8081})).ok()
    for port in (_PORT, 8081):
        assert reaches(one.path, (one.address, _INNER), topology.outside, (HOST_OUTSIDE, port))


def test_garbage_collection(topology: Topology, plugin: Plugin) -> None:
    for number, name in ((5, "c1"), (6, "c2")):
        mapping = {"hostPort": 8000 + number, "containerPort": _INNER}
        plugin("portmap", _conf(topology.container(number), mapping), container=name).ok()
    plugin("portmap", {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}, "GC").ok()
    found = ruleset()
    assert "net c1 eth0" not in found
    assert "net c2 eth0" in found


def test_garbage_collection_before_that_of_the_bridge(plugin: Plugin, netns: MakeNetns) -> None:
    """Another runtime may have a network of the same name, whose addresses are elsewhere: who has a link is left alone."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]], "dataDir": "/var/lib/elsewhere"}
    paths = {}
    for number, name in ((5, "gone"), (6, "there")):
        paths[name] = netns()
        result = plugin("bridge", {"bridge": "br0", "ipMasq": True, "ipam": ipam}, netns=paths[name], container=name).ok()
        ports = {"runtimeConfig": {"portMappings": [{"hostPort": 8000 + number, "containerPort": 80}]}}
        plugin("portmap", {**ports, "prevResult": result}, netns=paths[name], container=name).ok()
    command("ip", "link", "delete", "eth0", network=paths["gone"])
    plugin("portmap", {"cni.dev/valid-attachments": []}, "GC").ok()
    found = ruleset()
    assert "8005" not in found
    assert "8006" in found
    plugin("bridge", {"bridge": "br0", "ipam": ipam, "cni.dev/valid-attachments": []}, "GC").ok()
    plugin("portmap", {"cni.dev/valid-attachments": []}, "GC").ok()
    assert "8006" not in ruleset()


@pytest.mark.parametrize("folder", [{}, {"dataDir": "/var/lib/elsewhere"}])
@pytest.mark.parametrize("conf", [{"type": "macvlan", "master": "up0"}, {"type": "bridge", "bridge": "br0"}], ids=str)
def test_garbage_collection_behind_a_plugin_without_rules(
    plugin: Plugin, netns: MakeNetns, host: Host, conf: dict[str, Any], folder: dict[str, Any]
) -> None:
    """Nobody but portmap has anything of the attachment in nftables, so no other GC tells that it is gone, or is there."""
    make_uplink(netns())
    command("ip", "addr", "add", "10.5.0.1/24", "dev", "up0")  # the way to the container leads over this link
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.5.0.0/24", "rangeStart": "10.5.0.5"}]], **folder}
    before = host.traces()
    paths = {}
    for number, name in enumerate(("c1", "c2"), 8001):
        paths[name] = netns()
        result = plugin(conf["type"], {**conf, "ipam": ipam}, netns=paths[name], container=name).ok()
        ports = {"runtimeConfig": {"portMappings": [{"hostPort": number, "containerPort": 80}]}}
        plugin("portmap", {**ports, "prevResult": result}, netns=paths[name], container=name).ok()
    assert "8001" in ruleset()
    plugin("portmap", {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}, "GC").ok()
    assert "8001" not in ruleset()
    assert "8002" in ruleset()
    plugin("portmap", {"cni.dev/valid-attachments": []}, "GC").ok()
    left = host.traces().keys() ^ before.keys()
    assert [one for one in left if not one.startswith(("file /var/lib", "link", "route"))] == []
    assert sysctl("ipv4/conf/up0/route_localnet") == "0"
