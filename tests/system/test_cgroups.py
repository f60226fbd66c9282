"""Cgroups: where a container is put, and its limits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import Isolation, cgroup_mounts
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle

SLEEP = ["sleep", "1000"]


def file_of(controller: str, group: str, v1: str, v2: str) -> Path:
    """A control file of a cgroup, in whichever version has the controller. Skips the test if none has."""
    for root in cgroup_mounts():
        path = root / group.lstrip("/")
        if (path / v1).exists() and controller in root.name.split(","):
            return path / v1
        if (path / "cgroup.events").exists() and (path / v2).exists():
            return path / v2
    pytest.skip(f"no {controller} controller in this view")


def limited(runtime: Runtime, bundle: MakeBundle, **resources: Any) -> str:
    """Run a container with these resources and return its id."""
    missing = {name for name in ("memory", "cpu", "pids") if name in resources and not available(name)}
    if missing:
        pytest.skip(f"no controller here: {missing}")
    return runtime.run_detached(bundle(args=SLEEP, resources=resources))


def available(controller: str) -> bool:
    """Whether a hierarchy has the controller."""
    for root in cgroup_mounts():
        if root.name == controller or controller in root.name.split(","):
            return True
        controllers = root / "cgroup.controllers"
        if controllers.exists() and controller in controllers.read_text().split():
            return True
    return False


def test_cgroups_path(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """An absolute path is the same below each hierarchy's mount; all of it is gone after `delete`."""
    container = runtime.run_detached(bundle(args=SLEEP))
    pid = runtime.pid(container)
    expected = runtime.group(container)[1:]
    groups = [root / expected for root in cgroup_mounts() if (root / expected).exists()]
    controllers = [name for root in groups for name in root.parents[1].name.split(",")]
    if "cgroup.controllers" not in os.listdir("/sys/fs/cgroup"):
        assert set(controllers) >= {"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids"}
    assert groups
    for group in groups:
        assert (group / "cgroup.procs").read_text().split() == [str(pid)]
    runtime.delete(container, "--force").ok()
    assert [group for group in groups if group.exists()] == []


def test_exec_is_in_the_same_cgroup(runtime: Runtime, bundle: MakeBundle) -> None:
    """In every hierarchy."""
    container = runtime.run_detached(bundle(args=SLEEP))
    inside = runtime.exec(container, "cat", "/proc/self/cgroup").ok().out
    assert sorted(inside.splitlines()) == sorted(Path(f"/proc/{runtime.pid(container)}/cgroup").read_text().splitlines())


def test_memory_limit(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """Limit and reservation."""
    container = limited(runtime, bundle, memory={"limit": 64 << 20, "reservation": 32 << 20})
    group = runtime.group(container)
    assert file_of("memory", group, "memory.limit_in_bytes", "memory.max").read_text() == f"{64 << 20}\n"
    assert file_of("memory", group, "memory.soft_limit_in_bytes", "memory.low").read_text() == f"{32 << 20}\n"


def test_memory_limit_kills(runtime: Runtime, bundle: MakeBundle) -> None:
    """A process that takes more dies of SIGKILL."""
    if not available("memory"):
        pytest.skip("no memory controller in this view")
    made = bundle(resources={"memory": {"limit": 16 << 20, "swap": 16 << 20}})
    assert runtime.shell(made, "exec dd if=/dev/zero of=/dev/null bs=64M count=1").rc == 137


def test_pids_limit(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """The number, and that it holds."""
    container = limited(runtime, bundle, pids={"limit": 30})
    group = runtime.group(container)
    assert file_of("pids", group, "pids.max", "pids.max").read_text() == "30\n"
    result = runtime.exec(container, "sh", "-c", "for i in $(seq 40); do sleep 0.1 & done; wait")
    assert "can't fork" in result.err


def test_cpu(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """Quota, period and shares."""
    container = limited(runtime, bundle, cpu={"quota": 50_000, "period": 100_000, "shares": 512})
    group = runtime.group(container)
    quota = file_of("cpu", group, "cpu.cfs_quota_us", "cpu.max")
    assert quota.read_text() == ("50000 100000\n" if quota.name == "cpu.max" else "50000\n")
    shares = file_of("cpu", group, "cpu.shares", "cpu.weight")
    assert shares.read_text() == ("59\n" if shares.name == "cpu.weight" else "512\n")


def test_cgroup_mount(runtime: Runtime, bundle: MakeBundle) -> None:
    """/sys/fs/cgroup inside, read-only."""
    from tests.support.bundle import cgroup_mount  # noqa: PLC0415

    made = bundle(add_mounts=[cgroup_mount()], namespaces=["pid", "network", "ipc", "uts", "mount", "cgroup"])
    result = runtime.shell(made, "d=$(dirname $(find /sys/fs/cgroup -name cgroup.procs | head -n 1)); ls $d; mkdir $d/x")
    assert "cgroup.procs" in result.out
    assert "Read-only" in result.err


def test_a_cgroup_that_is_in_use(runtime: Runtime, bundle: MakeBundle) -> None:
    """Two containers do not share one."""
    made = bundle(args=SLEEP, cgroupsPath=runtime.cgroups_path(f"{runtime.token}-one"))
    runtime.create(made)
    runtime.try_create(made).failed("container's cgroup is not empty", rc=1)


def test_what_outlives_init(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """Without a pid namespace the children of a stopped container live on, until `delete` kills them by the cgroup."""
    made = bundle(args=["sh", "-c", "sleep 1000 & sleep 1000 & exit 0"], namespaces=["network", "ipc", "uts", "mount"])
    container = runtime.create(made)
    pid = runtime.pid(container)
    runtime.start(container).ok()
    runtime.wait(container, pid)
    name = runtime.group(container)[1:]
    group = next(root / name for root in cgroup_mounts() if (root / name).exists())
    wait_for(lambda: len((group / "cgroup.procs").read_text().split()) == 2, "the two children alone")
    assert runtime.status(container) == "stopped"
    runtime.delete(container, "--force").ok()
    assert not group.exists()
