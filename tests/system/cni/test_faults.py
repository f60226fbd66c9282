"""What goes wrong around a plugin: containers, links, rules and the machine go away, the disk is full, the pool is empty."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.plugins import PLUGINS
from tests.support.audits import Audit, drop, forget_reboots, reboot
from tests.support.chains import Answer, Chain, Executables, bridge, host_local, portmap, subnet
from tests.support.isolation import mount, umount
from tests.support.networks import Host, command, make_network
from tests.support.runtime import lines, wait_for

_NETWORK = bridge(subnet(1), "fd99:1::/64")
_CHAIN: tuple[dict[str, Any], ...] = (_NETWORK, portmap((8080, 80, "tcp"), (5353, 53, "udp")))


class Network:
    """The chain on this test's host, used once, so that what is made once is there."""

    def __init__(self, executables: Executables) -> None:
        self.executables = executables
        self.chain = Chain(executables, "net", *_CHAIN, version="1.1.0")
        network = make_network("warm")
        self.chain.add("warm", network).ok()
        self.delete("warm", network)
        drop(network)
        self.before = Audit.take()

    def add(self, container: str = "c1") -> str:
        """Attach a container; its namespace."""
        network = make_network(container)
        self.chain.add(container, network).ok()
        return network

    def delete(self, container: str, network: str = "", **options: Any) -> None:
        """DEL, which has to succeed."""
        for answer in self.chain.delete(container, network, **options):
            answer.ok()

    def nothing_left(self) -> None:
        """Fail for what is not as before the first container."""
        left = self.before.changes()
        assert not left, f"left on the host:{lines(left)}"


@pytest.fixture
def executables(host: Host, tmp_path: Path) -> Iterator[Executables]:
    """Ours."""
    del host
    yield Executables.ours(tmp_path / "plugins", list(PLUGINS))
    forget_reboots()


@pytest.fixture
def net(executables: Executables) -> Network:
    """A network that was used."""
    return Network(executables)


def _fill(path: Path) -> None:
    """Write to a file until the disk is full."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as err:
            assert err.errno == ENOSPC


@pytest.mark.parametrize("forgotten", [False, True], ids=["with the result", "without the result"])
def test_del_without_namespace(net: Network, forgotten: bool) -> None:
    """The container is gone, and its namespace with it."""
    drop(net.add())
    net.delete("c1", forgotten=forgotten)
    net.nothing_left()


def test_del_while_the_namespace_is_there_and_not_named(net: Network) -> None:
    """CNI_NETNS is empty, and somebody still holds the namespace: links go all the same."""
    network = net.add()
    net.delete("c1")
    drop(network)
    net.nothing_left()


@pytest.mark.parametrize("times", [2, 3])
def test_del_again(net: Network, times: int) -> None:
    """The second DEL finds nothing and is content, with the namespace and without."""
    network = net.add()
    for number in range(times):
        net.delete("c1", network if number < 2 else "")
    drop(network)
    net.nothing_left()


def test_del_of_nobody(net: Network) -> None:
    """A container that never was; the one beside it keeps what it has."""
    network = net.add()
    net.delete("stranger", "/run/netns/none")
    for answer in net.chain.check("c1", network):
        answer.ok()
    net.delete("c1", network)
    drop(network)
    net.nothing_left()


def test_after_a_reboot(net: Network) -> None:
    """The lease is of a boot before: DEL has nothing to do, the address is free, and the port can be published anew."""
    net.add()
    reboot()
    net.delete("c1", "/run/netns/c1")
    leases = [path.name for path in Path("/var/lib/cni/networks/net").iterdir() if path.name[0].isdigit()]
    assert leases == []
    network = net.add("c2")
    for answer in net.chain.check("c2", network):
        answer.ok()
    net.delete("c2", network)


def test_leases_of_a_boot_before_are_free(executables: Executables) -> None:
    """A pool that was full when the power failed is empty: nobody has to call DEL."""
    pool = {"cniVersion": "1.1.0", "name": "small", "type": "host-local", "ipam": host_local("10.99.5.0/29")}

    def add(name: str) -> Answer:
        return executables.invoke(pool, "ADD", name, "/run/netns/none")

    for number in range(5):
        add(f"c{number}").ok()
    assert add("late").code == 101
    reboot()
    for number in range(5):
        add(f"d{number}").ok()


def test_bridge_removed_under_us(net: Network) -> None:
    """Somebody deleted the bridge: DEL is content, the next ADD makes it again."""
    network = net.add()
    command("ip", "link", "delete", "br0")
    net.delete("c1", network)
    drop(network)
    other = net.add("c2")
    for answer in net.chain.check("c2", other):
        answer.ok()
    net.delete("c2", other)


def test_link_removed_under_us(net: Network) -> None:
    """Somebody deleted the container's link."""
    network = net.add()
    command("ip", "link", "delete", "eth0", network=network)
    net.delete("c1", network)
    drop(network)
    net.nothing_left()


def test_rules_removed_under_us(net: Network) -> None:
    """Somebody flushed all rules: CHECK says so, DEL is content, and the next ADD works."""
    network = net.add()
    command("nft", "flush", "ruleset")
    codes = [answer.code for answer in net.chain.check("c1", network)]
    assert 104 in codes
    net.delete("c1", network)
    drop(network)
    net.before = Audit.take()
    other = net.add("c2")
    for answer in net.chain.check("c2", other):
        answer.ok()
    net.delete("c2", other)
    drop(other)


def test_data_folder_removed_under_us(net: Network) -> None:
    """Somebody deleted the leases."""
    network = net.add()
    shutil.rmtree("/var/lib/cni/networks")
    net.delete("c1", network)
    drop(network)
    assert [one for one in net.before.changes(2) if "/var/lib/cni" not in one] == []


def test_records_removed_under_us(net: Network) -> None:
    """Somebody emptied what we keep in /run: rules are found by their owner all the same."""
    network = net.add()
    for path in Path("/run").iterdir():
        if path.name.startswith("ocirt"):
            shutil.rmtree(path)
    net.delete("c1", network)
    drop(network)
    left = [one for one in net.before.changes(2) if "/run/ocirt" not in one]
    # Who needs this sysctl of the bridge was in the records; without them nobody may take it away.
    assert not [one for one in left if "route_localnet" not in one], lines(left)


def test_disk_full(net: Network) -> None:
    """ADD says what is full and leaves nothing; DEL of who is there works all the same."""
    place = Path("/var/lib/cni/networks")
    umounted = place / "net"
    mount("tmpfs", str(umounted), "tmpfs", 0, "size=64k,mode=755")
    try:
        network = net.add()
        before = Audit.take()
        filler = umounted / "filler"
        _fill(filler)
        other = make_network("c2")
        answer = net.chain.add("c2", other)
        assert answer.code in (5, 100), answer
        assert "No space left" in answer.document["msg"], answer
        drop(other)
        assert before.changes() == [f"file: left behind: {filler}"]
        for one in net.chain.delete("c2"):
            one.ok()
        net.delete("c1", network)
        drop(network)
        filler.unlink()
        again = net.add("c3")
        net.delete("c3", again)
        drop(again)
    finally:
        umount(str(umounted))


def test_pool_exhausted(executables: Executables) -> None:
    """The error has the counts, nothing is left of the attempt, and STATUS says 50 until an address is free."""
    chain = Chain(executables, "small", bridge("10.99.5.0/29"), version="1.1.0")

    def status() -> Answer:
        return executables.invoke(chain.confs()[0], "STATUS", ifname="")

    networks = [make_network(f"c{number}") for number in range(5)]
    for number, network in enumerate(networks):
        assert status().rc == 0
        chain.add(f"c{number}", network).ok()
    before = Audit.take()
    late = make_network("late")
    answer = chain.add("late", late)
    assert answer.code == 101
    assert "10.99.5.1-10.99.5.6: 5 of 5 addresses are taken" in answer.document["msg"]
    assert status().code == 50
    drop(late)
    # That each address was given once is noted for as long as the network lives.
    assert [one for one in before.changes() if "/.ocirt/whole." not in one] == []
    for one in chain.delete("late"):
        one.ok()
    for one in chain.delete("c0", networks[0]):
        one.ok()
    wait_for(lambda: status().rc == 0, "an address")
    chain.add("c5", networks[0]).ok()


def test_gc_after_everything_is_gone(net: Network) -> None:
    """Three containers vanish without DEL; GC of the fourth's network sweeps up behind them and leaves it alone."""
    chain = Chain(net.executables, "net", _NETWORK, version="1.1.0")
    spaces = {name: make_network(name) for name in ("a", "b", "c", "stays")}
    for name, space in spaces.items():
        chain.add(name, space).ok()
    for name in ("a", "b", "c"):
        drop(spaces[name])
    for answer in chain.collect(("stays", "eth0")):
        answer.ok()
    for answer in chain.check("stays", spaces["stays"]):
        answer.ok()
    for answer in chain.delete("stays", spaces["stays"]):
        answer.ok()
    drop(spaces["stays"])
    net.nothing_left()
