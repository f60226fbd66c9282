"""How the kernel treats a container's process: scheduling, I/O priority, CPU affinity, NUMA memory, execution domain.

Everything is asked of the kernel, from outside, about a process that runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundle import Bundle, Config
from tests.support.runtime import Runtime
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace

_NUMBERS = {"x86_64": {"sched_getattr": 315, "ioprio_get": 252}, "aarch64": {"sched_getattr": 275, "ioprio_get": 31}}
_LIBC = ctypes.CDLL(None, use_errno=True)
CPUS = sorted(os.sched_getaffinity(0))
needs_two_cpus = pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs that may be used")


def _call(name: str, *words: Any) -> int:
    result: int = _LIBC.syscall(_NUMBERS[os.uname().machine][name], *words)
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def scheduling(pid: int) -> dict[str, int]:
    """What sched_getattr(2) says of a process."""
    buffer = ctypes.create_string_buffer(48)
    _call("sched_getattr", pid, buffer, 48, 0)
    names = ("size", "policy", "flags", "nice", "priority", "runtime", "deadline", "period")
    return dict(zip(names, struct.unpack("IIQiIQQQ", buffer.raw), strict=True))


def io_priority(pid: int) -> tuple[int, int]:
    """Class and priority, by ioprio_get(2)."""
    value = _call("ioprio_get", 1, pid)
    return value >> 13, value & 0x1FFF


def cpus(pid: int) -> str:
    """Where a process may run."""
    return Path(f"/proc/{pid}/status").read_text().partition("Cpus_allowed_list:\t")[2].split("\n")[0]


def personality(pid: int) -> int:
    """The execution domain of a process."""
    return int(Path(f"/proc/{pid}/personality").read_text(), 16)


def process_json(made: Bundle, **process: Any) -> Path:
    """A process.json that sleeps and says of the rest only what it must."""
    path = made.path / "process.json"
    path.write_text(json.dumps({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"], **process}))
    return path


def exec_detached(runtime: Runtime, container: str, *flags: str | Path, args: tuple[str, ...] = (), **options: Any) -> int:
    """`exec --detach`; the pid of the process."""
    pid_file = runtime.work / "exec.pid"
    arguments = ("exec", "--detach", "--pid-file", pid_file, *flags, container, *args)
    runtime.detached(*arguments, out=runtime.work / "exec.out", **options).ok()
    return int(pid_file.read_text())


def need_cpuset() -> None:
    """Skip where no hierarchy in sight has the controller."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if not Path("/sys/fs/cgroup/cpuset").exists() and "cpuset" not in (unified.read_text() if unified.exists() else ""):
        pytest.skip("no cgroup hierarchy in sight has the cpuset controller")


def sleeper(bundle: MakeBundle, *, process: Config | None = None, linux: Config | None = None) -> Bundle:
    """A bundle that sleeps, with these properties."""
    return bundle(args=["sleep", "1000"], process=process or {}, linux=linux or {})


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"policy": "SCHED_BATCH", "nice": 19}, {"policy": 3, "nice": 19, "flags": 0}),
        ({"policy": "SCHED_OTHER", "nice": -5}, {"policy": 0, "nice": -5}),
        ({"policy": "SCHED_IDLE"}, {"policy": 5}),
        (
            {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 100_000, "period": 1_000_000},
            {"policy": 6, "runtime": 42000, "deadline": 100_000, "period": 1_000_000},
        ),
    ],
)
def test_scheduler(runtime: Runtime, bundle: MakeBundle, asked: Config, found: dict[str, int]) -> None:
    """Policy, nice value, flags and times; from `create` on, past `start`, and for what `exec` runs."""
    container = runtime.create(sleeper(bundle, process={"scheduler": asked}))
    runtime.start(container).ok()
    assert scheduling(runtime.pid(container)).items() >= found.items()
    assert scheduling(exec_detached(runtime, container, args=("sleep", "1000"))).items() >= found.items()


@pytest.mark.ocirt_only("runc always makes cgroups, to which a kernel may give no share of real-time")
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, {"policy": 1, "flags": 1}),
        ({"policy": "SCHED_RR", "priority": 99}, {"policy": 2, "priority": 99}),
    ],
)
def test_real_time(runtime: Runtime, bundle: MakeBundle, asked: Config, found: dict[str, int]) -> None:
    """In the caller's cgroup, which may have what a new one has not (CONFIG_RT_GROUP_SCHED)."""
    made = sleeper(bundle, process={"scheduler": asked})
    container = runtime.create(made, globals_=["--cgroup-manager", "disabled"])
    runtime.start(container).ok()
    assert scheduling(runtime.pid(container)).items() >= found.items()
    assert scheduling(exec_detached(runtime, container, args=("sleep", "1000"))).items() >= found.items()


def test_scheduler_of_exec(runtime: Runtime, bundle: MakeBundle) -> None:
    """A process.json goes before config.json; without a word of it, config.json holds."""
    made = sleeper(bundle, process={"scheduler": {"policy": "SCHED_BATCH", "nice": 3}})
    container = runtime.run_detached(made)
    pid = exec_detached(runtime, container, "--process", process_json(made))
    assert (scheduling(pid)["policy"], scheduling(pid)["nice"]) == (3, 3)
    pid = exec_detached(runtime, container, "--process", process_json(made, scheduler={"policy": "SCHED_IDLE"}))
    assert scheduling(pid)["policy"] == 5


@pytest.mark.ocirt_only("runc's init asks from within the user namespace, and may not")
def test_real_time_in_a_user_namespace(runtime: Runtime, bundle: MakeBundle) -> None:
    """What root of a user namespace may not have is given by the runtime, from outside."""
    made = with_user_namespace(bundle(args=["sleep", "1000"]))
    process = {"scheduler": {"policy": "SCHED_FIFO", "priority": 3}, "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 2}}
    container = runtime.run_detached(made.edit(process=process), globals_=["--cgroup-manager", "disabled"])
    pid = runtime.pid(container)
    assert (scheduling(pid)["policy"], scheduling(pid)["priority"], io_priority(pid)) == (1, 3, (1, 2))
    pid = exec_detached(runtime, container, args=("sleep", "1000"))
    assert (scheduling(pid)["policy"], io_priority(pid)) == (1, (1, 2))


@needs_two_cpus
def test_deadlines_need_all_cpus(runtime: Runtime, bundle: MakeBundle) -> None:
    """The kernel grants no deadlines within a part of the CPUs: said with the two properties that do not go together."""
    need_cpuset()
    deadline = {"policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 1_000_000, "period": 1_000_000}
    made = sleeper(bundle, process={"scheduler": deadline}).edit(resources={"cpu": {"cpus": str(CPUS[0])}})
    runtime.run(made).failed("can't be used together with AllowedCPUs", rc=1)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"class": "IOPRIO_CLASS_BE", "priority": 4}, (2, 4)),
        ({"class": "IOPRIO_CLASS_RT", "priority": 7}, (1, 7)),
        ({"class": "IOPRIO_CLASS_IDLE"}, (3, 0)),
    ],
)
def test_io_priority(runtime: Runtime, bundle: MakeBundle, asked: Config, found: tuple[int, int]) -> None:
    """Class and priority; exec takes them over, and a process.json goes before."""
    made = sleeper(bundle, process={"ioPriority": asked})
    container = runtime.run_detached(made)
    assert io_priority(runtime.pid(container)) == found
    assert io_priority(exec_detached(runtime, container, args=("sleep", "1000"))) == found
    other = process_json(made, ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6})
    assert io_priority(exec_detached(runtime, container, "--process", other)) == (2, 6)


@needs_two_cpus
def test_affinity_of_the_caller_is_left(runtime: Runtime, bundle: MakeBundle) -> None:
    """A runtime that is bound to one CPU does not bind the container to it: neither `run` nor `exec`."""
    everywhere = cpus(os.getpid())
    made = sleeper(bundle)
    os.sched_setaffinity(0, {CPUS[0]})
    try:
        container = runtime.run_detached(made)
        pid = exec_detached(runtime, container, args=("sleep", "1000"))
    finally:
        os.sched_setaffinity(0, CPUS)
    assert [cpus(runtime.pid(container)), cpus(pid)] == [everywhere] * 2


@needs_two_cpus
def test_affinity_keeps_to_the_cpuset(runtime: Runtime, bundle: MakeBundle) -> None:
    """All CPUs means those of the cgroup."""
    need_cpuset()
    made = sleeper(bundle).edit(resources={"cpu": {"cpus": str(CPUS[1]), "mems": "0"}})
    os.sched_setaffinity(0, {CPUS[0]})
    try:
        container = runtime.run_detached(made)
        pid = exec_detached(runtime, container, args=("sleep", "1000"))
    finally:
        os.sched_setaffinity(0, CPUS)
    assert [cpus(runtime.pid(container)), cpus(pid)] == [str(CPUS[1])] * 2


@needs_two_cpus
def test_affinity_of_exec(runtime: Runtime, bundle: MakeBundle) -> None:
    """`final` is where the process runs; `initial` holds where `final` says nothing. A process.json goes before config.json."""
    first, second = str(CPUS[0]), str(CPUS[1])
    made = sleeper(bundle, process={"execCPUAffinity": {"initial": first, "final": second}})
    container = runtime.run_detached(made)
    assert cpus(runtime.pid(container)) == cpus(os.getpid())  # it is said of exec alone
    assert cpus(exec_detached(runtime, container, args=("sleep", "1000"))) == second
    assert cpus(exec_detached(runtime, container, "--process", process_json(made))) == second
    only = process_json(made, execCPUAffinity={"initial": second})
    # Before Linux 6.2 coming into a cgroup with cpusets was the end of what was asked for before.
    kept = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 2)
    assert cpus(exec_detached(runtime, container, "--process", only)) in ((second,) if kept else (second, cpus(os.getpid())))
    wide = process_json(made, execCPUAffinity={"final": f" {first}, {second},"})
    assert cpus(exec_detached(runtime, container, "--process", wide)) == cpus(os.getpid())
    none = process_json(made, execCPUAffinity={"final": "1000"})
    runtime.call("exec", "--process", none, container).failed("(?i)affinity.*invalid argument", rc=255)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "prefer=relative:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0-0"}, "prefer (many):0"),
        ({"mode": "MPOL_PREFERRED"}, "local"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
    ],
)
def test_memory_policy(runtime: Runtime, bundle: MakeBundle, policy: Config, found: str) -> None:
    """Of init, past `start`, and of what `exec` runs."""
    container = runtime.create(sleeper(bundle, linux={"memoryPolicy": policy}))
    runtime.start(container).ok()
    for pid in (runtime.pid(container), exec_detached(runtime, container, args=("sleep", "1000"))):
        text = Path(f"/proc/{pid}/numa_maps").read_text().split("\n")[0].split(" ", 1)[1]
        assert text.startswith(found + " "), text


def test_memory_of_a_node_that_is_not_there(runtime: Runtime, bundle: MakeBundle) -> None:
    """The kernel refuses, and nothing is left."""
    policy = {"mode": "MPOL_BIND", "nodes": "700-710"}
    runtime.run(sleeper(bundle, linux={"memoryPolicy": policy})).failed("set_mempolicy.*invalid argument", rc=1)


@pytest.mark.parametrize(("domain", "number"), [("LINUX32", 8), ("LINUX", 0)])
def test_personality(runtime: Runtime, bundle: MakeBundle, domain: str, number: int) -> None:
    """The execution domain, also of what `exec` runs."""
    if os.uname().machine != "x86_64" and number:
        pytest.skip("this machine may have no 32-bit domain")
    container = runtime.create(sleeper(bundle, linux={"personality": {"domain": domain}}))
    runtime.start(container).ok()
    assert personality(runtime.pid(container)) == number
    assert personality(exec_detached(runtime, container, args=("sleep", "1000"))) == number


def test_personality_under_a_filter_that_denies_it(runtime: Runtime, bundle: MakeBundle) -> None:
    """It is set before the filter is loaded."""
    rule = {"names": ["personality"], "action": "SCMP_ACT_ERRNO"}
    section = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    made = sleeper(bundle, linux={"personality": {"domain": "LINUX"}, "seccomp": section})
    container = runtime.run_detached(made)
    assert personality(exec_detached(runtime, container, args=("sleep", "1000"))) == 0
