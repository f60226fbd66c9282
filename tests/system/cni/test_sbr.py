"""The plugin sbr: what comes from an address of the container's link leaves by that link."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, KERNEL, UNSUPPORTED_FIELD
from tests.support.networks import command, routes
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

DUAL = ["10.8.0.2/24", "fd08::2/64"]
GATEWAYS = {"10.8.0.2/24": "10.8.0.1", "fd08::2/64": "fd08::1", "10.8.1.2/24": "10.8.1.1"}


def attach(path: str, *addresses: str, name: str = "net1") -> dict[str, Any]:
    """A link with addresses and default routes in the container, as a plugin before sbr makes it; its result."""
    command("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", network=path)
    for one in ("lo", f"{name}p", name):
        command("ip", "link", "set", one, "up", network=path)
    for one in addresses:
        command("ip", "addr", "add", one, "dev", name, *(["nodad"] if ":" in one else []), network=path)
    for one in addresses[:2]:
        command("ip", "route", "add", "default", "via", GATEWAYS[one], "dev", name, network=path)
    return {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "other"}, {"name": name, "sandbox": path}],
        "ips": [{"address": one, "gateway": GATEWAYS[one], "interface": 1} for one in addresses],
        "dns": {},
    }


def rules(path: str) -> set[str]:
    """The rules that lead from an address to a table."""
    found = set()
    for version in ("-4", "-6"):
        for one in json.loads(command("ip", version, "-j", "rule", network=path)):
            if one["src"] != "all":
                found.add(f"{one['src']} to {one['table']}")
    return found


def way(path: str, source: str, target: str) -> str:
    """The gateway and link by which packets of this source go."""
    (found,) = json.loads(command("ip", "-j", "route", "get", target, "from", source, network=path))
    return f"{found.get('gateway', '-')} {found['dev']}"


def run(plugin: Plugin, path: str, previous: dict[str, Any], command: str = "ADD", **conf: Any) -> dict[str, Any]:
    """Call it for the container's link `net1`."""
    return plugin("sbr", {**conf, "prevResult": previous}, command, netns=path, ifname="net1").ok()


def test_each_address_has_a_table(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    assert run(plugin, path, previous) == previous
    assert rules(path) == {"10.8.0.2 to 100", "fd08::2 to 101"}
    assert routes(path, "100") == {"10.8.0.0/24 dev net1", "default via 10.8.0.1 dev net1"}
    assert routes(path, "101") == {"fd08::/64 dev net1", "default via fd08::1 dev net1"}
    assert {one for one in routes(path) if "net1 " in f"{one} "} == set()
    assert "fe80::/64" in command("ip", "-6", "route", "show", "dev", "net1", network=path), "neighbours are still found"
    assert way(path, "10.8.0.2", "192.0.2.1") == "10.8.0.1 net1"
    assert way(path, "fd08::2", "2001:db8::1") == "fd08::1 net1"
    run(plugin, path, previous, "CHECK")


def test_two_links_of_a_container(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    first = attach(path, "10.8.0.2/24")
    run(plugin, path, first)
    second = attach(path, "10.8.1.2/24", name="net2")
    plugin("sbr", {"prevResult": second}, netns=path, ifname="net2", container="c1").ok()
    assert rules(path) == {"10.8.0.2 to 100", "10.8.1.2 to 101"}
    assert way(path, "10.8.0.2", "192.0.2.1") == "10.8.0.1 net1"
    assert way(path, "10.8.1.2", "192.0.2.1") == "10.8.1.1 net2"
    run(plugin, path, first, "DEL")
    assert rules(path) == {"10.8.1.2 to 101"}
    assert routes(path, "101") == {"10.8.1.0/24 dev net2", "default via 10.8.1.1 dev net2"}


def test_two_addresses_of_one_network(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, "10.8.0.2/24")
    command("ip", "addr", "add", "10.8.0.3/24", "dev", "net1", network=path)
    previous["ips"].append({"address": "10.8.0.3/24", "gateway": "10.8.0.1", "interface": 1})
    run(plugin, path, previous)
    assert rules(path) == {"10.8.0.2 to 100", "10.8.0.3 to 101"}
    for source in ("10.8.0.2", "10.8.0.3"):
        assert way(path, source, "192.0.2.1") == "10.8.0.1 net1"
        assert way(path, source, "10.8.0.9") == "- net1"


def test_routes_with_all_that_they_have(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, "10.8.0.2/24")
    command("ip", "route", "add", "192.0.2.0/24", "via", "10.8.0.9", "dev", "net1", "metric", "7", "mtu", "1400", network=path)
    command("ip", "route", "add", "198.51.100.0/24", "via", "10.99.0.1", "dev", "net1", "onlink", network=path)
    run(plugin, path, previous)
    shown = command("ip", "route", "show", "table", "100", network=path)
    assert "192.0.2.0/24 via 10.8.0.9 dev net1 metric 7 mtu 1400" in shown
    # Its gateway is of no network of the address, so it belongs to another one.
    assert "198.51.100.0/24" not in shown


def test_the_first_free_table(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    command("ip", "rule", "add", "from", "192.0.2.1", "table", "100", network=path)
    command("ip", "-6", "route", "add", "2001:db8::/64", "dev", "net1p", "table", "101", network=path)
    run(plugin, path, previous)
    assert rules(path) == {"192.0.2.1 to 100", "10.8.0.2 to 102", "fd08::2 to 103"}
    run(plugin, path, previous, "DEL")
    assert rules(path) == {"192.0.2.1 to 100"}
    assert routes(path, "101") == {"2001:db8::/64 dev net1p"}


def test_a_table_that_somebody_fills(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    before = routes(path)
    run(plugin, path, previous, table=5)
    assert rules(path) == {"10.8.0.2 to 5", "fd08::2 to 5"}
    assert routes(path) == before
    run(plugin, path, previous, "CHECK", table=5)
    run(plugin, path, previous, "DEL", table=5)
    assert rules(path) == set()
    assert routes(path) == before


def test_gateways(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    run(plugin, path, previous, gateways=["fd08::9", "10.8.0.9"])
    assert way(path, "10.8.0.2", "192.0.2.1") == "10.8.0.9 net1"
    assert "default via fd08::9 dev net1" in routes(path, "101")


def test_without_a_gateway(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, "10.8.0.2/24")
    command("ip", "route", "del", "default", network=path)
    del previous["ips"][0]["gateway"]
    run(plugin, path, previous)
    assert routes(path, "100") == {"10.8.0.0/24 dev net1"}
    run(plugin, path, previous, "CHECK")


def test_source_hints(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    run(plugin, path, previous, addSourceHints=True)
    assert "default via 10.8.0.1 dev net1" in routes(path, "100")
    assert routes(path) == {"10.8.0.0/24 dev net1", "fd08::/64 dev net1"}
    assert "10.8.0.0/24 dev net1 scope link src 10.8.0.2" in command("ip", "route", network=path)
    assert "fd08::/64 dev net1 src fd08::2" in command("ip", "-6", "route", network=path)
    run(plugin, path, previous, "CHECK", addSourceHints=True)


def test_addresses_of_other_links_are_left_alone(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, "10.8.0.2/24")
    previous["ips"] = [{"address": "10.1.0.2/24", "interface": 0}, {"address": "10.8.0.2/24", "gateway": "10.8.0.1"}]
    run(plugin, path, previous)
    assert rules(path) == {"10.8.0.2 to 100"}


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({"table": 0}, INVALID_CONFIG, "/table: 0 is not between 1 and 4294967295"),
        ({"table": "x"}, INVALID_CONFIG, "/table: this is not a number"),
        ({"table": 5, "gateways": ["10.8.0.9"]}, INVALID_CONFIG, "/gateways: with `table` the routes are left as they are"),
        ({"table": 5, "addSourceHints": True}, INVALID_CONFIG, "/addSourceHints: "),
        ({"gateways": ["10.8.0.9", "10.8.0.8"]}, INVALID_CONFIG, "/gateways/1: there is one for IPv4 already, 10.8.0.9"),
        ({"gateways": ["nonsense"]}, INVALID_CONFIG, "/gateways/0: 'nonsense' is not an IP address"),
        ({"gateways": [7]}, INVALID_CONFIG, "/gateways/0: 7 is not an IP address"),
        ({"gateway": "10.8.0.9"}, UNSUPPORTED_FIELD, "/gateway: sbr has no such field"),
    ],
)
def test_wrong_configurations(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], code: int, message: str) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    before = routes(path)
    done = plugin("sbr", {**conf, "prevResult": previous}, netns=path, ifname="net1")
    assert done.failed(code).startswith(message)
    assert (rules(path), routes(path)) == (set(), before)
    assert plugin("sbr", conf, "STATUS").failed(code).startswith(message)


def test_alone_and_without_addresses(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    assert plugin("sbr", {}, netns=path).failed(INVALID_CONFIG).startswith("/prevResult: ")
    message = plugin("sbr", {"prevResult": {"cniVersion": "1.1.0"}}, netns=path).failed(INVALID_CONFIG)
    assert message == "/prevResult/ips: the previous result has no addresses"
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.8.0.2/24"}]}
    assert plugin("sbr", {"prevResult": previous}, netns=path).failed(INVALID_CONFIG).startswith("eth0: ")


@pytest.mark.parametrize("hints", [False, True])
def test_a_failed_add_leaves_nothing(plugin: Plugin, netns: MakeNetns, hints: bool) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    before = command("ip", "route", network=path), routes(path)
    # The last gateway is out of reach, when the IPv4 part is done already.
    conf = {"gateways": ["2001:db8::1"], "addSourceHints": hints, "prevResult": previous}
    plugin("sbr", conf, netns=path, ifname="net1").failed(KERNEL)
    assert rules(path) == set()
    assert routes(path, "100") == routes(path, "101") == set()
    assert routes(path) == before[1]


def test_del(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    run(plugin, path, previous)
    command("ip", "rule", "add", "from", "10.8.0.2", "table", "7", network=path)
    for _ in range(2):
        run(plugin, path, previous, "DEL")
        assert rules(path) == {"10.8.0.2 to 7"}, "somebody else's"
        assert routes(path, "100") == set()
    for gone in ("", "/run/netns/gone"):
        plugin("sbr", {}, "DEL", netns=gone, ifname="net1").ok()


def test_del_without_result(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    run(plugin, path, attach(path, *DUAL))
    plugin("sbr", {}, "DEL", netns=path, ifname="net1").ok()
    assert rules(path) == set()


def test_del_without_link_or_result(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    run(plugin, path, attach(path, *DUAL))
    command("ip", "link", "del", "net1", network=path)
    plugin("sbr", {}, "DEL", netns=path, ifname="net1").ok()
    assert rules(path) == set()


def test_del_of_a_caller_that_drops_the_namespace(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    invoke("sbr", {"prevResult": previous}, netns=path, ifname="net1")
    invoke("sbr", {"prevResult": previous}, "DEL", netns=path, ifname="net1", lazy=True)
    assert rules(path) != set()


def test_check_says_what_is_wrong(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    previous = attach(path, *DUAL)
    run(plugin, path, previous)

    def check(**conf: Any) -> str:
        return plugin("sbr", {**conf, "prevResult": previous}, "CHECK", netns=path, ifname="net1").failed(CHECK_FAILED)

    assert check(table=7) == "10.8.0.2: there is no rule for it"
    command("ip", "-6", "route", "flush", "table", "101", network=path)
    assert check() == "fd08::2: its table 101 has no routes"
    command("ip", "rule", "del", "from", "10.8.0.2", network=path)
    assert check() == "10.8.0.2: there is no rule for it"


def test_status_and_gc(plugin: Plugin) -> None:
    plugin("sbr", {"gateways": ["10.8.0.1"]}, "STATUS").ok()
    plugin("sbr", {"cni.dev/valid-attachments": []}, "GC").ok()
