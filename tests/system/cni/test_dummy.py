"""The plugin dummy: a link that leads nowhere, to hold addresses. Needs a kernel with them, as the virtual machine's."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_cni import versions
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, KERNEL, NOT_AVAILABLE, UNSUPPORTED, UNSUPPORTED_FIELD
from tests.support.links import need_kind, refuse_kind
from tests.support.networks import Host, addresses, command, connect, link
from tests.system.cni.conftest import MakeNetns, Plugin

IPAM: dict[str, Any] = {"ipam": {"type": "static", "addresses": [{"address": "10.4.0.2/24"}, {"address": "fd04::2/64"}]}}


def test_a_kernel_without_it(plugin: Plugin, netns: MakeNetns, host: Host) -> None:
    refuse_kind("dummy")
    path, before = netns(), host.traces()
    done = plugin("dummy", IPAM, netns=path)
    assert done.failed(UNSUPPORTED) == "/type: this kernel has no links of the kind dummy"
    assert done.answer is not None
    assert done.answer["details"] == "it takes a kernel with CONFIG_DUMMY, and its module dummy if that is built as one"
    assert plugin("dummy", IPAM, "STATUS").failed(NOT_AVAILABLE) == "/type: this kernel has no links of the kind dummy"
    for where in (path, ""):
        plugin("dummy", IPAM, "DEL", netns=where).ok()
    assert link("eth0", path) is None
    assert host.traces() == before


@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({}, INVALID_CONFIG, "/ipam/type: it is missing"),
        ({**IPAM, "mtu": 1400}, UNSUPPORTED_FIELD, "/mtu: dummy has no such field"),
    ],
)
def test_wrong_configurations(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], code: int, message: str) -> None:
    assert plugin("dummy", conf, netns=netns()).failed(code).startswith(message)


@pytest.mark.parametrize("version", versions.SUPPORTED)
def test_addresses(plugin: Plugin, netns: MakeNetns, version: str) -> None:
    need_kind("dummy")
    path = netns()
    conf = {"cniVersion": version, **IPAM}
    result = plugin("dummy", conf, netns=path).ok()
    found = link("eth0", path)
    assert found is not None
    assert found["linkinfo"]["info_kind"] == "dummy"
    assert found["ifalias"] == "ocirt net c1 eth0"
    assert addresses("eth0", path) == {"10.4.0.2/24", "fd04::2/64"}
    command("ip", "link", "set", "lo", "up", network=path)
    assert connect(path, path, "10.4.0.2") == "10.4.0.2"
    conf["prevResult"] = result
    if versions.at_least(version, "0.3.0"):
        assert [(one["name"], one["mac"], one["sandbox"]) for one in result["interfaces"]] == [("eth0", found["address"], path)]
    if versions.at_least(version, versions.CHECK):
        plugin("dummy", conf, "CHECK", netns=path).ok()
        command("ip", "link", "set", "eth0", "down", network=path)
        assert plugin("dummy", conf, "CHECK", netns=path).failed(CHECK_FAILED) == "eth0: it is not up"
    for where in (path, path, ""):
        plugin("dummy", conf, "DEL", netns=where).ok()
        assert link("eth0", path) is None


def test_a_failed_add_leaves_nothing(plugin: Plugin, netns: MakeNetns) -> None:
    need_kind("dummy")
    path = netns()
    conf = {"ipam": {**IPAM["ipam"], "routes": [{"dst": "fd09::/64", "gw": "10.4.0.1"}]}}
    plugin("dummy", conf, netns=path).failed(KERNEL)
    assert link("eth0", path) is None


def test_status_and_gc(plugin: Plugin) -> None:
    need_kind("dummy")
    plugin("dummy", IPAM, "STATUS").ok()
    plugin("dummy", {**IPAM, "cni.dev/valid-attachments": []}, "GC").ok()
