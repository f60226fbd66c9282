"""bridge: what an ADD makes and a DEL removes, with traffic."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import INVALID_NETNS, TAKEN, Error
from tests.support.networks import (
    Host,
    addresses,
    command,
    connect,
    ip,
    link,
    make_network,
    routes,
    sysctl,
)
from tests.support.runtime import wait_for
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

FOUR = {"subnet": "10.1.0.0/24"}
SIX = {"subnet": "fd00:1::/64"}
IPAM = {"type": "host-local", "ranges": [[FOUR], [SIX]]}
CONF: dict[str, Any] = {"bridge": "br0", "isDefaultGateway": True, "ipam": IPAM}


def port_of(result: dict[str, Any]) -> dict[str, Any]:
    """The host's end of a pair, as `ip` shows it."""
    found = link(result["interfaces"][1]["name"])
    assert found is not None
    return found


def test_the_result_names_bridge_and_both_ends(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    bridge, outer, inner = result["interfaces"]
    assert (bridge["name"], inner["name"], inner["sandbox"]) == ("br0", "eth0", path)
    assert "sandbox" not in bridge
    assert "sandbox" not in outer
    for one, network in ((bridge, ""), (outer, ""), (inner, path)):
        found = link(one["name"], network)
        assert found is not None
        assert (found["address"], found["mtu"]) == (one["mac"], one["mtu"])
    assert result["ips"] == [
        {"interface": 2, "address": "10.1.0.2/24", "gateway": "10.1.0.1"},
        {"interface": 2, "address": "fd00:1::2/64", "gateway": "fd00:1::1"},
    ]
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}, {"dst": "::/0", "gw": "fd00:1::1"}]


def test_the_container_has_addresses_and_routes_and_its_port_forwards(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    assert addresses("eth0", path) == {"10.1.0.2/24", "fd00:1::2/64"}
    assert routes(path) == {
        "default via 10.1.0.1 dev eth0",
        "default via fd00:1::1 dev eth0",
        "10.1.0.0/24 dev eth0",
        "fd00:1::/64 dev eth0",
    }
    port = port_of(result)
    assert port["operstate"] == "UP"
    assert port["master"] == "br0"
    assert port["linkinfo"]["info_slave_data"]["state"] == "forwarding"
    assert port["ifalias"] == "ocirt net c1 eth0"
    assert addresses("br0") == {"10.1.0.1/24", "fd00:1::1/64"}


def test_no_address_waits_for_duplicate_address_detection(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("bridge", CONF, netns=path).ok()
    for name, network in (("eth0", path), ("br0", "")):
        for one in ip("addr", "show", "dev", name, network=network):
            for address in one["addr_info"]:
                if address["scope"] == "global":  # the kernel makes those of the link itself, some time later
                    assert not address.get("tentative"), address


def test_the_gateway_asks_for_neighbours_at_once(plugin: Plugin, netns: MakeNetns) -> None:
    """What comes from elsewhere is asked for from the link's own address, so that is not to wait for detection either."""
    path = netns()
    plugin("bridge", CONF, netns=path).ok()

    def own() -> list[dict[str, Any]]:
        return [each for one in ip("addr", "show", "dev", "br0") for each in one["addr_info"] if each["scope"] == "link"]

    (found,) = wait_for(own, "the link's own address")
    assert not found.get("tentative"), found


def test_duplicates_on_a_bridge_that_is_no_gateway(plugin: Plugin, netns: MakeNetns) -> None:
    """It may have an uplink, and others on that."""
    before = sysctl("ipv6/conf/default/accept_dad")
    plugin("bridge", {"bridge": "br0", "ipam": IPAM}, netns=netns()).ok()
    assert sysctl("ipv6/conf/br0/accept_dad") == before
    plugin("bridge", {**CONF, "bridge": "br1", "enabledad": True}, netns=netns(), container="c2").ok()
    assert sysctl("ipv6/conf/br1/accept_dad") == before


def test_the_gateway_has_a_hardware_address_of_its_own(plugin: Plugin, netns: MakeNetns) -> None:
    first = plugin("bridge", CONF, netns=netns(), container="a").ok()["interfaces"]
    second = plugin("bridge", CONF, netns=netns(), container="b").ok()["interfaces"]
    assert first[0] == second[0]
    assert first[0]["mac"] not in (first[1]["mac"], second[1]["mac"])
    plugin("bridge", CONF, "DEL", container="a").ok()
    found = link("br0")
    assert found is not None
    assert found["address"] == first[0]["mac"]


def test_an_address_keeps_its_hardware_address(plugin: Plugin, netns: MakeNetns) -> None:
    """So who knows its last owner reaches the next one at once, though nobody told of a change."""
    two = {"type": "host-local", "subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2", "rangeEnd": "10.1.0.3"}
    conf = {**CONF, "ipam": two}
    first, peer, second = netns(), netns(), netns()
    made = plugin("bridge", conf, netns=first, container="c1").ok()
    assert made["interfaces"][2]["mac"] == "0a:58:0a:01:00:02"
    plugin("bridge", conf, netns=peer, container="c2").ok()
    command("busybox", "ping", "-c", "1", "-W", "2", "10.1.0.2", network=peer)
    plugin("bridge", conf, "DEL", netns=first, container="c1").ok()
    made = plugin("bridge", conf, netns=second, container="c3").ok()
    assert made["ips"][0]["address"] == "10.1.0.2/24"
    assert made["interfaces"][2]["mac"] == "0a:58:0a:01:00:02"
    command("busybox", "ping", "-c", "1", "-W", "1", "10.1.0.2", network=peer)
    command("busybox", "ping", "-c", "1", "-W", "1", "10.1.0.2")


@pytest.mark.parametrize("more", [{"isDefaultGateway": False}, {"args": {"cni": {"mac": "02:00:00:00:00:01"}}}])
def test_who_may_have_neighbours_of_others_announces_itself(plugin: Plugin, netns: MakeNetns, more: dict[str, Any]) -> None:
    """On a network that is not ours alone, and with a hardware address of one's own."""
    plugin("bridge", CONF, netns=netns(), container="c1").ok()
    listener = netns()
    plugin("bridge", {"bridge": "br0"}, netns=listener, container="c2").ok()
    watch = "import socket; s = socket.socket(17, 3, 0x0608); s.bind(('eth0', 0x806)); print('on', flush=True)"
    watch += "; print(next(one.hex() for one in iter(lambda: s.recv(99), b'') if one[28:32] == bytes([10, 1, 0, 3])), flush=True)"
    argv = ["nsenter", f"--net={listener}", sys.executable, "-c", watch]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "on\n"
        path = netns()
        made = plugin("bridge", CONF | more, netns=path, container="c3").ok()
        mac = made["interfaces"][2]["mac"]
        assert not mac.startswith("0a:58")
        heard = bytes.fromhex(watching.stdout.readline())
    assert heard[6:12].hex(":") == mac
    assert heard[28:32] == heard[38:42]  # the sender asks for its own (RFC 5227, "ARP announcement")


def test_a_port_has_no_address_of_its_own(plugin: Plugin, netns: MakeNetns) -> None:
    """With a link-local one each port would be two routes more of the host's."""
    result = plugin("bridge", CONF, netns=netns()).ok()
    assert addresses(result["interfaces"][1]["name"]) == set()
    table = command("ip", "-6", "route", "show", "table", "all", "dev", result["interfaces"][1]["name"])
    assert "fe80::" not in table


def test_containers_reach_each_other_and_the_gateway(plugin: Plugin, netns: MakeNetns) -> None:
    one, other = netns(), netns()
    plugin("bridge", CONF, netns=one, container="a").ok()
    plugin("bridge", CONF, netns=other, container="b").ok()
    assert connect(one, other, "10.1.0.3") == "10.1.0.2"
    assert connect(one, other, "fd00:1::3") == "fd00:1::2"
    assert connect(one, "", "10.1.0.1") == "10.1.0.2"
    assert connect(one, "", "fd00:1::1") == "fd00:1::2"
    assert connect("", one, "10.1.0.2") == "10.1.0.1"


def test_the_host_forwards_what_it_is_the_gateway_for(plugin: Plugin, netns: MakeNetns) -> None:
    assert (sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")) == ("0", "0")
    plugin("bridge", {**CONF, "ipam": {"type": "host-local", "ranges": [[FOUR]]}}, netns=netns(), container="a").ok()
    assert (sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")) == ("1", "0")
    plugin("bridge", CONF, netns=netns(), container="b").ok()
    assert sysctl("ipv6/conf/all/forwarding") == "1"
    assert sysctl("ipv6/conf/br0/accept_ra") == "0"


def test_a_deleted_attachment_leaves_the_bridge_alone(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    plugin("bridge", CONF, netns=netns(), container="first").ok()
    before = host.traces()
    path = netns()
    plugin("bridge", CONF, netns=path).ok()
    assert host.traces() != before
    plugin("bridge", CONF, "DEL", netns=path).ok()
    assert link("eth0", path) is None
    after = host.traces()
    assert {key for key in after if not key.startswith("file")} == {key for key in before if not key.startswith("file")}


@pytest.mark.parametrize("netns_of_del", ["there", "empty", "gone", "replaced"])
def test_del_needs_neither_namespace_nor_result(plugin: Plugin, netns: MakeNetns, netns_of_del: str) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    name = result["interfaces"][1]["name"]
    given = path
    if netns_of_del == "empty":
        given = ""
    elif netns_of_del == "gone":
        command("umount", path)
        command("rm", path)
    elif netns_of_del == "replaced":
        command("umount", path)  # the file is there still, and no namespace: as after a reboot
    for _ in range(3):
        plugin("bridge", CONF, "DEL", netns=given).ok()
        assert link(name) is None
    assert not Path("/var/lib/cni/networks/net/10.1.0.2").exists()


def test_del_after_the_bridge_was_removed(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    result = plugin("bridge", CONF, netns=path).ok()
    command("ip", "link", "delete", "br0")
    plugin("bridge", CONF, "DEL", netns=path).ok()
    assert link(result["interfaces"][1]["name"]) is None
    again = plugin("bridge", CONF, netns=path).ok()
    assert port_of(again)["master"] == "br0"


def test_del_removes_what_another_implementation_made(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("ip", "link", "add", "vethforeign", "type", "veth", "peer", "name", "eth0", "netns", path)
    plugin("bridge", CONF, "DEL", netns=path).ok()
    assert link("vethforeign") is not None, "nothing says that it is the attachment's"
    previous = {"cniVersion": "1.1.0", "interfaces": [{"name": "vethforeign"}, {"name": "eth0", "sandbox": path}], "dns": {}}
    plugin("bridge", {**CONF, "prevResult": previous}, "DEL", netns=path).ok()
    assert link("vethforeign") is None


def test_a_second_add_is_refused_and_disturbs_nothing(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path = netns()
    plugin("bridge", CONF, netns=path).ok()
    before = host.traces()
    assert "has an interface eth0 already" in plugin("bridge", CONF, netns=path).failed(TAKEN)
    assert host.traces() == before
    assert addresses("eth0", path) == {"10.1.0.2/24", "fd00:1::2/64"}


@pytest.mark.parametrize("name", ["bridge", "ptp"])
def test_a_namespace_that_is_none(plugin: Plugin, host: Host, name: str) -> None:
    Path("/run/file").touch()
    before = host.traces()
    for path in ("/run/missing", "/run/file", "/proc/self/ns/net", "/proc/self/ns/mnt"):
        done = plugin(name, CONF if name == "bridge" else {"ipam": IPAM}, netns=path)
        assert path in done.failed(INVALID_NETNS)
        assert host.traces() == before


def test_what_a_killed_add_left_is_made_anew(plugin: Plugin, netns: MakeNetns) -> None:
    old, new = netns(), netns()
    name = plugin("bridge", CONF, netns=old).ok()["interfaces"][1]["name"]
    index = port_of({"interfaces": [{}, {"name": name}]})["ifindex"]
    # The container's namespace is another one now, its leases are lost, and nobody asked for a DEL.
    shutil.rmtree("/var/lib/cni")
    result = plugin("bridge", CONF, netns=new).ok()
    assert result["interfaces"][1]["name"] == name
    assert port_of(result)["ifindex"] != index
    assert link("eth0", old) is None
    assert link("eth0", new) is not None


def test_a_foreign_link_of_the_same_name_is_not_touched(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path = netns()
    name = plugin("bridge", CONF, netns=path).ok()["interfaces"][1]["name"]
    plugin("bridge", CONF, "DEL", netns=path).ok()
    command("ip", "link", "add", name, "alias", "mine", "type", "veth", "peer", "name", "other")
    command("ip", "link", "set", name, "alias", "mine")
    before = host.traces()
    assert name in plugin("bridge", CONF, netns=path).failed(TAKEN)
    assert name in plugin("bridge", CONF, "DEL", netns=path).failed(TAKEN)
    found = link(name)
    assert found is not None
    assert (found["ifalias"], found.get("master")) == ("mine", None)
    assert link("eth0", path) is None
    assert {key for key in host.traces() if key.startswith("link")} == {key for key in before if key.startswith("link")}


def test_a_lazy_caller_drops_the_namespace_itself(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    result = invoke("bridge", CONF, netns=path)
    assert result is not None
    invoke("bridge", CONF, "DEL", netns=path, lazy=True)
    assert link(result.interfaces[1].name) is not None
    command("umount", path)
    invoke("bridge", CONF, "DEL", netns="")
    assert link(result.interfaces[1].name) is None


def test_gc_removes_what_is_not_valid(plugin: Plugin, netns: MakeNetns) -> None:
    made = {}
    for name in ("a", "b", "c"):
        made[name] = plugin("bridge", CONF, netns=netns(), container=name).ok()["interfaces"][1]["name"]
    elsewhere = {**CONF, "name": "other", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.2.0.0/24"}}
    other = plugin("bridge", elsewhere, netns=netns()).ok()["interfaces"][1]["name"]
    folder = {**CONF, "ipam": {**IPAM, "dataDir": "/var/lib/elsewhere"}}
    third = plugin("bridge", folder, netns=netns(), container="a").ok()["interfaces"][1]["name"]
    valid = [{"containerID": "b", "ifname": "eth0"}]
    plugin("bridge", {**CONF, "cni.dev/valid-attachments": valid}, "GC").ok()
    assert [name for name in made if link(made[name])] == ["b"]
    assert link(other) is not None, "it belongs to another network"
    assert link(third) is not None, "its addresses are kept elsewhere"
    plugin("bridge", {**CONF, "cni.dev/attachments": []}, "GC").ok()
    assert link(made["b"]) is None


def test_status(plugin: Plugin, netns: MakeNetns) -> None:
    plugin("bridge", CONF, "STATUS").ok()
    tiny = {**CONF, "ipam": {"type": "host-local", "subnet": "10.1.0.0/30"}}
    plugin("bridge", tiny, netns=netns()).ok()
    assert plugin("bridge", tiny, "STATUS").failed(50)
    command("ip", "link", "add", "taken", "type", "veth", "peer", "name", "other")
    assert "/bridge" in plugin("bridge", {**CONF, "bridge": "taken"}, "STATUS").failed(50)


def test_a_chain_keeps_what_came_before(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    before = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": path}],
        "ips": [{"interface": 0, "address": "127.0.0.1/8"}],
        "dns": {"nameservers": ["9.9.9.9"]},
    }
    result = plugin("bridge", {**CONF, "prevResult": before}, netns=path).ok()
    assert [one["name"] for one in result["interfaces"]] == ["lo", "br0", result["interfaces"][2]["name"], "eth0"]
    assert [one["interface"] for one in result["ips"]] == [0, 3, 3]
    assert result["dns"] == {"nameservers": ["9.9.9.9"]}


def test_several_adds_at_once_make_one_bridge(plugin: Plugin, host: Host) -> None:
    paths = {f"c{number}": make_network(f"m{number}") for number in range(12)}
    found: dict[str, Any] = {}

    def run(name: str) -> None:
        found[name] = plugin("bridge", CONF, netns=paths[name], container=name)

    threads = [threading.Thread(target=run, args=(name,)) for name in paths]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    results = [one.ok() for one in found.values()]
    assert len({one["interfaces"][0]["mac"] for one in results}) == 1
    assert len({one["ips"][0]["address"] for one in results}) == len(paths)
    assert addresses("br0") == {"10.1.0.1/24", "fd00:1::1/64"}


def test_a_failed_add_gives_back_the_address(invoke: Invoke, netns: MakeNetns, host: Host) -> None:
    command("ip", "link", "add", "br0", "type", "veth", "peer", "name", "other")
    path = netns()
    with pytest.raises(Error) as caught:
        invoke("bridge", CONF, netns=path)
    assert (caught.value.code, caught.value.subject) == (TAKEN, "/bridge")
    assert link("eth0", path) is None
    leases = [key for key in host.traces() if key.startswith("file /var/lib/cni") and "10.1.0.2" in key]
    assert leases == []
