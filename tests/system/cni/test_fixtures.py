"""The fixtures of these tests, seen by the smallest plugin: as an executable and in process."""

from __future__ import annotations

from tests.support.networks import Host, link
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin


def test_lo_is_up_after_add_and_down_after_del(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    path = netns()
    before = host.traces()
    result = plugin("loopback", {}, netns=path, ifname="lo").ok()
    found = link("lo", path)
    assert found is not None
    assert "UP" in found["flags"]
    assert {one["address"] for one in result["ips"]} == {"127.0.0.1/8", "::1/128"}
    plugin("loopback", {}, "CHECK", netns=path, ifname="lo").ok()
    plugin("loopback", {}, "DEL", netns=path, ifname="lo").ok()
    found = link("lo", path)
    assert found is not None
    assert "UP" not in found["flags"]
    assert "it is not up" in plugin("loopback", {}, "CHECK", netns=path, ifname="lo").failed(104)
    assert host.traces() == before


def test_in_process(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    result = invoke("loopback", {}, netns=path, ifname="lo")
    assert result is not None
    assert [str(ip.address) for ip in result.ips] == ["127.0.0.1/8", "::1/128"]
    assert [one.sandbox for one in result.interfaces] == [path]
