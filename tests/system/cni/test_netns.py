"""Network namespaces by their path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt_cni import sysctl
from ocirt_cni.errors import INVALID_NETNS, Error
from ocirt_cni.netlink import links
from ocirt_cni.netns import Namespace, NotANamespaceError
from tests.support.networks import command
from tests.system.cni.conftest import MakeNetns


def own() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_its_netlink_socket_and_its_sysctls(netns: MakeNetns) -> None:
    path, before = netns(), own()
    command("ip", "link", "add", "only-here", "type", "veth", "peer", "name", "other", network=path)
    with Namespace.open(path) as namespace:
        assert own() == before, "opening it does not leave the thread there"
        assert {one.name for one in links.every(namespace.netlink)} == {"lo", "only-here", "other"}
        with namespace.inside():
            assert own() != before
            sysctl.write("net.ipv4.ip_default_ttl", "77")
            assert sysctl.read("net.ipv4.ip_default_ttl") == "77"
        assert own() == before
        assert not namespace.is_own()
    assert sysctl.read("net.ipv4.ip_default_ttl") != "77"
    with Namespace.own() as namespace:
        assert namespace.is_own()


def test_the_thread_comes_back_after_an_error(netns: MakeNetns) -> None:
    before = own()
    with Namespace.open(netns()) as namespace:
        with pytest.raises(ZeroDivisionError), namespace.inside():
            _ = 1 // 0
        assert own() == before


def test_a_path_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        Namespace.open(str(tmp_path / "none"))
    assert (caught.value.code, caught.value.subject) == (INVALID_NETNS, str(tmp_path / "none"))
    assert Namespace.find(str(tmp_path / "none")) is None
    assert Namespace.find("") is None


@pytest.mark.parametrize("path", ["file", "/proc/self/ns/uts", "/proc/self"])
def test_what_is_no_network_namespace(tmp_path: Path, path: str) -> None:
    """Such as the file that one was bound to, after a reboot."""
    (tmp_path / "file").touch()
    where = str(tmp_path / path)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotANamespaceError) as caught:
        Namespace.open(where)
    assert caught.value.code == INVALID_NETNS
    assert Namespace.find(where) is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_no_descriptor_is_left(netns: MakeNetns) -> None:
    path = netns()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Namespace.open(path) as namespace, namespace.inside():
            pass
    assert len(os.listdir("/proc/self/fd")) == descriptors
