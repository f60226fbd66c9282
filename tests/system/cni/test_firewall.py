"""firewall, and the rule in other tables' forward chains: what passes, what does not, and what others see of it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from ocirt_cni import nft
from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Attachment
from ocirt_cni.errors import Error
from ocirt_cni.nft.changes import Changes, check, remove
from tests.support.networks import Host, command, link, ruleset
from tests.support.topology import HOST_OUTSIDE, OUTSIDE, Container, Topology, reaches, source_seen
from tests.system.cni.conftest import Plugin

_NFTABLES_CONF = "add table inet filter; add chain inet filter forward { type filter hook forward priority filter; policy drop; }"


@pytest.fixture
def plugin(plugin: Plugin) -> Plugin:
    """Neither firewall nor portmap looks into the container, so a path will do."""
    return partial(plugin, netns="/run/netns/unseen")


@pytest.fixture
def topology(host: Host) -> Topology:
    """A bridge, and an outside."""
    return Topology()


def _conf(container: Container, **options: Any) -> dict[str, Any]:
    return {"prevResult": container.result(), **options}


def _masqueraded(container: Container, name: str = "c1") -> Changes:
    made = Changes(Attachment("net", name, "eth0"), "bridge")
    made.masquerade([Prefix.parse(f"{container.address}/16")])
    made.admit(container.bridge)
    return made


def _drop(how: str) -> None:
    if how == "iptables":
        command("iptables", "-P", "FORWARD", "DROP")
    elif how == "docker":
        command("iptables", "-P", "FORWARD", "DROP")
        command("iptables", "-N", "DOCKER-USER")
        command("iptables", "-I", "FORWARD", "-j", "DOCKER-USER")
    elif how == "ufw":
        restore = "*filter\n:FORWARD DROP [0:0]\n:ufw-reject-forward - [0:0]\n-A FORWARD -j ufw-reject-forward\n"
        command("sh", "-c", f"printf '{restore}-A ufw-reject-forward -j REJECT\\nCOMMIT\\n' | iptables-restore -n")
    else:
        command("nft", _NFTABLES_CONF)


def _gets_out(topology: Topology, one: Container) -> bool:
    return source_seen(topology.outside, (OUTSIDE, 80), one.path, (OUTSIDE, 80)) == HOST_OUTSIDE


def test_masquerade(topology: Topology) -> None:
    one, other = topology.container(5), topology.container(6)
    assert source_seen(topology.outside, (OUTSIDE, 80), one.path, (OUTSIDE, 80)) is None, "outside knows no way back"
    _masqueraded(one).commit()
    assert _gets_out(topology, one)
    assert source_seen(other.path, (other.address, 80), one.path, (other.address, 80)) == one.address


@pytest.mark.parametrize("how", ["iptables", "docker", "ufw", "nftables"])
def test_forward_chains_that_drop_let_us_pass(how: str, topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    before = sorted(ruleset().splitlines())
    _drop(how)
    loaded = sorted(ruleset().splitlines())
    assert before != loaded
    _masqueraded(one).commit()
    assert _gets_out(topology, one)
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    plugin("portmap", _conf(one, runtimeConfig=ports)).ok()
    assert source_seen(one.path, (one.address, 80), topology.outside, (HOST_OUTSIDE, 8080)) == OUTSIDE
    command("ip", "route", "add", "10.88.0.0/16", "via", HOST_OUTSIDE, network=topology.outside)
    assert not reaches(one.path, (one.address, 81), topology.outside, (one.address, 81)), "not published"
    if how != "nftables":
        assert "-A FORWARD -m mark --mark 0x1000/0x1000 -m comment --comment ocirt -j ACCEPT" in command("iptables", "-S")
        command("iptables-save")
    plugin("portmap", _conf(one), "DEL").ok()
    remove(Attachment("net", "c1", "eth0"), "bridge")
    assert sorted(ruleset().splitlines()) == loaded


@pytest.mark.parametrize("how", ["iptables", "docker", "ufw"])
def test_what_iptables_loads_afterwards_lets_us_pass(how: str, topology: Topology) -> None:
    one = topology.container(5)
    _masqueraded(one).commit()
    _drop(how)
    assert _gets_out(topology, one)
    remove(Attachment("net", "c1", "eth0"), "bridge")
    found = ruleset()
    assert "ocirt" not in found.replace("made by ocirt", ""), "nothing but the name of who made the table"
    assert "policy drop" in found, "what the others made of it stays"


def test_a_table_of_its_own_loaded_afterwards_is_found_by_the_next(topology: Topology) -> None:
    one = topology.container(5)
    _masqueraded(one).commit()
    command("nft", _NFTABLES_CONF)
    assert not _gets_out(topology, one)
    _masqueraded(topology.container(6), "c2").commit()
    assert _gets_out(topology, one)
    command("nft", "flush chain inet filter forward")
    assert not _gets_out(topology, one)
    with pytest.raises(Error, match="inet filter forward: the rule that lets forwarded traffic pass is missing"):
        check(_masqueraded(one))
    remove(Attachment("net", "c2", "eth0"), "bridge")  # which does not hide from the next ADD that something changed
    nft.reload()
    assert _gets_out(topology, one)
    command("nft", "flush ruleset")
    command("nft", _NFTABLES_CONF)
    nft.reload()
    assert _gets_out(topology, one)


def test_the_mark_is_gone_after_the_forward_chains(topology: Topology) -> None:
    one = topology.container(5)
    _masqueraded(one).commit()
    command("nft", "add table ip t; add chain ip t c { type filter hook postrouting priority 0; policy accept; }")
    command("nft", "add rule ip t c meta mark & 0x1000 == 0x1000 counter drop")
    assert _gets_out(topology, one)


def test_foreign_tables_are_left_alone(topology: Topology, plugin: Plugin) -> None:
    one = topology.container(5)
    command("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.9.0.0/16", "-j", "MASQUERADE")
    command("nft", "add table inet mine; add set inet mine s { type ipv4_addr; elements = { 192.0.2.1 }; }")
    command("iptables", "-A", "INPUT", "-s", "203.0.113.1", "-j", "DROP")
    before = sorted(ruleset().splitlines())
    plugin("firewall", _conf(one, ingressPolicy="isolated")).ok()
    for table in ("nat", "filter"):
        command("iptables", "-t", table, "-S")
        command("ip6tables", "-t", table, "-S")
    plugin("firewall", _conf(one), "DEL").ok()
    found = ruleset()
    assert "inet ocirt" not in found
    kept = [line for line in sorted(found.splitlines()) if "FORWARD" not in line]
    assert "table inet mine {" in kept
    assert set(before) <= set(kept)


def test_open_admits_and_is_torn_down(topology: Topology, plugin: Plugin, host: Host) -> None:
    one, other = topology.container(5), topology.container(6)
    before = host.traces()
    result = plugin("firewall", _conf(one, backend="firewalld", firewalldZone="trusted")).ok()
    assert result["interfaces"] == one.result()["interfaces"]
    plugin("firewall", _conf(one), "CHECK").ok()
    assert reaches(one.path, (one.address, 80), other.path, (one.address, 80))
    plugin("firewall", _conf(one), "DEL").ok()
    plugin("firewall", _conf(one), "DEL").ok()
    assert host.traces() == before
    assert "the element cni0 is missing" in plugin("firewall", _conf(one), "CHECK").failed(104)


def test_same_bridge_keeps_bridges_from_each_other(topology: Topology, plugin: Plugin, host: Host) -> None:
    one, two = topology.container(5), topology.container(6)
    second = Topology("cni1", 89, outside=False)
    three = second.container(7)
    plain = Topology("cni2", 90, outside=False).container(8)
    before = host.traces()
    for number, each in enumerate((one, two, three)):
        plugin("firewall", _conf(each, ingressPolicy="same-bridge"), container=f"c{number}").ok()
        _masqueraded(each, f"c{number}").commit()
    assert reaches(one.path, (one.address, 80), two.path, (one.address, 80))
    assert not reaches(one.path, (one.address, 80), three.path, (one.address, 80))
    assert not reaches(three.path, (three.address, 80), one.path, (three.address, 80))
    assert reaches(one.path, (one.address, 80), plain.path, (one.address, 80)), "a bridge without a policy"
    assert _gets_out(topology, one)
    assert reaches(one.path, (one.address, 80), "", (one.address, 80)), "from the host"
    plugin("firewall", _conf(two), "DEL", container="c1").ok()
    assert not reaches(one.path, (one.address, 80), three.path, (one.address, 80)), "the other one of this bridge is still there"
    plugin("firewall", _conf(three), "DEL", container="c2").ok()
    assert reaches(one.path, (one.address, 80), three.path, (one.address, 80))
    plugin("firewall", _conf(one), "DEL", container="c0").ok()
    for number in range(3):
        remove(Attachment("net", f"c{number}", "eth0"), "bridge")
    assert host.traces() == before


def test_isolated_keeps_the_containers_of_a_bridge_apart(topology: Topology, plugin: Plugin, host: Host) -> None:
    one, two, plain = topology.container(5), topology.container(6), topology.container(7)
    before = host.traces()
    for number, each in enumerate((one, two)):
        plugin("firewall", _conf(each, ingressPolicy="isolated"), container=f"c{number}").ok()
        plugin("firewall", _conf(each, ingressPolicy="isolated"), "CHECK", container=f"c{number}").ok()
        _masqueraded(each, f"c{number}").commit()
    assert not reaches(one.path, (one.address, 80), two.path, (one.address, 80))
    assert not reaches(one.path, (one.address6, 80), two.path, (one.address6, 80))
    assert reaches(one.path, (one.address, 80), "", (one.address, 80)), "from the host"
    assert _gets_out(topology, one)
    assert reaches(plain.path, (plain.address, 80), "", (plain.address, 80))
    for number, each in enumerate((one, two)):
        plugin("firewall", _conf(each), "DEL", container=f"c{number}").ok()
        remove(Attachment("net", f"c{number}", "eth0"), "bridge")
    assert host.traces() == before
    for each in (one, two):
        command("ip", "neigh", "flush", "all", network=each.path)  # that nobody answered is remembered
    assert reaches(one.path, (one.address, 80), two.path, (one.address, 80))


def test_the_administrator_is_asked_before(topology: Topology, plugin: Plugin, host: Host) -> None:
    one = topology.container(5)
    before = host.traces()
    _masqueraded(one).commit()
    plugin("firewall", _conf(one)).ok()
    plugin("firewall", _conf(one, iptablesAdminChainName="OTHERS"), container="c2").ok()
    rules = [line for line in command("iptables", "-S").splitlines() if line.startswith("-A FORWARD")]
    assert [line.rpartition(" ")[2] for line in rules] == ["CNI-ADMIN", "OTHERS", "ACCEPT"]
    assert _gets_out(topology, one)
    command("iptables", "-A", "CNI-ADMIN", "-d", OUTSIDE, "-j", "DROP")
    assert not _gets_out(topology, one)
    plugin("firewall", _conf(one), "DEL", container="c2").ok()
    assert "OTHERS" not in command("iptables", "-S")
    command("iptables", "-F", "CNI-ADMIN")
    plugin("firewall", _conf(one), "DEL").ok()
    remove(Attachment("net", "c1", "eth0"), "bridge")
    assert host.traces() == before


def test_spoofing(topology: Topology) -> None:
    one, other = topology.container(5), topology.container(6)
    made = Changes(Attachment("net", "c1", "eth0"), "bridge")
    found = link("eth0", one.path)
    assert found is not None
    made.forbid_spoofing(one.port, found["address"])
    made.commit()
    at = (other.address, 80)
    assert reaches(other.path, at, one.path, at)
    command("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99", network=one.path)
    assert not reaches(other.path, at, one.path, at)
    assert reaches(one.path, (one.address, 80), one.path, (one.address, 80))
    remove(Attachment("net", "c1", "eth0"), "bridge")
    assert reaches(other.path, at, one.path, at)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ingressPolicy": "closed"}, "/ingressPolicy: 'closed' is none of open, same-bridge, isolated"),
        ({"backend": "ipfw"}, "/backend: this is none of iptables, firewalld, nftables"),
        ({"iptablesAdminChainName": "a b"}, "/iptablesAdminChainName: 'a b' cannot be the name of a chain of iptables"),
        ({"prevResult": None}, "/prevResult: it is missing"),
        ({"prevResult": {"cniVersion": "1.1.0"}, "ingressPolicy": "isolated"}, "needs a bridge in the previous result"),
    ],
)
def test_bad_configuration(options: dict[str, Any], message: str, plugin: Plugin, host: Host) -> None:
    before = host.traces()
    assert message in plugin("firewall", {"prevResult": {"cniVersion": "1.1.0"}, **options}).failed(7)
    assert host.traces() == before


def test_status(plugin: Plugin, host: Host) -> None:
    plugin("firewall", {}, "STATUS").ok()
