"""Packets through what the plugins make: ours, then the reference, by the same tests."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.cniplugins import host, ours, plugins  # noqa: F401
from tests.support.chains import Chain, Executables, bridge, portmap, subnet
from tests.support.networks import Host, command, make_network
from tests.support.runtime import wait_for
from tests.support.traffic import EDGE, HERE, OUTSIDE, REFUSAL, outside, ping, rate, reach, server

_BOTH = (subnet(1), "fd99:1::/64")


class Containers:
    """Containers on one network, with their addresses."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.addresses: dict[str, dict[int, str]] = {}

    def add(self, name: str) -> str:
        """A new one; its network namespace."""
        network = make_network(name)
        result = self.chain.add(name, network).ok()
        found = [one["address"].partition("/")[0] for one in result["ips"]]
        self.addresses[network] = {6 if ":" in one else 4: one for one in found}
        return network

    def remove(self) -> None:
        """All of them."""
        for network in self.addresses:
            for answer in self.chain.delete(network.rpartition("/")[2], network):
                answer.ok()


@pytest.fixture
def containers(plugins: Executables, host: Host) -> Any:  # noqa: F811
    """Make networks; their containers are removed at the end."""
    made: list[Containers] = []

    def make(*chain: dict[str, Any], network: str = "net") -> Containers:
        made.append(Containers(Chain(plugins, network, *chain)))
        return made[-1]

    yield make
    for one in made:
        one.remove()


@pytest.mark.parametrize("version", [4, 6])
def test_neighbours(containers: Any, version: int) -> None:
    """Two containers reach each other, and the host reaches them, by their own addresses."""
    net = containers(bridge(*_BOTH))
    one, two = net.add("one"), net.add("two")
    assert ping(one, net.addresses[two][version])
    assert ping(HERE, net.addresses[one][version])
    for protocol in ("tcp", "udp"):
        with server(two, 80, protocol, version) as listening:
            assert reach(one, net.addresses[two][version], 80, listening) == net.addresses[one][version]


@pytest.mark.parametrize("version", [4, 6])
def test_masquerade(containers: Any, version: int) -> None:
    """The outside sees the host's address; without ipMasq no answer finds its way back."""
    far = outside()
    net = containers(bridge(*_BOTH))
    one = net.add("one")
    assert ping(one, OUTSIDE[version])
    with server(far, 80, version=version) as listening:
        assert reach(one, OUTSIDE[version], 80, listening) == EDGE[version]
    plain = containers(bridge(subnet(2), "fd99:2::/64", bridge="br1", ipMasq=False), network="plain")
    assert not ping(plain.add("two"), OUTSIDE[version], patience=REFUSAL)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6])
def test_published_ports(containers: Any, version: int, protocol: str) -> None:
    """From the outside, from the host, from another container and from the container itself."""
    far = outside()
    net = containers(bridge(*_BOTH, hairpinMode=True), portmap((8080, 80, protocol)))
    one = net.add("one")
    with server(one, 80, protocol, version) as listening:
        assert reach(far, EDGE[version], 8080, listening) == OUTSIDE[version]
        assert reach(HERE, EDGE[version], 8080, listening)
        assert reach(one, EDGE[version], 8080, listening)
        two = Containers(Chain(net.chain.executables, "net", net.chain.plugins[0]))
        assert reach(two.add("two"), EDGE[version], 8080, listening)
        two.remove()
        if version == 4:  # the kernel routes no ::1 out of the host
            assert reach(HERE, "127.0.0.1", 8080, listening)
    net.remove()
    net.addresses.clear()
    with server(HERE, 8080, protocol, version) as listening:
        assert reach(far, EDGE[version], 8080, listening) == OUTSIDE[version]


def test_a_published_port_of_one_address(containers: Any) -> None:
    """With hostIP the port is there and at no other address."""
    far = outside()
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": EDGE[4]}]
    net = containers(bridge(subnet(1)), {**portmap(), "runtimeConfig": {"portMappings": ports}})
    with server(net.add("one"), 80) as listening:
        assert reach(far, EDGE[4], 8080, listening) == OUTSIDE[4]
        assert not reach(HERE, "127.0.0.1", 8080, listening, patience=REFUSAL)


def test_a_policy_against_other_bridges(containers: Any) -> None:
    """same-bridge: neighbours talk, other networks do not come in."""
    policy = {"type": "firewall", "ingressPolicy": "same-bridge"}
    net = containers(bridge(subnet(1)), policy)
    other = containers(bridge(subnet(2), bridge="br1"), policy, network="other")
    one, two, stranger = net.add("one"), net.add("two"), other.add("stranger")
    assert ping(one, net.addresses[two][4])
    assert not ping(stranger, net.addresses[one][4], patience=REFUSAL)
    assert not ping(one, other.addresses[stranger][4], patience=REFUSAL)
    assert ping(HERE, net.addresses[one][4])


def test_isolated_ports(containers: Any) -> None:
    """portIsolation: containers reach the host and not each other."""
    net = containers(bridge(subnet(1), portIsolation=True))
    one, two = net.add("one"), net.add("two")
    assert ping(one, "10.99.1.1")
    assert not ping(one, net.addresses[two][4], patience=REFUSAL)


def test_forwarding_is_let_through(containers: Any) -> None:
    """firewall: where forwarded packets are dropped, those of containers are not."""
    far = outside()
    # A chain of the kind that docker and ufw make.
    command("iptables", "-P", "FORWARD", "DROP")
    net = containers(bridge(subnet(1)), {"type": "firewall", "backend": "iptables"})
    one = net.add("one")
    with server(far, 80) as listening:
        assert reach(one, OUTSIDE[4], 80, listening) == EDGE[4]


def test_spoofed_addresses_are_dropped(containers: Any) -> None:
    """macspoofchk: with another hardware address nothing gets out of a container."""
    net = containers(bridge(subnet(1), macspoofchk=True))
    one = net.add("one")
    assert ping(one, "10.99.1.1")
    command("ip", "link", "set", "eth0", "address", "02:00:00:00:00:77", network=one)
    command("ip", "route", "replace", "default", "via", "10.99.1.1", network=one)
    assert not ping(one, "10.99.1.1", patience=REFUSAL)


@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_bandwidth(containers: Any, direction: str, capsys: pytest.CaptureFixture[str]) -> None:
    """20 Mbit/s mean no more than that; the other direction is as fast as ever."""
    limit = 20_000_000
    rates = {f"{direction}Rate": limit, f"{direction}Burst": limit // 20}
    net = containers(bridge(subnet(1)), {"type": "bandwidth", **rates})
    one = net.add("one")
    there = net.addresses[one][4]
    ways = {"ingress": (HERE, one, there), "egress": (one, HERE, "10.99.1.1")}
    slow = rate(*ways.pop(direction), 4_000_000)
    (other,) = ways.values()

    quick = 0.0

    def is_quick() -> bool:
        nonlocal quick
        quick = rate(*other, 4_000_000)
        return quick > 2 * limit

    wait_for(is_quick, "the other direction")  # a busy machine makes it slower, too, but not for good
    with capsys.disabled():
        print(f"\n  {direction} ≤ 20 Mbit/s: {slow / 1e6:.1f}; the other direction: {quick / 1e6:.1f}", end="")
    assert slow < 1.2 * limit
