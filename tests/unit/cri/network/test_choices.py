"""What the network helper decides without the kernel: addresses that are free, and whose a sysctl is."""

from __future__ import annotations

import pytest

from ocirt.errors import Error
from ocirt_cni.addresses import Prefix
from ocirt_cri.network import cni
from ocirt_cri.network.sandbox import sysctl_of
from ocirt_cri.services.runtime import pod_cidr


def prefixes(*texts: str) -> list[Prefix]:
    return [Prefix.parse(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "ours", "found"),
    [
        ((), (), "10.85.0.0/16"),
        (("0.0.0.0/0",), (), "10.85.0.0/16"),
        (("10.85.3.0/24",), (), "10.86.0.0/16"),
        (("10.84.0.0/15",), (), "10.86.0.0/16"),
        (("10.85.7.7/32", "10.86.0.0/16"), (), "10.87.0.0/16"),
        (("10.128.0.0/9", "10.64.0.0/10"), (), "10.0.0.0/16"),
        (("10.86.0.0/24",), ("10.86.0.0/16",), "10.86.0.0/16"),
    ],
)
def test_free_addresses(taken: tuple[str, ...], ours: tuple[str, ...], found: str) -> None:
    assert cni.free(prefixes(*taken), prefixes(*ours)) == found


def test_no_free_addresses() -> None:
    with pytest.raises(Error, match="routes to all addresses"):
        cni.free(prefixes("10.0.0.0/8"), [])


def test_the_network_that_is_built_in_is_one() -> None:
    network = cni.embedded("0123abcd", ["10.1.0.0/16", "fd00:1::/64"])
    assert (network.name, network.types()) == ("ocirt0123abcd", ["bridge", "portmap"])
    bridge = network.plugins[0]
    assert bridge["bridge"] == network.name
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]]
    assert bridge["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_each_daemon_and_each_range_has_a_network_of_its_own() -> None:
    given = [
        {"instance": instance, "pod_cidr": cidr}
        for instance in ("00000001", "00000002")
        for cidr in ("10.1.0.0/24", "10.2.0.0/24", "10.1.0.0/24,fd00::/64")
    ]
    networks = [cni.choose(one) for one in given]
    assert len({one.name for one in networks}) == len(networks)
    assert all(len(one.name) < 16 for one in networks)
    assert [cni.choose(one).name for one in given] == [one.name for one in networks]


@pytest.mark.parametrize(
    ("text", "found"),
    [("10.1.0.0/24", "10.1.0.0/24"), ("10.1.0.0/24, fd00:1::/64", "10.1.0.0/24,fd00:1::/64"), ("fd00::/64", "fd00::/64")],
)
def test_ranges_of_the_kubelet(text: str, found: str) -> None:
    assert pod_cidr(text) == found


@pytest.mark.parametrize("text", ["10.1.0.1/24", "10.1.0.0/24,10.2.0.0/24", "nonsense", "10.1.0.0/24,"])
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(Error, match="pod_cidr"):
        pod_cidr(text)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("net.ipv4.ip_forward", ("network", "net/ipv4/ip_forward")),
        ("net/ipv4/conf/eth0.1/rp_filter", ("network", "net/ipv4/conf/eth0.1/rp_filter")),
        ("kernel.shm_rmid_forced", ("ipc", "kernel/shm_rmid_forced")),
        ("kernel.sem", ("ipc", "kernel/sem")),
        ("fs/mqueue/msg_max", ("ipc", "fs/mqueue/msg_max")),
    ],
)
def test_whose_a_sysctl_is(name: str, found: tuple[str, str]) -> None:
    assert sysctl_of(name) == found


@pytest.mark.parametrize("name", ["kernel.core_pattern", "net/../kernel/core_pattern", "vm.swappiness", "", "net"])
def test_sysctls_of_the_machine(name: str) -> None:
    with pytest.raises(ValueError, match="not a sysctl"):
        sysctl_of(name)
