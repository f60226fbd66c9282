"""bridge and ptp: what they have in nftables, by what it does to traffic."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED
from tests.support.networks import Host, command, connect, inside, link, ruleset, unreachable
from tests.system.cni.conftest import MakeNetns, Plugin

IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
}
CONF: dict[str, dict[str, Any]] = {
    "bridge": {"bridge": "br0", "isGateway": True, "ipam": IPAM},
    "ptp": {"ipam": IPAM},
}
PLUGINS = sorted(CONF)
DROPPING = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"


@pytest.fixture
def outside(netns: MakeNetns) -> str:
    """A namespace that the host reaches, and that knows nothing of the containers' networks."""
    path = netns()
    command("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", path)
    for address, network, device in (
        ("192.0.2.1/24", "", "uplink"),
        ("192.0.2.2/24", path, "eth0"),
        ("2001:db8::1/64", "", "uplink"),
        ("2001:db8::2/64", path, "eth0"),
    ):
        command("ip", "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []), network=network)
        command("ip", "link", "set", device, "up", network=network)
    return path


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("backend", ["iptables", "nftables", None])
def test_masquerade(plugin: Plugin, netns: MakeNetns, outside: str, name: str, backend: str | None) -> None:
    path, other = netns(), netns()
    conf = {**CONF[name], "ipMasq": True, **({"ipMasqBackend": backend} if backend else {})}
    plugin(name, conf, netns=path).ok()
    assert connect(path, outside, "192.0.2.2") == "192.0.2.1"
    assert connect(path, outside, "2001:db8::2") == "2001:db8::1"
    plugin(name, {**conf, "ipMasq": False}, netns=other, container="plain").ok()
    assert connect(path, other, "10.1.0.3") == "10.1.0.2", "traffic within the network keeps its address"
    assert connect(path, other, "fd00:1::3") == "fd00:1::2"
    assert unreachable(other, outside, "192.0.2.2"), "it went out with its own address, and had no answer"


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("given", ["there", "empty", "gone"])
def test_del_removes_the_rules(plugin: Plugin, netns: MakeNetns, host: Host, name: str, given: str) -> None:
    conf = {**CONF[name], "ipMasq": True, **({"macspoofchk": True} if name == "bridge" else {})}
    first = netns()
    plugin(name, conf, netns=first, container="first").ok()
    before = ruleset()
    path = netns()
    plugin(name, conf, netns=path).ok()
    assert "net c1 eth0" in ruleset()
    if given == "gone":
        command("umount", path)
        command("rm", path)
    # The configuration of today: rules that it does not ask for are removed as well.
    plugin(name, {**CONF[name], "ipMasq": False}, "DEL", netns="" if given == "empty" else path).ok()
    assert ruleset() == before
    plugin(name, conf, "DEL", netns=first, container="first").ok()
    assert "net first eth0" not in ruleset()


@pytest.mark.parametrize("name", PLUGINS)
def test_gc_removes_the_rules(plugin: Plugin, netns: MakeNetns, name: str) -> None:
    conf = {**CONF[name], "ipMasq": True}
    for container in ("a", "b"):
        plugin(name, conf, netns=netns(), container=container).ok()
    plugin(name, {**conf, "cni.dev/valid-attachments": [{"containerID": "b", "ifname": "eth0"}]}, "GC").ok()
    assert "net a eth0" not in ruleset()
    assert "net b eth0" in ruleset()


@pytest.mark.parametrize("name", PLUGINS)
@pytest.mark.parametrize("loaded", ["before", "after"])
def test_traffic_passes_a_firewall_that_drops_what_is_forwarded(
    plugin: Plugin, netns: MakeNetns, outside: str, name: str, loaded: str
) -> None:
    path = netns()
    conf = {**CONF[name], "ipMasq": True}
    if loaded == "before":
        command("nft", DROPPING)
    else:
        # Loaded after some ADD: the next one finds it.
        plugin(name, conf, netns=netns(), container="earlier").ok()
        command("nft", DROPPING)
    plugin(name, conf, netns=path).ok()
    assert connect(path, outside, "192.0.2.2") == "192.0.2.1"


SERVICE = "10.96.0.1"
SERVE = (
    "add table ip svc; add chain ip svc pre { type nat hook prerouting priority -100; }; "
    f"add rule ip svc pre ip daddr {SERVICE} dnat to 10.1.0.3"
)


def needs_br_netfilter() -> None:
    if not Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        pytest.skip("br_netfilter is not loaded, and to load it would change all bridges of the machine")


def test_a_service_on_the_same_node_is_reached(plugin: Plugin, netns: MakeNetns) -> None:
    needs_br_netfilter()
    Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0")
    path, endpoint = netns(), netns()
    conf = {**CONF["bridge"], "isDefaultGateway": True}
    plugin("bridge", conf, netns=path).ok()
    plugin("bridge", conf, netns=endpoint, container="endpoint").ok()
    command("nft", SERVE)
    assert connect(path, endpoint, SERVICE) == "10.1.0.2"
    command("ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "0")
    assert unreachable(path, endpoint, SERVICE), "the answer came directly, from another address than was asked"


def test_bridged_traffic_passes_a_firewall_that_drops_what_is_forwarded(plugin: Plugin, netns: MakeNetns) -> None:
    needs_br_netfilter()
    path, other = netns(), netns()
    command("nft", DROPPING)
    plugin("bridge", CONF["bridge"], netns=path).ok()
    plugin("bridge", CONF["bridge"], netns=other, container="other").ok()
    assert connect(path, other, "10.1.0.3") == "10.1.0.2"


def _send(path: str, source: str) -> None:
    with inside(path), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(b"\xff" * 6 + bytes.fromhex(source.replace(":", "")) + b"\x88\xb5" + source.encode().ljust(46))


def test_a_spoofed_hardware_address_does_not_pass(plugin: Plugin, netns: MakeNetns) -> None:
    conf = {**CONF["bridge"], "macspoofchk": True}
    path, other = netns(), netns()
    mac = plugin("bridge", conf, netns=path).ok()["interfaces"][2]["mac"]
    plugin("bridge", CONF["bridge"], netns=other, container="other").ok()
    with inside(other), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as raw:
        raw.bind(("eth0", 0x88B5))
        raw.settimeout(10)
        _send(path, "02:00:00:00:00:99")
        _send(path, mac)
        # Frames come in the order in which they were sent: the first one was dropped.
        assert mac.encode() in raw.recv(200)
    assert connect(path, other, "10.1.0.3") == "10.1.0.2"


@pytest.mark.parametrize("name", PLUGINS)
def test_check_finds_that_the_rules_are_gone(plugin: Plugin, netns: MakeNetns, name: str) -> None:
    path = netns()
    conf = {**CONF[name], "ipMasq": True}
    conf = {**conf, "prevResult": plugin(name, conf, netns=path).ok()}
    plugin(name, conf, "CHECK", netns=path).ok()
    command("nft", "flush", "ruleset")
    plugin(name, conf, "CHECK", netns=path).failed(CHECK_FAILED)
    plugin(name, conf, "DEL", netns=path).ok()
    assert link("eth0", path) is None
