"""The last steps before a container's program: no system call that a filter, a limit or a signal could turn into a failure.

The tail is written in Python. It promises what one in C would give: between the filter and execve(2) nothing happens but what the
plan queued.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.seccomp_profiles import docker_default, small
from tests.support.bundle import Bundle, busybox
from tests.support.runtime import Runtime, wait_for
from tests.system.conftest import MakeBundle

pytestmark = pytest.mark.ocirt_only("a peer's tail is its own affair")

MIB = 1 << 20
SIGSYS_CODE = 128 + 31
# The code of "exit_group(42)", by machine.
_EXIT_42 = {
    "x86_64": (62, bytes.fromhex("bf2a000000b8e70000000f05")),
    "aarch64": (183, bytes.fromhex("400580d2c80b80d2010000d4")),
}
_BASE = 0x400000


def smallest_program() -> bytes:
    """A static ELF file of one page, without a C library: its only system call is exit_group(42)."""
    if platform.machine() not in _EXIT_42:
        pytest.skip(f"no machine code for {platform.machine()}")
    machine, code = _EXIT_42[platform.machine()]
    head = 64 + 56
    size = head + len(code)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    file = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, machine, 1, _BASE + head, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return file + segment + code


@pytest.fixture
def exits(bundle: MakeBundle) -> Bundle:
    """A bundle whose program exits with 42 and does nothing else."""
    made = bundle(args=["/bin/exits"])
    path = made.rootfs / "bin" / "exits"
    path.write_bytes(smallest_program())
    path.chmod(0o755)
    return made


class Traced:
    """A command under `strace -f`, and the calls of the process that loads a filter."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        found = shutil.which("strace")
        if found is None:
            pytest.skip("strace is not installed")
        self.log = log
        self.process = subprocess.Popen(
            [found, "-f", "-qq", "-s", "256", "-o", str(log), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait(self) -> int:
        """Its exit code, which is the command's."""
        return self.process.wait(30)

    def tail(self) -> list[str]:
        """The names of the calls between seccomp(2) that succeeded and the execve(2) after it, in the same process."""
        lines = self.log.read_text(errors="replace").splitlines()
        # libseccomp asks with a null pointer what the kernel knows.
        loading = [index for index, line in enumerate(lines) if re.search(r" seccomp\(SECCOMP_SET_MODE_FILTER.* = 0$", line)]
        assert len(loading) == 1, f"{len(loading)} filters were loaded"
        pid = lines[loading[0]].split()[0]
        names: list[str] = []
        for line in lines[loading[0] + 1 :]:
            name = re.match(rf"{pid}\s+(\w+)\(", line)
            if name is None:
                continue
            if name[1] == "execve":
                assert re.search(r"= 0$|<unfinished", line), line
                return names
            names.append(name[1])
        message = f"no execve after the filter:\n{self.log.read_text()[-2000:]}"
        raise AssertionError(message)


@contextmanager
def traced(argv: Sequence[str], log: Path) -> Iterator[Traced]:
    """Run a command under strace for the length of the context."""
    made = Traced(argv, log)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()


@pytest.mark.parametrize(("no_new_privileges", "between"), [(True, []), (False, ["capset"])])
def test_no_call_between_filter_and_program(
    runtime: Runtime,
    bundle: MakeBundle,
    tmp_path: Path,
    no_new_privileges: bool,  # noqa: FBT001
    between: list[str],
) -> None:
    """`run`, `create` with `start`, `exec`: nothing; without no_new_privs the capset(2) that takes CAP_SYS_ADMIN back."""
    made = bundle(args=["/bin/true"], noNewPrivileges=no_new_privileges, seccomp=small())
    container = runtime.new_id()
    runtime.prepare(made, container)
    with traced(runtime.argv("run", "--bundle", made.path, container), tmp_path / "run") as strace:
        assert strace.wait() == 0
        assert strace.tail() == between

    container = runtime.new_id()
    runtime.prepare(made, container)
    with traced(runtime.argv("create", "--bundle", made.path, container), tmp_path / "create") as strace:
        wait_for(lambda: runtime.call("state", container).rc == 0 and runtime.status(container) == "created", "the container")
        runtime.start(container).ok()
        strace.wait()
        assert strace.tail() == between
    runtime.delete(container, "--force").ok()

    container = runtime.run_detached(made.edit(args=["/bin/sleep", "1000"]))
    with traced(runtime.argv("exec", container, "/bin/true"), tmp_path / "exec") as strace:
        assert strace.wait() == 0
        assert strace.tail() == between


LIMITS: dict[str, list[dict[str, Any]]] = {
    "address space of 1 MiB": [{"type": "RLIMIT_AS", "soft": MIB, "hard": MIB}],
    "three descriptors": [{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}],
    "no descriptor": [{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 0}],
    "one page of data": [{"type": "RLIMIT_DATA", "soft": 4096, "hard": 4096}],
    "no files": [{"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}],
    "one process": [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}],
    "no locked memory": [{"type": "RLIMIT_MEMLOCK", "soft": 0, "hard": 0}],
    "a stack of 128 KiB": [{"type": "RLIMIT_STACK", "soft": 131072, "hard": 131072}],
    "one second of processor time": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}],
}
LIMITS["all of them"] = [limit for name, limits in LIMITS.items() if name != "no descriptor" for limit in limits]


@pytest.mark.parametrize("seccomp", [None, docker_default()], ids=["no filter", "docker's filter"])
@pytest.mark.parametrize("name", LIMITS)
def test_tight_limits(runtime: Runtime, exits: Bundle, name: str, seccomp: dict[str, Any] | None) -> None:
    """They are the program's, not the runtime's: a program that fits into them starts, whoever runs it and however."""
    limits = LIMITS[name]
    for user in ({"uid": 0, "gid": 0}, {"uid": 1234, "gid": 1234}):
        exits.edit(rlimits=limits, user=user, seccomp=seccomp)
        assert runtime.run(exits).rc == 42
        container = runtime.create(exits)
        pid = runtime.pid(container)
        runtime.start(container).ok()
        assert runtime.wait(container, pid) == 42
        runtime.delete(container).ok()


def test_tight_limits_of_exec(runtime: Runtime, exits: Bundle, tmp_path: Path) -> None:
    """The same for `exec`, by process.json."""
    container = runtime.run_detached(exits.edit(args=["/bin/sleep", "1000"], seccomp=small()))
    process = {**exits.config["process"], "args": ["/bin/exits"], "rlimits": LIMITS["all of them"]}
    (tmp_path / "process.json").write_text(json.dumps(process))
    assert runtime.call("exec", "--process", tmp_path / "process.json", container).rc == 42


def test_limits_are_as_written(runtime: Runtime, bundle: MakeBundle) -> None:
    """What the program sees, for limits that leave room for the probe."""
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3},
        {"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NPROC", "soft": 1, "hard": 1},
        {"type": "RLIMIT_DATA", "soft": 8 * MIB, "hard": 16 * MIB},
        {"type": "RLIMIT_AS", "soft": 16 * MIB, "hard": 32 * MIB},
    ]
    # Its output goes to a pipe: a file may not grow.
    seen = runtime.probe(bundle(rlimits=limits, seccomp=docker_default()))
    for limit in limits:
        assert seen["rlimits"][limit["type"]] == [limit["soft"], limit["hard"]]


def only(*names: str, default: str) -> dict[str, Any]:
    """A filter that allows these calls and no other."""
    return {"defaultAction": default, "syscalls": [{"names": list(names), "action": "SCMP_ACT_ALLOW"}]}


DEFAULTS = ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL", "SCMP_ACT_ERRNO", "SCMP_ACT_TRAP"]


@pytest.mark.parametrize("default", DEFAULTS)
def test_a_filter_that_allows_next_to_nothing(runtime: Runtime, exits: Bundle, default: str) -> None:
    """execve, close_range, exit and exit_group: the program runs to its own end. Without close_range, too."""
    for names in (("execve", "close_range", "exit", "exit_group"), ("execve", "exit_group")):
        exits.edit(args=["/bin/exits"], seccomp=only(*names, default=default))
        assert runtime.run(exits).rc == 42
        container = runtime.create(exits)
        pid = runtime.pid(container)
        runtime.start(container).ok()
        assert runtime.wait(container, pid) == 42
        runtime.delete(container).ok()
    container = runtime.run_detached(exits.edit(args=["/bin/sleep", "1000"], seccomp=None))
    # `exec` takes the filter that the container was made with: here none.
    assert runtime.exec(container, "/bin/exits").rc == 42


def test_the_filter_is_the_programs(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """A program that needs more than the filter allows is killed by it after execve(2), not before."""
    made = bundle(
        args=["/bin/true"], seccomp=only("execve", "close_range", "exit", "exit_group", default="SCMP_ACT_KILL_PROCESS")
    )
    assert runtime.run(made).rc == SIGSYS_CODE
    container = runtime.new_id()
    runtime.prepare(made, container)
    with traced(runtime.argv("run", "--bundle", made.path, container), tmp_path / "log") as strace:
        assert strace.wait() == SIGSYS_CODE
        assert strace.tail() == []


@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"])
def test_a_filter_that_forbids_the_start(runtime: Runtime, exits: Bundle, default: str) -> None:
    """Without execve in it no program runs, and nothing hangs: not even a word about it is allowed to init."""
    exits.edit(seccomp=only("exit_group", default=default))
    assert runtime.run(exits).rc not in (0, 42)
    container = runtime.create(exits)
    pid = runtime.pid(container)
    runtime.start(container)
    assert runtime.wait(container, pid) not in (0, 42)
    assert runtime.status(container) == "stopped"
    runtime.delete(container).ok()


def calls_of(command: Sequence[str], log: Path) -> set[str]:
    """The names of the system calls that a program makes."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    subprocess.run([strace, "-qq", "-o", str(log), *command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return set(re.findall(r"^(\w+)\(", log.read_text(), re.MULTILINE))


def test_kill_by_default(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """What busybox needs for `true`, and not one call for the runtime; one less, and it dies."""
    needed = calls_of([str(busybox()), "true"], tmp_path / "calls") | {"exit_group"}
    runtime.run(bundle(args=["/bin/busybox", "true"], seccomp=only(*needed, default="SCMP_ACT_KILL"))).ok()
    fewer = only(*(needed - {"exit_group"}), default="SCMP_ACT_KILL_PROCESS")
    assert runtime.run(bundle(args=["/bin/busybox", "true"], seccomp=fewer)).rc == SIGSYS_CODE


def anonymous(pid: int) -> int:
    """The bytes of anonymous memory of a process."""
    found = re.search(r"^Anonymous:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_what_a_created_container_holds(runtime: Runtime, bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Until `start` its init is a Python process: one thread, at most 3 MiB of memory that nothing else shares."""
    held: dict[str, int] = {}
    for name, seccomp in (("no filter", None), ("a new filter", docker_default()), ("a known filter", docker_default())):
        container = runtime.create(bundle(args=["/bin/true"], seccomp=seccomp))
        pid = runtime.pid(container)
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        held[name] = anonymous(pid)
    with capsys.disabled():
        for name, size in held.items():
            print(f"\n  a created container with {name}: {size / MIB:.2f} MiB of anonymous memory", end="")
    assert max(held.values()) <= 3 * MIB
