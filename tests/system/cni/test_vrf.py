"""The plugin vrf: the container's link in a routing domain. Needs a kernel with them, as the virtual machine's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, TAKEN, UNSUPPORTED, UNSUPPORTED_FIELD
from tests.support.isolation import Isolation
from tests.support.links import has_kind, need_kind, refuse_kind
from tests.support.networks import addresses, command, link, routes
from tests.system.cni.conftest import MakeNetns, Plugin


@pytest.fixture(scope="module", autouse=True)
def _loaded(isolation: Isolation) -> None:
    """The kernel's module brings a sysctl, which is no leak of the test that needs the module first."""
    del isolation
    has_kind("vrf")


def attach(path: str, name: str = "eth0", number: int = 1) -> dict[str, Any]:
    """A link with addresses and routes in the container, as a plugin before vrf makes it; its result."""
    command("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p", network=path)
    for one in ("lo", f"{name}p", name):
        command("ip", "link", "set", one, "up", network=path)
    command("ip", "addr", "add", f"10.{number}.0.2/24", "dev", name, network=path)
    command("ip", "addr", "add", f"fd0{number}::2/64", "dev", name, "nodad", network=path)
    command("ip", "route", "add", f"192.0.{number}.0/24", "via", f"10.{number}.0.1", "dev", name, "metric", "7", network=path)
    command("ip", "route", "add", f"2001:db8:{number}::/64", "via", f"fd0{number}::1", "dev", name, network=path)
    return {"cniVersion": "1.1.0", "interfaces": [{"name": name, "sandbox": path}], "dns": {}}


def found(path: str, name: str) -> dict[str, Any]:
    """A link of the container's as `ip` shows it."""
    one = link(name, path)
    assert one is not None, f"there is no {name}"
    return one


def test_a_kernel_without_it(plugin: Plugin, netns: MakeNetns) -> None:
    refuse_kind("vrf")
    path = netns()
    previous = attach(path)
    before = routes(path)
    done = plugin("vrf", {"vrfname": "blue", "prevResult": previous}, netns=path)
    assert done.failed(UNSUPPORTED) == "/type: this kernel has no links of the kind vrf"
    assert done.answer is not None
    assert done.answer["details"] == "it takes a kernel with CONFIG_NET_VRF, and its module vrf if that is built as one"
    plugin("vrf", {"vrfname": "blue"}, "STATUS").failed(NOT_AVAILABLE)
    for where in (path, ""):
        plugin("vrf", {"vrfname": "blue", "prevResult": previous}, "DEL", netns=where).ok()
    assert routes(path) == before


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({}, INVALID_CONFIG, "/vrfname: it is missing"),
        ({"vrfname": "a/b"}, INVALID_CONFIG, "/vrfname: 'a/b' cannot be the name of an interface"),
        ({"vrfname": "x" * 16}, INVALID_CONFIG, "/vrfname: "),
        ({"vrfname": "blue", "table": -1}, INVALID_CONFIG, "/table: -1 is not between"),
        ({"vrfname": "eth0"}, TAKEN, "/vrfname: the container has a link of this name that is no vrf"),
        ({"vrfname": "blue", "prevResult": None}, INVALID_CONFIG, "/prevResult: vrf comes after another plugin"),
        ({"vrf": "blue"}, UNSUPPORTED_FIELD, "/vrf: vrf has no such field"),
    ],
)
def test_wrong_configurations(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], code: int, message: str) -> None:
    path = netns()
    previous = attach(path)
    assert plugin("vrf", {"prevResult": previous, **conf}, netns=path).failed(code).startswith(message)


@pytest.mark.parametrize("table", [0, 42])
def test_in_and_out(plugin: Plugin, netns: MakeNetns, table: int) -> None:
    need_kind("vrf")
    path = netns()
    previous = attach(path)
    conf = {"vrfname": "blue", "prevResult": previous, **({"table": table} if table else {})}
    assert plugin("vrf", conf, netns=path).ok() == previous
    domain = found(path, "blue")
    assert (domain["linkinfo"]["info_kind"], domain["linkinfo"]["info_data"]["table"]) == ("vrf", table or 1)
    assert "UP" in domain["flags"]
    assert found(path, "eth0")["master"] == "blue"
    assert addresses("eth0", path) == {"10.1.0.2/24", "fd01::2/64"}
    expected = {
        "10.1.0.0/24 dev eth0",
        "192.0.1.0/24 via 10.1.0.1 dev eth0",
        "fd01::/64 dev eth0",
        "2001:db8:1::/64 via fd01::1 dev eth0",
    }
    assert expected <= routes(path, str(table or 1))
    plugin("vrf", conf, "CHECK", netns=path).ok()
    for _ in range(2):
        plugin("vrf", conf, "DEL", netns=path).ok()
        assert link("blue", path) is None
        assert "master" not in found(path, "eth0")


def test_two_links_in_one_domain(plugin: Plugin, netns: MakeNetns) -> None:
    need_kind("vrf")
    path = netns()
    first, second = attach(path), attach(path, "eth1", 2)
    plugin("vrf", {"vrfname": "blue", "prevResult": first}, netns=path).ok()
    message = plugin("vrf", {"vrfname": "blue", "table": 9, "prevResult": second}, netns=path, ifname="eth1").failed(TAKEN)
    assert message == "/table: blue is there with the table 1"
    plugin("vrf", {"vrfname": "blue", "prevResult": second}, netns=path, ifname="eth1").ok()
    assert plugin("vrf", {"vrfname": "red", "prevResult": second}, netns=path, ifname="eth1").failed(TAKEN).startswith("eth1: ")
    assert link("red", path) is None
    plugin("vrf", {"vrfname": "blue"}, "DEL", netns=path).ok()
    assert found(path, "eth1")["master"] == "blue"
    plugin("vrf", {"vrfname": "blue"}, "DEL", netns=path, ifname="eth1").ok()
    assert link("blue", path) is None


def test_two_domains(plugin: Plugin, netns: MakeNetns) -> None:
    need_kind("vrf")
    path = netns()
    for name, ifname, number in (("blue", "eth0", 1), ("red", "eth1", 2)):
        plugin("vrf", {"vrfname": name, "prevResult": attach(path, ifname, number)}, netns=path, ifname=ifname).ok()
    assert [found(path, name)["linkinfo"]["info_data"]["table"] for name in ("blue", "red")] == [1, 2]


def test_a_domain_of_somebody_else(plugin: Plugin, netns: MakeNetns) -> None:
    need_kind("vrf")
    path = netns()
    command("ip", "link", "add", "blue", "type", "vrf", "table", "9", network=path)
    conf = {"vrfname": "blue", "prevResult": attach(path)}
    plugin("vrf", conf, netns=path).ok()
    plugin("vrf", conf, "DEL", netns=path).ok()
    assert found(path, "blue")["linkinfo"]["info_data"]["table"] == 9


def test_check_says_what_is_wrong(plugin: Plugin, netns: MakeNetns) -> None:
    need_kind("vrf")
    path = netns()
    conf = {"vrfname": "blue", "prevResult": attach(path)}
    plugin("vrf", conf, netns=path).ok()
    assert plugin("vrf", {**conf, "table": 9}, "CHECK", netns=path).failed(CHECK_FAILED) == "blue: its table is 1, not 9"
    command("ip", "link", "set", "eth0", "nomaster", network=path)
    assert plugin("vrf", conf, "CHECK", netns=path).failed(CHECK_FAILED) == "eth0: it is not in blue"
    command("ip", "link", "del", "blue", network=path)
    assert plugin("vrf", conf, "CHECK", netns=path).failed(CHECK_FAILED) == "blue: the container has no such link"
    plugin("vrf", conf, "STATUS").ok()
