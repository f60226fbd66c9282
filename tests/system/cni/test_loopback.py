"""The plugin loopback."""

from __future__ import annotations

import pytest

from ocirt_cni import versions
from ocirt_cni.errors import CHECK_FAILED, INVALID_ENVIRONMENT, INVALID_NETNS
from tests.support.networks import addresses, command, connect, link
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin


def is_up(path: str) -> bool:
    """Whether `lo` is."""
    found = link("lo", path)
    assert found is not None
    return "UP" in found["flags"]


def test_up_with_its_addresses(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    assert not is_up(path)
    result = plugin("loopback", {}, netns=path, ifname="eth7").ok()
    assert result["interfaces"] == [{"name": "lo", "mac": "00:00:00:00:00:00", "mtu": 65536, "sandbox": path}]
    assert {one["address"] for one in result["ips"]} == addresses("lo", path) == {"127.0.0.1/8", "::1/128"}
    assert {one["interface"] for one in result["ips"]} == {0}
    assert connect(path, path, "127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_all_versions(plugin: Plugin, netns: MakeNetns, version: str) -> None:
    result = plugin("loopback", {"cniVersion": version}, netns=netns()).ok()
    assert result["cniVersion"] == version
    if versions.at_least(version, "0.3.0"):
        assert [one["name"] for one in result["interfaces"]] == ["lo"]
    else:
        assert result["ip4"]["ip"] == "127.0.0.1/8"


def test_a_previous_result_passes(plugin: Plugin, netns: MakeNetns) -> None:
    previous = {"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.3/24"}], "dns": {"domain": "x"}}
    assert plugin("loopback", {"prevResult": previous}, netns=netns()).ok() == previous


def test_without_ipv6(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6", network=path)
    assert [one["address"] for one in plugin("loopback", {}, netns=path).ok()["ips"]] == ["127.0.0.1/8"]


def test_del_again_and_without_namespace(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("loopback", {}, netns=path).ok()
    for _ in range(2):
        plugin("loopback", {}, "DEL", netns=path).ok()
        assert not is_up(path)
    for gone in ("", "/run/netns/gone"):
        plugin("loopback", {}, "DEL", netns=gone).ok()


def test_check(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    assert plugin("loopback", {}, "CHECK", netns=path).failed(CHECK_FAILED) == "lo: it is not up"
    result = plugin("loopback", {}, netns=path).ok()
    plugin("loopback", {"prevResult": result}, "CHECK", netns=path).ok()


def test_no_namespace(plugin: Plugin) -> None:
    assert plugin("loopback", {}).failed(INVALID_ENVIRONMENT) == "CNI_NETNS: ADD needs it"
    assert "/run/netns/gone" in plugin("loopback", {}, netns="/run/netns/gone").failed(INVALID_NETNS)
    assert plugin("loopback", {}, netns="/etc/passwd").failed(INVALID_NETNS) == "/etc/passwd: this is not a network namespace"


def test_status_and_gc(plugin: Plugin) -> None:
    plugin("loopback", {}, "STATUS").ok()
    plugin("loopback", {"cni.dev/valid-attachments": []}, "GC").ok()


def test_a_caller_that_drops_the_namespace(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    assert invoke("loopback", {}, netns=path) is not None
    assert invoke("loopback", {}, "DEL", netns=path, lazy=True) is None
