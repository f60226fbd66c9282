"""Cgroups by systemd: the properties and limits of its units, beside runc's and in the kernel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.runtime import Runtime, wait_for
from tests.support.systemd import Systemd, is_running
from tests.support.systemd_units import NOTE, SLEEP, box, bundle, needs, new, shared, systemd
from tests.system.conftest import MakeBundle

# Fixtures of others.
__all__ = ["box", "bundle", "new", "shared", "systemd"]

# What a unit is made with, as `systemctl show` names it.
SHOWN = (
    "ControlGroup",
    "Slice",
    "Delegate",
    "DelegateControllers",
    "CPUAccounting",
    "IOAccounting",
    "BlockIOAccounting",
    "MemoryAccounting",
    "TasksAccounting",
    "TasksMax",
    "MemoryMax",
    "MemoryLimit",
    "MemoryLow",
    "MemorySwapMax",
    "CPUWeight",
    "CPUShares",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "IOWeight",
    "BlockIOWeight",
    "DevicePolicy",
    "DeviceAllow",
    "DefaultDependencies",
    "TimeoutStopUSec",
    "Transient",
    "KillMode",
)


# -- beside runc ---------------------------------------------------------------------------------------------------------------


def peer() -> str:
    """runc, or the test is skipped."""
    found = shutil.which(os.environ.get("OCIRT_TEST_PEER", "runc-new")) or shutil.which("runc")
    if found is None:
        pytest.skip("runc is not installed")
    return found


def release(command: str) -> tuple[int, ...]:
    """Which release of runc it is."""
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.match(r"runc version (\d+)\.(\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))


def device_groups() -> dict[str, str]:
    """The groups of devices that this kernel has, `char-pts` to `char-136`."""
    found: dict[str, str] = {}
    kind = ""
    for line in Path("/proc/devices").read_text().splitlines():
        number, _, name = line.strip().partition(" ")
        if name == "devices:":
            kind = number.lower().removesuffix("acter")
        elif name:
            found.setdefault(f"{kind}-{name}", f"{kind}-{number}")
    return found


def comparable(shown: dict[str, list[str]]) -> dict[str, list[str]]:
    """With DeviceAllow as any runc would have it.

    Groups by number: some say their names, systemd takes both. Without what this kernel does not have (the driver of tun or loop
    is not loaded): some leave it out.
    """
    groups, rules = device_groups(), []
    for rule in shown["DeviceAllow"]:
        device, _, access = rule.partition(" ")
        device = groups.get(device, device)
        if device in groups.values() or device.endswith("-*") or Path("/sys" + device).exists():
            rules.append(f"{device} {access}")
    return shown | {"DeviceAllow": sorted(rules)}


def seen(runtime: Runtime, bundle: MakeBundle, systemd: Systemd, **edits: Any) -> dict[str, list[str]]:
    """The properties of a container's unit."""
    path = f"{edits.pop('slice', 'peer-x.slice')}:pre:same"
    container = runtime.run_detached(bundle(args=SLEEP, cgroupsPath=path, **edits))
    shown = systemd.show("pre-same.scope")
    runtime.delete(container, "--force").ok()
    wait_for(lambda: "pre-same.scope" not in systemd.scopes(), "the end of the unit")
    if is_running():
        systemd.call("systemctl", "stop", "peer-x.slice", "peer.slice")
    return {name: sorted(shown.get(name, [])) for name in SHOWN}


LIMITS: dict[str, Any] = {
    "memory": {"limit": 1 << 28, "reservation": 1 << 26},
    "cpu": {"shares": 512, "quota": 12345, "period": 100000, "cpus": "0"},
    "pids": {"limit": 50},
}


def test_the_same_unit_as_runc_s(new: Callable[..., Runtime], bundle: MakeBundle, systemd: Systemd) -> None:
    devices = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "major": 7, "access": "r"},
    ]
    edits = {"annotations": {NOTE + "TimeoutStopSec": "5"}, "resources": {"devices": devices}}
    ours, theirs = (seen(runtime, bundle, systemd, **edits) for runtime in (new(), new(peer())))
    assert comparable(ours) == comparable(theirs)
    assert ours["DevicePolicy"] == ["strict"]
    assert "/dev/char/10:229 rw" in ours["DeviceAllow"]


def test_the_same_limits_as_runc_s(new: Callable[..., Runtime], bundle: MakeBundle, systemd: Systemd) -> None:
    needs(systemd, "memory", "cpu", "cpuset", "pids")
    resources = LIMITS | {"devices": [{"allow": False, "access": "rwm"}]}
    ours, theirs = (seen(runtime, bundle, systemd, resources=resources) for runtime in (new(), new(peer())))
    if systemd.view == "v2" and release(peer()) < (1, 3, 2):
        # By a formula that gave containers too little: opencontainers/runc issue 4772.
        assert theirs["CPUWeight"] == ["20"]
        theirs["CPUWeight"] = ["59"]
    assert comparable(ours) == comparable(theirs)
    assert ours["TasksMax"] == ["50"]
    assert ours["CPUQuotaPerSecUSec"] == ["130ms"]


# -- limits --------------------------------------------------------------------------------------------------------------------


def read(systemd: Systemd, box: Runtime, container: str, controller: str, v2: str, v1: str) -> str:
    """A limit as the kernel has it, read by a process beside systemd."""
    record = json.loads((box.root / container / "state.json").read_text())
    directory = record["cgroup"]["paths"].get(controller) or record["cgroup"]["paths"][""]
    return systemd.call("cat", f"{directory}/{v1 if systemd.view == 'hybrid' else v2}").stdout.strip()


def test_limits_are_set(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """In the kernel and in systemd: both say the same."""
    needs(systemd, "memory", "cpu", "cpuset", "pids")
    container = box.run_detached(bundle(args=SLEEP, resources=LIMITS))
    hybrid = systemd.view == "hybrid"
    assert read(systemd, box, container, "memory", "memory.max", "memory.limit_in_bytes") == str(1 << 28)
    assert read(systemd, box, container, "pids", "pids.max", "pids.max") == "50"
    assert read(systemd, box, container, "cpu", "cpu.max", "cpu.cfs_quota_us") == ("13000" if hybrid else "13000 100000")
    assert read(systemd, box, container, "cpu", "cpu.weight", "cpu.shares") == ("512" if hybrid else "59")
    assert read(systemd, box, container, "cpuset", "cpuset.cpus", "cpuset.cpus") == "0"
    shown = systemd.show(f"test-{container}.scope")
    assert shown["MemoryLimit" if hybrid else "MemoryMax"] == [str(1 << 28)]
    assert shown["TasksMax"] == ["50"]
    assert shown["CPUShares" if hybrid else "CPUWeight"] == ["512" if hybrid else "59"]
    # A systemd that writes everything anew writes the same.
    systemd.call("systemctl", "daemon-reload")
    assert read(systemd, box, container, "cpu", "cpu.max", "cpu.cfs_quota_us") == ("13000" if hybrid else "13000 100000")
    assert read(systemd, box, container, "memory", "memory.max", "memory.limit_in_bytes") == str(1 << 28)


def test_a_limit_of_processes(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    needs(systemd, "pids")
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo all"
    found = box.shell(bundle(), script, resources={"pids": {"limit": 5}})
    assert "can't fork" in found.err
    assert "all" not in found.out


def test_a_limit_of_memory(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    needs(systemd, "memory")
    # dd's buffer is its memory.
    limit = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}
    found = box.shell(bundle(), "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?", resources=limit)
    assert found.rc == 137 or "137" in found.out


def test_devices_are_refused(box: Runtime, bundle: MakeBundle) -> None:
    """By the kernel: what systemd cannot be told is set beside it."""
    script = "cat /dev/kmsg2 >/dev/null; echo $?; echo x >/dev/null && head -c 1 /dev/zero | wc -c"
    devices = [{"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}]
    kept = {"capabilities": {kind: ["CAP_MKNOD", "CAP_SYSLOG"] for kind in ("bounding", "effective", "permitted")}}
    found = box.shell(bundle(), script, devices=devices, resources={"devices": [{"allow": False, "access": "rwm"}]}, **kept)
    assert "Operation not permitted" in found.err
    assert found.ok().out.split() == ["1", "1"]


def test_update(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    """Both are told, and the container goes on."""
    needs(systemd, "memory", "pids", "cpu")
    container = box.run_detached(bundle(args=SLEEP, resources=LIMITS))
    section = {"memory": {"limit": 1 << 27}, "pids": {"limit": 33}, "cpu": {"quota": 12345, "period": 50000}}
    box.call("update", "--resources", "-", container, stdin=json.dumps(section)).ok()
    hybrid = systemd.view == "hybrid"
    assert read(systemd, box, container, "memory", "memory.max", "memory.limit_in_bytes") == str(1 << 27)
    assert read(systemd, box, container, "cpu", "cpu.max", "cpu.cfs_quota_us") == ("12500" if hybrid else "12500 50000")
    shown = systemd.show(f"test-{container}.scope")
    assert (shown["TasksMax"], shown["CPUQuotaPerSecUSec"]) == (["33"], ["250ms"])
    # What systemd writes anew is what was set, and it has not taken anything from the container.
    systemd.call("systemctl", "daemon-reload")
    assert read(systemd, box, container, "pids", "pids.max", "pids.max") == "33"
    assert box.status(container) == "running"
    assert box.exec(container, "sh", "-c", "echo >/dev/null && echo fine").ok().out == "fine\n"


def test_an_update_that_fails_changes_nothing(box: Runtime, bundle: MakeBundle, systemd: Systemd) -> None:
    needs(systemd, "memory", "pids", "cpuset")
    container = box.run_detached(bundle(args=SLEEP, resources=LIMITS))
    section = {"pids": {"limit": 33}, "cpu": {"cpus": "4000"}}
    box.call("update", "--resources", "-", container, stdin=json.dumps(section)).failed(rc=1)
    assert read(systemd, box, container, "pids", "pids.max", "pids.max") == "50"
    assert systemd.show(f"test-{container}.scope")["TasksMax"] == ["50"]
