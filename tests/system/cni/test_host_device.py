"""The plugin host-device: a link of the host's in the container, and back. Hardware is played by one end of a veth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, KERNEL, TAKEN, UNSUPPORTED_FIELD
from tests.support.isolation import MS_BIND, mount, umount
from tests.support.networks import Host, addresses, command, connect, link, routes
from tests.system.cni.conftest import Invoke, MakeNetns, Plugin

MAC = "02:00:00:00:00:07"
IPAM = {
    "ipam": {
        "type": "static",
        "addresses": [{"address": "10.7.0.2/24", "gateway": "10.7.0.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
}


@pytest.fixture(autouse=True)
def outside(netns: MakeNetns) -> str:
    """The network namespace beyond the host's link `nic0`, with 10.7.0.1; its path."""
    path = netns()
    command("ip", "link", "add", "nic0", "address", MAC, "type", "veth", "peer", "name", "out0", "netns", path)
    command("ip", "link", "set", "nic0", "up", "alias", "port 7 of the switch")
    command("ip", "addr", "add", "10.7.0.1/24", "dev", "out0", network=path)
    command("ip", "link", "set", "out0", "up", network=path)
    return path


def state(name: str = "nic0") -> tuple[str | None, bool, str]:
    """Alias, whether it is up, hardware address of a link of the host's."""
    found = link(name)
    assert found is not None, f"the host has no {name}"
    return found.get("ifalias"), "UP" in found["flags"], found["address"]


WAS = ("port 7 of the switch", True, MAC)


def test_there_and_back(plugin: Plugin, netns: MakeNetns, outside: str) -> None:
    path = netns()
    conf = {"device": "nic0", **IPAM}
    assert state() == WAS
    result = plugin("host-device", conf, netns=path).ok()
    assert result["interfaces"] == [{"name": "eth0", "mac": MAC, "sandbox": path, "mtu": 1500}]
    assert result["ips"] == [{"interface": 0, "address": "10.7.0.2/24", "gateway": "10.7.0.1"}]
    assert link("nic0") is None
    found = link("eth0", path)
    assert found is not None
    assert found["ifalias"] == "ocirt net c1 eth0 was nic0 up port 7 of the switch"
    assert addresses("eth0", path) == {"10.7.0.2/24"}
    assert "default via 10.7.0.1 dev eth0" in routes(path)
    assert connect(path, outside, "10.7.0.1") == "10.7.0.2"
    plugin("host-device", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    for _ in range(2):
        plugin("host-device", {**conf, "prevResult": result}, "DEL", netns=path).ok()
        assert link("eth0", path) is None
        assert state() == WAS
        assert addresses("nic0") == set()


def test_a_link_that_was_down_without_alias(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "set", "nic0", "down", "alias", "")
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    found = link("eth0", path)
    assert found is not None
    assert "UP" in found["flags"]
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == (None, False, MAC)


@pytest.mark.parametrize("written", [MAC, MAC.replace(":", "-"), MAC.upper()])
def test_by_hardware_address(plugin: Plugin, netns: MakeNetns, written: str) -> None:
    path = netns()
    plugin("host-device", {"hwaddr": written}, netns=path).ok()
    assert link("eth0", path) is not None
    plugin("host-device", {"hwaddr": written}, "DEL", netns=path).ok()
    assert state() == WAS


@pytest.fixture
def sysfs(tmp_path: Path) -> Any:
    """A /sys with a PCI device of each kind, of which nic0 is the link."""
    devices = {
        "bus/pci/devices/0000:00:1f.6/net/nic0": "",
        "bus/pci/devices/0000:00:1f.7/virtio3/net/nic0": "",
        "bus/auxiliary/devices/mlx5_core.sf.4/net/nic0": "",
        "devices/pci0000:00/0000:00:1f.6/net/nic0": "",
        "bus/pci/devices/0000:00:1f.8": "",
        "bus/pci/drivers/vfio-pci": "",
        "bus/pci/devices/0000:00:1f.9": "",
    }
    for one in devices:
        (tmp_path / one).mkdir(parents=True)
    os.symlink("../../drivers/vfio-pci", tmp_path / "bus/pci/devices/0000:00:1f.9/driver")
    mount(str(tmp_path), "/sys", "none", MS_BIND)
    yield
    umount("/sys")


@pytest.mark.usefixtures("sysfs")
@pytest.mark.parametrize(
    ("conf", "pci"),
    [
        ({"kernelpath": "/sys/devices/pci0000:00/0000:00:1f.6"}, ""),
        ({"pciBusID": "0000:00:1f.6"}, "0000:00:1f.6"),
        ({"pciBusID": "0000:00:1f.7"}, "0000:00:1f.7"),
        ({"runtimeConfig": {"deviceID": "0000:00:1f.7"}, "device": "other"}, "0000:00:1f.7"),
        ({"runtimeConfig": {"deviceID": "mlx5_core.sf.4"}}, ""),
    ],
)
def test_by_place_in_sysfs(plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], pci: str) -> None:
    path = netns()
    result = plugin("host-device", conf, netns=path).ok()
    assert result["interfaces"][0].get("pciID", "") == pci
    assert link("eth0", path) is not None
    plugin("host-device", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    plugin("host-device", conf, "DEL", netns=path).ok()
    assert state() == WAS


@pytest.mark.usefixtures("sysfs")
def test_a_device_that_a_program_drives(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"pciBusID": "0000:00:1f.9", **IPAM}
    result = plugin("host-device", conf, netns=path).ok()
    assert result["interfaces"] == [{"name": "eth0", "sandbox": path, "pciID": "0000:00:1f.9"}]
    assert result["ips"] == [{"interface": 0, "address": "10.7.0.2/24", "gateway": "10.7.0.1"}]
    assert link("eth0", path) is None
    plugin("host-device", {**conf, "prevResult": result}, "CHECK", netns=path).ok()
    plugin("host-device", conf, "DEL", netns=path).ok()
    assert state() == WAS


@pytest.mark.usefixtures("sysfs")
@pytest.mark.parametrize(
    ("conf", "code", "message"),
    [
        ({}, INVALID_CONFIG, "/device: no device is named"),
        ({"device": "gone"}, INVALID_CONFIG, "/device: the host has no link gone"),
        ({"device": "lo"}, INVALID_CONFIG, "/device: the loopback link cannot leave the host"),
        ({"device": "nic0", "hwaddr": MAC}, INVALID_CONFIG, "/hwaddr: the device is named already by device"),
        ({"hwaddr": "02:00:00:00:00:99"}, INVALID_CONFIG, "/hwaddr: the host has no link 02:00:00:00:00:99"),
        ({"hwaddr": "nonsense"}, INVALID_CONFIG, "/hwaddr: 'nonsense' is not a hardware address"),
        ({"kernelpath": "/etc"}, INVALID_CONFIG, "/kernelpath: '/etc' is not a path below /sys/devices/"),
        ({"kernelpath": "/sys/devices/../../etc"}, INVALID_CONFIG, "/kernelpath: "),
        ({"kernelpath": "/sys/devices/gone"}, INVALID_CONFIG, "/kernelpath: the host has no link /sys/devices/gone"),
        ({"pciBusID": "../x"}, INVALID_CONFIG, "/pciBusID: '../x' is not the name of a device"),
        ({"pciBusID": "0000:00:1f.8"}, INVALID_CONFIG, "/pciBusID: the host has no link 0000:00:1f.8"),
        ({"runtimeConfig": {"deviceID": "gone"}}, INVALID_CONFIG, "/runtimeConfig/deviceID: there is no device gone"),
        ({"runtimeConfig": {"deviceID": ".."}}, INVALID_CONFIG, "/runtimeConfig/deviceID: '..' is not the name"),
        ({"device": 1}, INVALID_CONFIG, "/device: this is not a string"),
        ({"Device": "nic0"}, UNSUPPORTED_FIELD, "/Device: host-device has no such field"),
    ],
)
def test_wrong_configurations(
    plugin: Plugin, netns: MakeNetns, host: Host, conf: dict[str, Any], code: int, message: str
) -> None:
    path, before = netns(), host.traces()
    assert plugin("host-device", {**conf, **IPAM}, netns=path).failed(code).startswith(message)
    assert host.traces() == before
    assert state() == WAS


def test_a_name_that_is_taken(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    command("ip", "tuntap", "add", "eth0", "mode", "tap", network=path)
    plugin("host-device", {"device": "nic0"}, netns=path).failed(TAKEN)
    assert state() == WAS
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert link("eth0", path) is not None


def test_a_failed_add_brings_the_link_back(plugin: Plugin, netns: MakeNetns) -> None:
    ipam = {**IPAM["ipam"], "routes": [{"dst": "fd09::/64", "gw": "10.7.0.1"}]}
    path = netns()
    plugin("host-device", {"device": "nic0", "ipam": ipam}, netns=path).failed(KERNEL)
    assert link("eth0", path) is None
    assert state() == WAS


def test_a_device_of_another_container(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "set", "nic0", "alias", "ocirt net c2 eth0 was nic7 up")
    message = plugin("host-device", {"device": "nic0"}, netns=netns()).failed(TAKEN)
    assert message == "net c2 eth0: nic0 belongs to another container"


def test_the_name_is_taken_in_the_container_on_the_way_back(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    command("ip", "tuntap", "add", "nic0", "mode", "tap", network=path)
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS
    assert link("nic0", path) is not None


def test_the_name_is_taken_on_the_host_by_then(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    command("ip", "tuntap", "add", "nic0", "mode", "tap")
    message = plugin("host-device", {"device": "nic0"}, "DEL", netns=path).failed(TAKEN)
    assert message.startswith("nic0: the host has another link of this name by now")
    command("ip", "link", "del", "nic0")
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS


def test_the_container_renamed_it(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    command("ip", "link", "set", "eth0", "down", network=path)
    command("ip", "link", "set", "eth0", "name", "mine0", network=path)
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS


@pytest.mark.parametrize(("conf", "alias"), [({"device": "nic0"}, ""), ({"hwaddr": MAC}, "nic0"), ({"device": "nic0"}, "nic0")])
def test_what_the_reference_plugin_moved_or_lost_its_note(
    plugin: Plugin, netns: MakeNetns, conf: dict[str, Any], alias: str
) -> None:
    path = netns()
    result = plugin("host-device", conf, netns=path).ok()
    command("ip", "link", "set", "eth0", "alias", alias, network=path)
    plugin("host-device", conf, "DEL", netns=path).ok()
    assert link("eth0", path) is not None, "without a result nothing says whose it is"
    plugin("host-device", {**conf, "prevResult": result}, "DEL", netns=path).ok()
    assert state() == (None, False, MAC)


def test_an_alias_that_somebody_in_the_container_wrote(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    command("ip", "link", "set", "eth0", "alias", "ocirt net c1 eth0 was nic0 up ocirt net c2 eth0", network=path)
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == (None, True, MAC)


@pytest.mark.parametrize("path", ["", "/run/netns/gone"])
@pytest.mark.parametrize("name", ["eth0", "dev3", "nic0"])
def test_del_of_what_the_kernel_moved_back(plugin: Plugin, path: str, name: str) -> None:
    # Hardware comes to the host when its namespace ends: down, with the name and the alias that it had there.
    command("ip", "link", "set", "nic0", "down")
    command("ip", "link", "set", "nic0", "name", name, "alias", "ocirt net c1 eth0 was nic0 up port 7 of the switch")
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS


def test_gc_of_what_the_kernel_moved_back(plugin: Plugin) -> None:
    notes = [
        "ocirt net c1 eth0 was nic0 up port 7 of the switch",
        "ocirt net2 c1 eth0 was x down",
        "ocirt net c2 eth0 was y down",
    ]
    command("ip", "link", "set", "nic0", "down")
    command("ip", "link", "set", "nic0", "name", "dev1", "alias", notes[0])
    for number, note in enumerate(notes[1:]):
        command("ip", "tuntap", "add", f"tap{number}", "mode", "tap")
        command("ip", "link", "set", f"tap{number}", "alias", note)
    valid = [{"containerID": "c2", "ifname": "eth0"}]
    plugin("host-device", {"device": "nic0", "cni.dev/valid-attachments": valid}, "GC").ok()
    assert state() == WAS
    assert [state(f"tap{number}")[0] for number in range(2)] == notes[1:]


def test_del_of_what_was_noted_and_not_moved(plugin: Plugin, netns: MakeNetns) -> None:
    command("ip", "link", "set", "nic0", "alias", "ocirt net c1 eth0 was nic0 up port 7 of the switch")
    plugin("host-device", {"device": "nic0"}, "DEL", netns=netns()).ok()
    assert state() == WAS


def test_del_of_what_was_on_its_way_back(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    plugin("host-device", {"device": "nic0"}, netns=path).ok()
    command("ip", "link", "set", "eth0", "down", network=path)
    command("ip", "link", "set", "eth0", "name", "nic0", network=path)
    plugin("host-device", {"device": "nic0"}, "DEL", netns=path).ok()
    assert state() == WAS


def test_long_names(plugin: Plugin, netns: MakeNetns) -> None:
    path, name = netns(), "n" * 100
    conf = {"name": name, "device": "nic0"}
    plugin("host-device", conf, netns=path, container="c" * 150).ok()
    found = link("eth0", path)
    assert found is not None
    assert len(found["ifalias"]) <= 255
    assert found["ifalias"].startswith(f"ocirt {name} #")
    plugin("host-device", conf, "DEL", netns=path, container="c" * 150).ok()
    assert state() == WAS


def test_del_of_a_caller_that_drops_the_namespace(invoke: Invoke, netns: MakeNetns) -> None:
    path = netns()
    invoke("host-device", {"device": "nic0"}, netns=path)
    invoke("host-device", {"device": "nic0"}, "DEL", netns=path, lazy=True)
    assert state() == WAS, "it would go with the namespace"


def test_check_says_what_is_wrong(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf: dict[str, Any] = {"device": "nic0", **IPAM}
    conf["prevResult"] = plugin("host-device", conf, netns=path).ok()
    command("ip", "link", "set", "eth0", "address", "02:00:00:00:00:01", network=path)
    message = plugin("host-device", conf, "CHECK", netns=path).failed(CHECK_FAILED)
    assert message == f"eth0: its hardware address is 02:00:00:00:00:01, and was {MAC}"
    command("ip", "link", "del", "eth0", network=path)
    assert plugin("host-device", conf, "CHECK", netns=path).failed(CHECK_FAILED) == "eth0: it does not exist"


def test_addresses_are_given_back(plugin: Plugin, netns: MakeNetns) -> None:
    path = netns()
    conf = {"device": "nic0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/30"}]]}}
    plugin("host-device", conf, netns=path).ok()
    assert plugin("host-device", conf, "STATUS").rc == 1
    plugin("host-device", conf, "DEL").ok()
    plugin("host-device", conf, "STATUS").ok()
