"""Many containers at once on one network: each has an address of its own, no call fails, nothing is left."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocirt_cni.plugins import PLUGINS
from tests.support.audits import Audit, drop
from tests.support.chains import Chain, Executables, bridge, portmap, subnet
from tests.support.networks import Host, make_network
from tests.support.runtime import lines

_PROCESSES = 8  # at once
_CONTAINERS = 200
_BOTH = (subnet(1), "fd99:1::/64")


def _chain(executables: Executables, number: int) -> Chain:
    """With a port of the host for this container alone."""
    return Chain(executables, "net", bridge(*_BOTH), portmap((10_000 + number, 80, "tcp")), version="1.1.0")


@pytest.fixture
def executables(host: Host, tmp_path: Path) -> Executables:
    """Ours; what is made once and stays is there already."""
    del host
    made = Executables.ours(tmp_path / "plugins", list(PLUGINS))
    chain, network = _chain(made, 9999), make_network("warm")
    chain.add("warm", network).ok()
    for answer in chain.delete("warm", network):
        answer.ok()
    drop(network)
    return made


def test_two_hundred_containers(executables: Executables, capsys: pytest.CaptureFixture[str]) -> None:
    """All are attached, eight at a time, then all detached, every second one without its namespace."""
    before = Audit.take()
    networks = [make_network(f"c{number}") for number in range(_CONTAINERS)]
    chains = [_chain(executables, number) for number in range(_CONTAINERS)]
    with ThreadPoolExecutor(_PROCESSES) as pool:  # each call is a process
        added = list(pool.map(lambda one: chains[one].add(f"c{one}", networks[one]), range(_CONTAINERS)))
        addresses = Counter(ip["address"] for answer in added for ip in answer.ok()["ips"])
        assert len(addresses) == 2 * _CONTAINERS, f"given twice: {[one for one, times in addresses.items() if times > 1]}"
        for number in range(0, _CONTAINERS, 2):
            drop(networks[number])
        deleted = pool.map(
            lambda one: chains[one].delete(f"c{one}", networks[one] if one % 2 else ""),
            range(_CONTAINERS),
        )
        errors = [str(answer.document) for answers in deleted for answer in answers if answer.rc]
    assert not errors, f"{len(errors)} calls of DEL failed:{lines(errors[:10])}"
    for number in range(1, _CONTAINERS, 2):
        drop(networks[number])
    assert before.changes() == []
    with capsys.disabled():
        print(f"\n  {_CONTAINERS} containers, {_PROCESSES} at once: {len(addresses)} addresses, each given once", end="")


def test_a_small_pool_under_pressure(executables: Executables) -> None:
    """Eight loops of ADD, CHECK and DEL on a /28: whoever comes gets an address, and none is held by two at a time."""
    lock = threading.Lock()
    held: Counter[str] = Counter()
    complaints: list[str] = []

    def turn(chain: Chain, name: str, network: str) -> None:
        answer = chain.add(name, network)
        if answer.rc:
            complaints.append(str(answer.document))
            return
        address = answer.document["ips"][0]["address"]
        with lock:
            held[address] += 1
            if held[address] > 1:
                complaints.append(f"{address} is held twice")
        complaints.extend(str(one.document) for one in chain.check(name, network) if one.rc)
        with lock:
            held[address] -= 1
        complaints.extend(str(one.document) for one in chain.delete(name, network) if one.rc)

    def loop(number: int, network: str, turns: int = 8) -> None:
        chain = Chain(executables, "small", bridge("10.99.9.0/28", bridge="br1"), version="1.1.0")
        for index in range(turns):
            turn(chain, f"l{number}-{index}", network)

    networks = [make_network(f"l{number}") for number in range(_PROCESSES)]
    loop(0, networks[0], 1)
    before = Audit.take()
    with ThreadPoolExecutor(_PROCESSES) as pool:
        list(pool.map(loop, range(_PROCESSES), networks))
    for network in networks:
        drop(network)
    assert not complaints, f"{len(complaints)} complaints:{lines(complaints[:10])}"
    left = before.changes()
    # That each address was given once is noted for as long as the network lives.
    assert [one for one in left if "/.ocirt/whole." not in one] == []


def test_gc_beside_add(executables: Executables) -> None:
    """GC of everything while others are attached: each ADD either stands afterwards or was swept away whole."""
    networks = [make_network(f"g{number}") for number in range(24)]
    chains = [_chain(executables, number) for number in range(len(networks))]
    with ThreadPoolExecutor(_PROCESSES) as pool:
        sweeps = [pool.submit(chains[0].collect) for _ in range(8)]
        added = list(pool.map(lambda one: chains[one].add(f"g{one}", networks[one]), range(len(networks))))
        for sweep in sweeps:
            for answer in sweep.result():
                answer.ok()
        for number, answer in enumerate(added):
            # What failed, failed because its link or address was taken from under it; no call may break in any other way.
            assert answer.rc in (0, 1), answer
            for one in chains[number].delete(f"g{number}", networks[number]):
                one.ok()
    for network in networks:
        drop(network)
    for answer in chains[0].collect():
        answer.ok()
