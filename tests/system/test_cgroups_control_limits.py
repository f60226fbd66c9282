"""Cgroups on the real kernel: limits, and rules for devices, in whatever version /sys/fs/cgroup shows."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ocirt.cgroups import bpf, devices, limits
from ocirt.cgroups.apply import apply
from ocirt.cgroups.layout import Layout
from ocirt.errors import Error
from tests.support.cgroups import Cgroup, New, in_cgroup, layout, new, version_1, version_2

# Fixtures of others.
__all__ = ["layout", "new"]


# -- limits --------------------------------------------------------------------------------------------------------------------


def read(cgroup: Cgroup, controller: str, file: str) -> str:
    return Path(cgroup["paths"].get(controller, cgroup["paths"].get("")), file).read_text().strip()


def put(cgroup: Cgroup, resources: dict[str, Any]) -> None:
    apply(cgroup["paths"], limits.writes(resources, cgroup["mode"]))


def test_limits_of_version_1(layout: Layout, new: New) -> None:
    """Written and read back."""
    version_1(layout, "memory", "cpu", "cpuset", "pids", "blkio")
    cgroup = new()
    put(
        cgroup,
        {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20, "swappiness": 10, "disableOOMKiller": True},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 17},
        },
    )
    assert read(cgroup, "memory", "memory.limit_in_bytes") == str(64 << 20)
    assert read(cgroup, "memory", "memory.memsw.limit_in_bytes") == str(96 << 20)
    assert read(cgroup, "memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    assert read(cgroup, "memory", "memory.swappiness") == "10"
    assert "oom_kill_disable 1" in read(cgroup, "memory", "memory.oom_control")
    assert read(cgroup, "cpu", "cpu.shares") == "512"
    assert read(cgroup, "cpu", "cpu.cfs_quota_us") == "50000"
    assert read(cgroup, "cpu", "cpu.cfs_period_us") == "100000"
    assert read(cgroup, "cpuset", "cpuset.cpus") == "0"
    assert read(cgroup, "pids", "pids.max") == "17"
    names = [name for name in ("blkio.weight", "blkio.bfq.weight") if Path(cgroup["paths"]["blkio"], name).exists()]
    if names:
        put(cgroup, {"blockIO": {"weight": 300}})
        assert read(cgroup, "blkio", names[0]).split()[-1] == "300"


def test_limits_that_need_another_order(layout: Layout, new: New) -> None:
    """Memory and memory+swap, quota and period and burst, raised and lowered in a cgroup that has some already."""
    version_1(layout, "memory", "cpu")
    cgroup = new()
    for limit, swap, quota, period, burst in (
        (64, 96, 50000, 100000, 1000),
        (128, 160, 400000, 500000, 300000),
        (16, 20, 1000, 2000, 0),
    ):
        memory = {"limit": limit << 20, "swap": swap << 20}
        put(cgroup, {"memory": memory, "cpu": {"quota": quota, "period": period, "burst": burst}})
        assert read(cgroup, "memory", "memory.limit_in_bytes") == str(limit << 20)
        assert read(cgroup, "memory", "memory.memsw.limit_in_bytes") == str(swap << 20)
        assert read(cgroup, "cpu", "cpu.cfs_quota_us") == str(quota)
        assert read(cgroup, "cpu", "cpu.cfs_period_us") == str(period)
        assert read(cgroup, "cpu", "cpu.cfs_burst_us") == str(burst)
    put(cgroup, {"memory": {"limit": -1}})
    unlimited = Path(layout.mounts["memory"], "memory.limit_in_bytes").read_text().strip()
    assert read(cgroup, "memory", "memory.limit_in_bytes") == unlimited
    assert read(cgroup, "memory", "memory.memsw.limit_in_bytes") == unlimited


def test_errors_of_the_kernel(layout: Layout, new: New) -> None:
    """The pointer and the value, and for a controller that is not there its name."""
    cgroup = new()
    with pytest.raises(Error) as caught:
        put(cgroup, {"unified": {"cgroup.max.depth": "nonsense"}} if layout.mode == "v2" else {"cpu": {"cpus": "9999"}})
    assert caught.value.code == "kernel"
    assert "nonsense" in caught.value.message or "9999" in caught.value.message
    assert caught.value.cause
    assert caught.value.subject in ("/linux/resources/unified/cgroup.max.depth", "/linux/resources/cpu/cpus")
    if layout.mode == "v2":
        with pytest.raises(Error, match='controller "nothing" not available'):
            put(cgroup, {"unified": {"nothing.max": "1"}})


def test_pids_limit_holds(layout: Layout, new: New) -> None:
    """A fork too many fails."""
    cgroup = new()
    if layout.mode == "v2" and "pids" not in read(cgroup, "", "cgroup.controllers").split():
        pytest.skip("needs the pids controller")
    put(cgroup, {"pids": {"limit": 1}})

    def action() -> int:
        try:
            pid = os.fork()
        except OSError as error:
            return 0 if error.errno == errno.EAGAIN else 2
        if pid == 0:
            os._exit(0)
        return 1

    assert in_cgroup(cgroup, action) == 0


def test_limits_of_version_2(layout: Layout, new: New) -> None:
    """All that the host's controllers take; the others are named."""
    version_2(layout)
    cgroup = new()
    have = read(cgroup, "", "cgroup.controllers").split()
    everything: dict[str, Any] = {
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
        "blockIO": {"weight": 300},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
        "unified": {"cgroup.max.depth": "7"},
    }
    apply(cgroup["paths"], [entry for entry in limits.writes(everything, "v2") if not entry[0] or entry[0] in have])
    expected = {
        "memory.max": str(64 << 20),
        "memory.low": str(32 << 20),
        "cpu.weight": "59",
        "cpu.max": "50000 100000",
        "cpu.max.burst": "1000",
        "cpuset.cpus": "0",
        "pids.max": "17",
        "hugetlb.2MB.max": str(4 << 20),
        "hugetlb.2MB.rsvd.max": str(4 << 20),
        "cgroup.max.depth": "7",
    }
    checked = [file for file in expected if file.partition(".")[0] in (*have, "cgroup")]
    assert {file: read(cgroup, "", file) for file in checked} == {file: expected[file] for file in checked}
    if "memory" not in have:
        with pytest.raises(Error, match='controller "memory" not available'):
            put(cgroup, {"memory": everything["memory"]})
        return
    for limit, swap in ((128, 160), (16, 20)):
        put(cgroup, {"memory": {"limit": limit << 20, "swap": swap << 20}})
        assert read(cgroup, "", "memory.max") == str(limit << 20)
        assert read(cgroup, "", "memory.swap.max") == str((swap - limit) << 20)
    put(cgroup, {"memory": {"limit": -1}})
    assert read(cgroup, "", "memory.max") == read(cgroup, "", "memory.swap.max") == "max"
    for quota, period, burst in ((400000, 500000, 300000), (1000, 2000, 0)):
        put(cgroup, {"cpu": {"quota": quota, "period": period, "burst": burst}})
        assert (read(cgroup, "", "cpu.max"), read(cgroup, "", "cpu.max.burst")) == (f"{quota} {period}", str(burst))


# -- devices -------------------------------------------------------------------------------------------------------------------


def opens(path: Path, flags: int) -> int:
    """0 if the device can be opened, else the errno."""
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return error.errno or 99
    return 0


def put_devices(cgroup: Cgroup, section: list[dict[str, Any]]) -> None:
    """What the engine does with linux.resources.devices."""
    found = devices.rules(section)
    if cgroup["mode"] != "v2":
        for file, value, _ in devices.writes(found):
            Path(cgroup["paths"]["devices"], file).write_text(value)
        return
    fd = os.open(cgroup["paths"][""], os.O_RDONLY | os.O_DIRECTORY)
    try:
        bpf.load_and_attach(devices.program(found), fd, replace=True)
        attached = bpf.attached(fd)
        for program in attached:
            os.close(program)
        assert len(attached) == 1
    finally:
        os.close(fd)


def test_device_rules(layout: Layout, new: New, tmp_path: Path) -> None:
    """In the cgroup only what the rules allow; the same in both versions, and when the cgroup had other rules before."""
    kmsg, null = tmp_path / "kmsg", tmp_path / "null"
    os.mknod(kmsg, 0o600 | 0o020000, os.makedev(1, 11))
    os.mknod(null, 0o600 | 0o020000, os.makedev(1, 3))
    if opens(kmsg, os.O_RDWR):
        pytest.skip("devices can't be opened here")
    cgroup = new()
    deny = {"allow": False, "access": "rwm"}
    put_devices(cgroup, [deny])
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_RDONLY)) == errno.EPERM
    assert in_cgroup(cgroup, lambda: opens(null, os.O_RDWR)) == 0
    put_devices(cgroup, [deny, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}])
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_RDONLY)) == 0
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_WRONLY)) == errno.EPERM
    put_devices(cgroup, [{"allow": True, "access": "rwm"}])
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_RDWR)) == 0
    put_devices(cgroup, [{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "w"}])
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_RDONLY)) == 0
    assert in_cgroup(cgroup, lambda: opens(kmsg, os.O_RDWR)) == errno.EPERM


def test_bad_program(new: New) -> None:
    """The verifier's words are in the error, and no descriptor is left."""
    fd = os.open(new()["paths"][""], os.O_RDONLY | os.O_DIRECTORY)
    try:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match="R0 !read_ok"):
            bpf.load_and_attach(b"\x95" + bytes(7), fd)
        assert os.listdir("/proc/self/fd") == before
        assert bpf.attached(fd) == []
    finally:
        os.close(fd)
