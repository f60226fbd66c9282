"""`update`: the limits of a container that exists, by what they do."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import Isolation
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import SLEEP, available, file_of, limited

MIB = 1 << 20
FORKS = "n=0; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done 2>/dev/null; wait; echo done"


class Group:
    """The cgroup files of one container, in whichever version."""

    def __init__(self, runtime: Runtime, container: str) -> None:
        self.name = runtime.group(container)

    def file(self, controller: str, v1: str, v2: str) -> Path:
        return file_of(controller, self.name, v1, v2)

    def read(self, controller: str, v1: str, v2: str = "-") -> str:
        return self.file(controller, v1, v2).read_text().strip()

    def memory(self) -> tuple[int, int]:
        """The limits of memory, and of memory and swap together (-1: none), as config.json counts them."""
        limit = self.file("memory", "memory.limit_in_bytes", "memory.max")
        if limit.name == "memory.max":
            values = [limit.read_text().strip(), limit.with_name("memory.swap.max").read_text().strip()]
            numbers = [-1 if value == "max" else int(value) for value in values]
            return numbers[0], -1 if -1 in numbers else sum(numbers)
        values = [limit.read_text(), limit.with_name("memory.memsw.limit_in_bytes").read_text()]
        numbers = [int(value) for value in values]
        return numbers[0] if numbers[0] < 1 << 60 else -1, numbers[1] if numbers[1] < 1 << 60 else -1

    def cpu(self) -> tuple[int, int]:
        """Quota (-1: none) and period."""
        quota = self.file("cpu", "cpu.cfs_quota_us", "cpu.max")
        if quota.name == "cpu.max":
            first, second = quota.read_text().split()
            return -1 if first == "max" else int(first), int(second)
        return int(quota.read_text()), int(quota.with_name("cpu.cfs_period_us").read_text())


def needs(*controllers: str) -> None:
    """Skip where no hierarchy has them."""
    missing = [name for name in controllers if not available(name)]
    if missing:
        pytest.skip(f"no controller here: {missing}")


def version_1() -> bool:
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@pytest.fixture
def update(runtime: Runtime) -> Any:
    """`update(container, "--flag", …)` or `update(container, {resources})`, which have to succeed."""

    def run(container: str, *args: Any) -> None:
        if args and isinstance(args[0], dict):
            runtime.call("update", "--resources", "-", container, stdin=json.dumps(args[0])).ok()
        else:
            result = runtime.call("update", *args, container).ok()
            assert (result.out, result.err) == ("", "")

    return run


def test_memory_up_and_down(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """Whatever order of writes the kernel needs; and without a limit."""
    container = limited(runtime, bundle, memory={"limit": 64 * MIB, "swap": 96 * MIB})
    group = Group(runtime, container)
    assert group.memory() == (64 * MIB, 96 * MIB)
    for limit, swap in ((128, 160), (32, 32), (256, 512), (16, 20)):
        update(container, "--memory", f"{limit}m", "--memory-swap", f"{swap}M")
        assert group.memory() == (limit * MIB, swap * MIB)
    update(container, "--memory", str(18 * MIB))
    assert group.memory() == (18 * MIB, 20 * MIB)
    update(container, {"memory": {"swap": -1}})
    assert group.memory() == (18 * MIB, -1)
    update(container, {"memory": {"limit": 20 * MIB, "swap": 30 * MIB, "reservation": 10 * MIB}})
    assert group.memory() == (20 * MIB, 30 * MIB)
    assert group.read("memory", "memory.soft_limit_in_bytes", "memory.low") == str(10 * MIB)
    update(container, "--memory", "-1")
    assert group.memory() == (-1, -1)


def test_memory_limit_kills(runtime: Runtime, bundle: MakeBundle, update: Any) -> None:
    """What had room before has none after."""
    container = limited(runtime, bundle, memory={"limit": 256 * MIB, "swap": 256 * MIB})
    hungry = ("dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    runtime.exec(container, *hungry).ok()
    update(container, "--memory", "16m", "--memory-swap", "16m")
    assert runtime.exec(container, *hungry).rc == 137
    update(container, "--memory", "256m", "--memory-swap", "256m")
    runtime.exec(container, *hungry).ok()


def test_memory_below_what_is_used(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """Refused by version 1, and by version 2 if asked to look first; the container lives on, limited as before."""
    needs("memory")
    resources = {"memory": {"limit": 256 * MIB, "swap": 256 * MIB}}
    # A variable of the shell holds what cannot be taken away from it.
    script = "x=$(seq 1500000); echo ready; sleep 1000; echo $x"
    container = runtime.run_detached(bundle(args=["sh", "-c", script], resources=resources))
    runtime.wait_output(container, "ready", 60)
    group = Group(runtime, container)
    document = {"memory": {"limit": 4 * MIB, "swap": 4 * MIB, "checkBeforeUpdate": True}}
    result = runtime.call("update", "-r", "-", container, stdin=json.dumps(document))
    result.failed(
        r"unable to set memory limit to 4194304 \(current usage: \d+, peak" if version_1() else "rejecting memory", rc=1
    )
    assert group.memory() == (256 * MIB, 256 * MIB)
    assert runtime.status(container) == "running"


def test_pids(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """Forks fail, or do not; -1 is no limit, 0 is one."""
    container = limited(runtime, bundle, pids={"limit": 100})
    group = Group(runtime, container)
    assert "done" in runtime.exec(container, "sh", "-c", FORKS).ok().out
    update(container, "--pids-limit", "8")
    assert group.read("pids", "pids.max", "pids.max") == "8"
    assert "done" not in runtime.exec(container, "sh", "-c", FORKS).out
    update(container, "--pids-limit", "-1")
    assert group.read("pids", "pids.max", "pids.max") == "max"
    assert "done" in runtime.exec(container, "sh", "-c", FORKS).ok().out
    update(container, {"pids": {"limit": 0}})
    assert group.read("pids", "pids.max", "pids.max") == "1"


def throttled(group: Group) -> int:
    fields = group.read("cpu", "cpu.stat", "cpu.stat").split()
    return int(fields[fields.index("nr_throttled") + 1])


def test_cpu_quota_throttles(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """A busy container is held back from the update on, and not any more after another one."""
    needs("cpu")
    container = runtime.run_detached(bundle(args=["sh", "-c", "while :; do :; done"]))
    group = Group(runtime, container)
    assert group.cpu() == (-1, 100000)
    update(container, "--cpu-quota", "5000", "--cpu-period", "50000")
    assert group.cpu() == (5000, 50000)
    wait_for(lambda: throttled(group) >= 2, "throttling")
    update(container, "--cpu-quota", "-1")
    assert group.cpu() == (-1, 50000)
    before = throttled(group)
    used = group.read("cpuacct", "cpuacct.usage", "cpu.stat")
    wait_for(lambda: group.read("cpuacct", "cpuacct.usage", "cpu.stat") != used, "more time")
    assert throttled(group) <= before + 1


def test_quota_and_period_apart(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """Each leaves the other as it is, although version 2 has one file for both; and the kernel may want another order."""
    container = limited(runtime, bundle, cpu={"quota": 20000, "period": 200000})
    group = Group(runtime, container)
    update(container, "--cpu-quota", "30000")
    assert group.cpu() == (30000, 200000)
    update(container, "--cpu-period", "40000")
    assert group.cpu() == (30000, 40000)
    update(container, "--cpu-quota", "900000", "--cpu-period", "1000000", "--cpu-burst", "500000")
    assert group.cpu() == (900000, 1000000)
    assert group.read("cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "500000"
    update(container, "--cpu-quota", "1000", "--cpu-period", "1000", "--cpu-burst", "0")
    assert group.cpu() == (1000, 1000)
    assert group.read("cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "0"


@pytest.mark.ocirt_only("runc forgets the period after an update that does not name it")
def test_the_period_is_remembered(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    container = limited(runtime, bundle, cpu={"quota": 20000, "period": 200000})
    update(container, "--cpu-share", "512")
    update(container, "--cpu-quota", "30000")
    assert Group(runtime, container).cpu() == (30000, 200000)


def test_shares_and_idle(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    container = limited(runtime, bundle, cpu={"shares": 512})
    group = Group(runtime, container)
    update(container, "--cpu-share", "256")
    assert group.read("cpu", "cpu.shares", "cpu.weight") in ("256", "35")
    update(container, "--cpu-idle", "1")
    assert group.read("cpu", "cpu.idle", "cpu.idle") == "1"
    runtime.call("update", "--cpu-share", "512", container).failed("nvalid argument", rc=1)
    update(container, "--cpu-idle", "0")
    assert group.read("cpu", "cpu.idle", "cpu.idle") == "0"
    update(container, "--cpu-share", "1024")
    assert group.read("cpu", "cpu.shares", "cpu.weight") in ("1024", "100")


def test_cpuset_moves_processes(runtime: Runtime, bundle: MakeBundle, update: Any) -> None:
    """A process of the container may run where the update says."""
    needs("cpuset")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    container = runtime.run_detached(bundle(args=SLEEP))
    last = str(max(os.sched_getaffinity(0)))
    assert os.sched_getaffinity(runtime.pid(container)) == os.sched_getaffinity(0)
    update(container, "--cpuset-cpus", last, "--cpuset-mems", "0")
    assert os.sched_getaffinity(runtime.pid(container)) == {int(last)}
    update(container, {"cpu": {"cpus": "0"}})
    assert os.sched_getaffinity(runtime.pid(container)) == {0}
    # A memory limit leaves it alone.
    if available("memory"):
        update(container, "--memory", "64m")
    assert os.sched_getaffinity(runtime.pid(container)) == {0}


def disk() -> tuple[int, int]:
    """Some whole disk. Skips the test if there is none."""
    for path in sorted(Path("/sys/block").glob("*/dev")):
        if not path.parent.name.startswith(("loop", "ram", "zram")):
            major, minor = path.read_text().split(":")
            return int(major), int(minor)
    pytest.skip("no disk")


def test_io_limits(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """One device's limit changes, another kind is added, and the first stays; none is 0."""
    needs(*(["blkio"] if version_1() else ["io"]))
    major, minor = disk()
    device = {"major": major, "minor": minor}
    container = runtime.run_detached(
        bundle(args=SLEEP, resources={"blockIO": {"throttleReadBpsDevice": [device | {"rate": 1 * MIB}]}}),
    )
    group = Group(runtime, container)

    def rates() -> list[str]:
        if version_1():
            files = ("read_bps", "write_bps", "read_iops", "write_iops")
            lines = [group.read("blkio", f"blkio.throttle.{name}_device") for name in files]
            return [line.partition(" ")[2] or "max" for line in lines]
        parts = dict(part.split("=") for part in group.read("io", "-", "io.max").split()[1:])
        return [parts.get(name, "max") for name in ("rbps", "wbps", "riops", "wiops")]

    assert rates() == [str(MIB), "max", "max", "max"]
    update(container, {"blockIO": {"throttleReadBpsDevice": [device | {"rate": 2 * MIB}]}})
    update(container, {"blockIO": {"throttleWriteIOPSDevice": [device | {"rate": 99}]}})
    assert rates() == [str(2 * MIB), "max", "max", "99"]
    if version_1():
        update(container, {"blockIO": {"throttleReadBpsDevice": [device | {"rate": 0}]}})
        assert rates() == ["max", "max", "max", "99"]


def test_io_weight(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    needs(*(["blkio"] if version_1() else ["io"]))
    container = runtime.run_detached(bundle(args=SLEEP))
    group = Group(runtime, container)
    directory = group.file("blkio" if version_1() else "io", "cgroup.procs", "cgroup.procs").parent
    files = [directory / name for name in ("blkio.weight", "blkio.bfq.weight", "io.bfq.weight", "io.weight")]
    file = next((path for path in files if path.exists()), None)
    if file is None:
        pytest.skip("this kernel has no weights of I/O")
    update(container, "--blkio-weight", "500")
    assert file.read_text().split()[-1] == ("4950" if file.name == "io.weight" else "500")


@pytest.mark.ocirt_only("runc's update leaves huge pages aside")
def test_huge_pages(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    needs("hugetlb")
    if version_1() and not Path("/sys/fs/cgroup/hugetlb").exists():
        pytest.skip("beside version 1 the controllers of version 2 are not used")
    container = runtime.run_detached(bundle(args=SLEEP, resources={"hugepageLimits": [{"pageSize": "2MB", "limit": 8 * MIB}]}))
    group = Group(runtime, container)
    assert group.read("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max") == str(8 * MIB)
    update(container, {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]})
    for name in ("hugetlb.2MB", "hugetlb.2MB.rsvd"):
        assert group.read("hugetlb", name + ".limit_in_bytes", name + ".max") == str(4 * MIB)
    if not version_1():
        update(container, {"unified": {"hugetlb.2MB.max": str(2 * MIB), "cgroup.max.depth": "3"}})
        assert group.read("hugetlb", "-", "hugetlb.2MB.max") == str(2 * MIB)
        assert group.read("hugetlb", "-", "cgroup.max.depth") == "3"


def test_unified(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """Any file of version 2; in version 1 there is none."""
    container = runtime.run_detached(bundle(args=SLEEP))
    document = {"unified": {"cgroup.max.descendants": "7"}}
    if version_1():
        result = runtime.call("update", "-r", "-", container, stdin=json.dumps(document))
        result.failed("cannot use unified on cgroup v1", rc=1)
        return
    update(container, document)
    root = Path("/sys/fs/cgroup" + runtime.group(container))
    assert (root / "cgroup.max.descendants").read_text() == "7\n"


def test_realtime(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    """The runtime within the parent's, or an error that names the flag."""
    needs("cpu")
    container = runtime.run_detached(bundle(args=SLEEP))
    group = Group(runtime, container)
    file = group.file("cpu", "cpu.rt_runtime_us", "cpu.weight")
    if file.name != "cpu.rt_runtime_us":
        pytest.skip("version 2 has no realtime settings")
    file.parent.parent.joinpath("cpu.rt_runtime_us").write_text("50000")
    update(container, "--cpu-rt-period", "500000", "--cpu-rt-runtime", "2000")
    assert file.read_text() == "2000\n"
    assert file.with_name("cpu.rt_period_us").read_text() == "500000\n"
    runtime.call("update", "--cpu-rt-runtime", "900000", container).failed("nvalid argument|--cpu-rt-runtime", rc=1)
    assert file.read_text() == "2000\n"


def test_device_rules_stay(runtime: Runtime, bundle: MakeBundle, update: Any) -> None:
    """Whatever the document says of devices: others may have added rules."""
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    ]
    device = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666, "uid": 0, "gid": 0}]
    container = runtime.run_detached(bundle(args=SLEEP, resources={"devices": rules}, devices=device))
    opens = ("sh", "-c", "exec 3>/dev/kmsg")
    runtime.exec(container, *opens).ok()
    document: dict[str, Any] = {"devices": [{"allow": False, "access": "rwm"}]}
    if available("pids"):
        document["pids"] = {"limit": 50}
    update(container, document)
    runtime.exec(container, *opens).ok()


def test_created_and_paused(runtime: Runtime, bundle: MakeBundle, isolation: Isolation, update: Any) -> None:
    needs("pids")
    container = runtime.create(bundle(args=SLEEP))
    group = Group(runtime, container)
    update(container, "--pids-limit", "20")
    assert group.read("pids", "pids.max", "pids.max") == "20"
    runtime.start(container).ok()
    runtime.call("pause", container).ok()
    update(container, "--pids-limit", "30")
    assert group.read("pids", "pids.max", "pids.max") == "30"
    assert runtime.status(container) == "paused"


def test_stopped(runtime: Runtime, bundle: MakeBundle) -> None:
    container = runtime.run_detached(bundle(args=["true"]))
    wait_for(lambda: runtime.status(container) == "stopped", "its end")
    runtime.call("update", "--pids-limit", "5", container).failed("container not running", rc=1)
    runtime.call("update", "--pids-limit", "5", "nobody").failed("container does not exist", rc=1)


@pytest.mark.ocirt_only("runc leaves what it had written before the failure")
def test_a_failure_leaves_the_old_values(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """What the kernel has taken already goes back; and the next update knows nothing of it."""
    needs("memory", "pids", "cpu", "cpuset")
    resources = {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "cpu": {"quota": 20000, "period": 100000, "shares": 512}}
    container = runtime.run_detached(bundle(args=SLEEP, resources=resources | {"pids": {"limit": 20}}))
    group = Group(runtime, container)

    def state() -> list[Any]:
        shares = group.read("cpu", "cpu.shares", "cpu.weight")
        return [group.memory(), group.cpu(), group.read("pids", "pids.max", "pids.max"), shares]

    before = state()
    flags = ["--memory", "128m", "--memory-swap", "256m", "--pids-limit", "5", "--cpu-quota", "90000", "--cpu-period", "300000"]
    result = runtime.call("update", *flags, "--cpu-share", "100", "--cpuset-mems", "63", container)
    result.failed("--cpuset-mems: failed to write '63'", rc=1)
    assert state() == before
    flags = ["--memory", "8m", "--memory-swap", "8m", "--cpu-quota", "1000", "--cpu-period", "1000"]
    runtime.call("update", *flags, "--cpuset-mems", "63", container).failed("--cpuset-mems", rc=1)
    assert state() == before
    runtime.call("update", "--cpu-quota", "30000", container).ok()
    assert group.cpu() == (30000, 100000)


@pytest.mark.ocirt_only("runc does not say which flag")
def test_a_controller_that_is_not_there(runtime: Runtime, bundle: MakeBundle) -> None:
    """By name."""
    missing = [name for name in ("memory", "pids", "cpu", "cpuset") if not available(name)]
    if not missing:
        pytest.skip("every controller is there")
    flag = {"memory": "--memory=64m", "pids": "--pids-limit=5", "cpu": "--cpu-share=512", "cpuset": "--cpuset-cpus=0"}[missing[0]]
    container = runtime.run_detached(bundle(args=SLEEP))
    result = runtime.call("update", flag, container)
    result.failed(flag.partition("=")[0] + rf': .*controller \\?"{missing[0]}\\?" not available', rc=1)


def test_two_at_once(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """One waits for the other: both last."""
    needs("pids", "cpu")
    container = runtime.run_detached(bundle(args=SLEEP))
    flags = [("--pids-limit", "40"), ("--cpu-share", "300"), ("--cpu-quota", "40000"), ("--cpu-burst", "0")]
    running = [subprocess.Popen(runtime.argv("update", *each, container)) for each in flags]
    assert [process.wait() for process in running] == [0] * len(flags)
    group = Group(runtime, container)
    assert group.read("pids", "pids.max", "pids.max") == "40"
    assert group.cpu() == (40000, 100000)


def test_a_flag_that_says_nothing(runtime: Runtime, bundle: MakeBundle) -> None:
    """In runc's words."""
    container = runtime.run_detached(bundle(args=SLEEP))
    for args, message in (
        (("--memory", "1x"), "invalid value for memory: invalid suffix: 'x'"),
        (("--memory", "xx"), "invalid value for memory: invalid size: 'xx'"),
        (("--cpu-share", "abc"), r'invalid value for cpu-share: strconv.ParseUint: parsing \\"abc\\": invalid syntax'),
        (("--pids-limit", "x"), r'invalid value \\"x\\" for flag -pids-limit: parse error'),
        (("--l3-cache-schema", "L3:0=f"), "Intel RDT/CAT: l3 cache schema is not enabled"),
        (("--mem-bw-schema", "MB:0=5"), "Intel RDT/MBA: memory bandwidth schema is not enabled"),
        (("-r", "/nowhere"), "open /nowhere: no such file or directory"),
    ):
        runtime.call("update", *args, container).failed(message, rc=1)


@pytest.mark.ocirt_only("runc's update leaves the OOM killer aside")
def test_oom_killer(runtime: Runtime, bundle: MakeBundle, update: Any) -> None:
    """Without it a process waits for memory; once it is back, the process is killed. Version 2 always has it."""
    if not version_1():
        pytest.skip("version 2 has no such setting")
    container = limited(runtime, bundle, memory={"limit": 16 * MIB, "swap": 16 * MIB, "disableOOMKiller": True})
    # Not dd: a read(2) that lacks memory half-way is a short one, and no more.
    argv = runtime.argv("exec", container, "sh", "-c", "x=$(seq 5000000)")
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            file = file_of("memory", runtime.group(container), "memory.oom_control", "-")
            wait_for(lambda: "under_oom 1" in file.read_text(), "the lack of memory")
            assert process.poll() is None
            update(container, {"memory": {"disableOOMKiller": False}})
            assert process.wait(10) == 137
        finally:
            process.kill()


def test_killed_half_way(runtime: Runtime, bundle: MakeBundle, isolation: Isolation) -> None:
    """Before any of its writes: the container is as it was or as asked for, its record whole, and the next update works."""
    needs("pids", "memory")
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    container = runtime.run_detached(bundle(args=SLEEP, resources={"memory": {"limit": 64 * MIB, "swap": 64 * MIB}}))
    group = Group(runtime, container)
    killed = 0
    for name in ("write", "rename"):
        for number in itertools.count(1):
            inject = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"inject={name}:signal=KILL:when={number}"]
            flags = ("--memory", "128m", "--memory-swap", "256m", "--pids-limit", "9")
            done = subprocess.run([*inject, *runtime.argv("update", *flags, container)], check=False, timeout=20)
            if done.returncode == 0:
                break
            killed += 1
            assert runtime.status(container) == "running"
            for limit, swap in (("32m", "48m"), ("64m", "64m")):
                runtime.call("update", "--memory", limit, "--memory-swap", swap, "--pids-limit", "-1", container).ok()
            assert group.memory() == (64 * MIB, 64 * MIB)
            assert group.read("pids", "pids.max", "pids.max") == "max"
    assert killed >= 4
    assert group.memory() == (128 * MIB, 256 * MIB)
    runtime.delete(container, "--force").ok()
