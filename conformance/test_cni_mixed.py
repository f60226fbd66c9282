"""A node changes its plugins while containers run: each implementation ends what the other began, on one data folder."""

from __future__ import annotations

import pytest

from conformance.cniplugins import host, ours, reference  # noqa: F401
from tests.support.audits import Audit
from tests.support.chains import Chain, Executables, bridge, host_local, subnet
from tests.support.networks import Host, make_network

# What both keep at places of their own (rules of masquerade and ports) is another matter.
_SHARED = bridge(subnet(1), ipMasq=False)


@pytest.fixture(params=["ocirt first", "reference first"])
def chains(request: pytest.FixtureRequest, ours: Executables, host: Host) -> tuple[Chain, Chain]:  # noqa: F811
    """The chain of who begins, and of who goes on."""
    del host
    pair = [Chain(one, "net", _SHARED) for one in (ours, reference())]
    first, second = pair if request.param == "ocirt first" else reversed(pair)
    second.results = first.results
    return first, second


def _addresses(network: str, chain: Chain) -> str:
    result = chain.results[network.rpartition("/")[2], "eth0"]
    address: str = result["ips"][0]["address"]
    return address


def test_del_by_the_other(chains: tuple[Chain, Chain]) -> None:
    """Link and address are free afterwards."""
    first, second = chains
    for chain in chains:
        chain.add("warm", make_network(f"warm-{chain.executables.name}")).ok()
        [answer.ok() for answer in chain.delete("warm", f"/run/netns/warm-{chain.executables.name}")]
    before = Audit.take()
    network = make_network("one")
    first.add("one", network).ok()
    for answer in second.delete("one", network):
        answer.ok()
    # The reference knows nothing of our rules; our GC does, and has nobody left to keep them for.
    for answer in next(chain for chain in chains if chain.executables.name == "ocirt").collect():
        answer.ok()
    assert before.changes() == []


def test_no_address_twice(chains: tuple[Chain, Chain]) -> None:
    """Both hand out addresses of one pool in turn, until it is empty; then what the other gave back is given again."""
    pool = {"type": "host-local", "name": "net", "cniVersion": "1.0.0", "ipam": host_local("10.99.5.0/28")}
    seen: dict[str, str] = {}
    for number in range(13):  # of sixteen the first, the last and the gateway are nobody's
        chain = chains[number % 2]
        result = chain.executables.invoke(pool, "ADD", f"c{number}", "/run/netns/none").ok()
        address = result["ips"][0]["address"]
        assert address not in seen
        seen[address] = f"c{number}"
    for chain in chains:
        assert chain.executables.invoke(pool, "ADD", "late", "/run/netns/none").rc == 1
    for number in range(13):
        chains[(number + 1) % 2].executables.invoke(pool, "DEL", f"c{number}").ok()
    for chain in (*chains, *chains):
        result = chain.executables.invoke(pool, "ADD", "last", "/run/netns/none", ifname=f"eth{len(seen)}").ok()
        seen[result["ips"][0]["address"] + " again"] = "last"


def test_check_by_the_reference(ours: Executables, host: Host) -> None:  # noqa: F811
    """What we made passes for good with the reference. Ours knows its links by their names, and the reference names others."""
    del host
    first, second = (Chain(one, "net", _SHARED) for one in (ours, reference()))
    second.results = first.results
    network = make_network("one")
    first.add("one", network).ok()
    for answer in (*second.check("one", network), *second.delete("one", network)):
        answer.ok()
