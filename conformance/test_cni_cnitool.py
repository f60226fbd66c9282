"""cnitool, which is libcni and nothing else, with lists of plugins: ours, then the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance.cnicases import VERSIONS
from conformance.cniplugins import host, nothing_left, ours, plugins, programs  # noqa: F401
from conformance.drivers import call
from tests.support.audits import STATE, Audit, drop
from tests.support.chains import Executables, bridge, subnet
from tests.support.networks import Host, make_network
from tests.support.runtime import Result
from tests.support.traffic import EDGE, OUTSIDE, outside, ping, reach, server

_BOTH = (subnet(1), "fd99:1::/64")
_CHAIN: tuple[dict[str, Any], ...] = (
    bridge(_BOTH[0], capabilities={"ips": True}),
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
)


class Cnitool:
    """cnitool with a folder of network lists, and executables of one implementation."""

    def __init__(self, executables: Executables, place: Path) -> None:
        self.executables = executables
        self.place = place
        self.program = programs() / "cnitool"
        self.env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(place), "CNI_PATH": str(executables.directory)}

    def network(self, *chain: dict[str, Any], name: str = "net", version: str = "1.0.0") -> None:
        """Write a list."""
        document = {"cniVersion": version, "name": name, "plugins": chain}
        (self.place / f"{name}.conflist").write_text(json.dumps(document))

    def call(self, verb: str, network: str, *, name: str = "net", **env: str) -> Result:
        """One call; `network` is the namespace."""
        argv = [str(self.program), verb, name, network]
        return call(argv, env={**self.env, "NETCONFPATH": str(self.place), **env})

    def add(self, network: str, **options: str) -> Any:
        """`add`, which has to succeed; its result."""
        return self.call("add", network, **options).ok().json()


@pytest.fixture
def cnitool(plugins: Executables, host: Host, tmp_path: Path) -> Cnitool:  # noqa: F811
    """cnitool with the list of most tests; what is made once and stays is there already."""
    place = tmp_path / "net.d"
    place.mkdir()
    made = Cnitool(plugins, place)
    ports = [{"hostPort": 1, "containerPort": 1, "protocol": "tcp"}]
    first = make_network("first")
    for addresses in (_BOTH, _BOTH[:1]):
        made.network(bridge(*addresses, capabilities={"ips": True}), *_CHAIN[1:])
        made.add(first, CAP_ARGS=json.dumps({"portMappings": ports}))
        made.call("del", first).ok()
    drop(first)
    return made


def _cached() -> list[str]:
    return sorted(path.name for path in (STATE / "results").iterdir())


def test_life(cnitool: Cnitool) -> None:
    """add, check, del, del again; traffic in between, and nothing left."""
    far = outside()
    network = make_network("one")
    before = Audit.take()
    result = cnitool.add(network)
    assert [one["name"] for one in result["interfaces"]][::2] == ["br0", "eth0"]
    assert result["interfaces"][2]["sandbox"] == network
    assert result["ips"][0]["gateway"] == "10.99.1.1"
    assert len(_cached()) == 1
    cnitool.call("check", network).ok()
    with server(far, 80) as listening:
        assert reach(network, OUTSIDE[4], 80, listening) == EDGE[4]
    cnitool.call("del", network).ok()
    cnitool.call("del", network).ok()
    assert _cached() == []
    nothing_left(cnitool.executables, before)


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(cnitool: Cnitool, version: str) -> None:
    """A list of any version: the result has its form."""
    cnitool.network(bridge(*_BOTH), _CHAIN[1], version=version)
    network = make_network("one")
    before = Audit.take()
    ports = json.dumps({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]})
    result = cnitool.add(network, CAP_ARGS=ports)
    assert result["cniVersion"] == version
    if version < "0.3.0":
        assert result["ip4"]["ip"].startswith("10.99.1.")
        assert result["ip6"]["ip"].startswith("fd99:1::")
    else:
        # The addresses come in the order of the ranges, with their version in the forms before 1.0.0.
        assert [one.get("version") for one in result["ips"]] == (["4", "6"] if version < "1.0.0" else [None, None])
    if version >= "0.4.0":
        cnitool.call("check", network, CAP_ARGS=ports).ok()
    cnitool.call("del", network, CAP_ARGS=ports).ok()
    nothing_left(cnitool.executables, before)


def test_what_a_runtime_hands_over(cnitool: Cnitool) -> None:
    """CAP_ARGS: ports and an address; CNI_ARGS of Kubernetes; another name of the interface."""
    far = outside()
    network = make_network("one")
    capabilities = {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "ips": ["10.99.1.77"],
    }
    settings = {
        "CAP_ARGS": json.dumps(capabilities),
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
        "CNI_IFNAME": "net7",
    }
    before = Audit.take()
    result = cnitool.add(network, **settings)
    assert (result["interfaces"][2]["name"], result["ips"][0]["address"]) == ("net7", "10.99.1.77/24")
    with server(network, 80) as listening:
        assert reach(far, EDGE[4], 8080, listening) == OUTSIDE[4]
    cnitool.call("check", network, **settings).ok()
    cnitool.call("del", network, **settings).ok()
    nothing_left(cnitool.executables, before)


def test_two_interfaces(cnitool: Cnitool) -> None:
    """One container on two networks; each goes by itself."""
    cnitool.network(bridge(subnet(2), bridge="br1", ipam={**bridge(subnet(2))["ipam"], "routes": []}), name="second")
    network = make_network("one")
    cnitool.add(network)
    cnitool.add(network, name="second", CNI_IFNAME="eth1")
    assert ping(network, "10.99.1.1")
    assert ping(network, "10.99.2.1")
    cnitool.call("del", network).ok()
    assert ping(network, "10.99.2.1")
    cnitool.call("del", network, name="second", CNI_IFNAME="eth1").ok()


def test_a_failed_add_leaves_nothing(cnitool: Cnitool) -> None:
    """The last plugin fails; del, as a runtime calls it then, undoes the rest."""
    cnitool.network(*_CHAIN[:3], {"type": "tuning", "sysctl": {"net.ipv4.no_such_sysctl": "1"}})
    network = make_network("one")
    before = Audit.take()
    cnitool.call("add", network).failed(rc=1)
    cnitool.call("del", network).ok()
    nothing_left(cnitool.executables, before, "its firewall plugin has the addresses from the result alone, and there is none")


def test_status_and_gc(cnitool: Cnitool) -> None:
    """status of a network that works; gc without attachments ends all that libcni knows of."""
    cnitool.network(*_CHAIN, version="1.1.0")
    network = make_network("one")
    before = Audit.take()
    cnitool.call("status", network).ok()
    cnitool.add(network)
    cnitool.call("gc", network).ok()
    assert _cached() == []
    nothing_left(cnitool.executables, before)
