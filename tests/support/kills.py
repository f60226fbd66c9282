"""Killing processes of a runtime at a counted system call, and looking for what is left.

strace kills a process when it enters its Nth call of a name. Which calls there are is seen in a first run. What happens up to a
call that changes nothing is what happens up to the next one that does, so only those are points to kill at.

OCIRT_TEST_ALL_KILLS=1 tries every point; else a part of them, evenly spread, so that it takes a minute and not ten.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.isolation import Isolation
from tests.support.leaks import Leaks
from tests.support.runtime import PATIENCE, Runtime, reap_orphans

T = TypeVar("T")

EVERY = os.environ.get("OCIRT_TEST_ALL_KILLS") == "1"
MOST = int(os.environ.get("OCIRT_TEST_POINTS", "120"))  # points of one test, unless all are tried

# What changes the state of anything outside of the process, or its own rights and place.
_CHANGING = """
    bpf capset chdir chmod chown chroot clone clone3 close_range connect dup2 dup3 execve exit_group fchdir fchmod fchmodat fchown
    fchownat fork fsconfig fsmount fsopen keyctl kill linkat mkdir mkdirat mkfifo mknod mknodat mount mount_setattr move_mount
    open_tree pidfd_send_signal pivot_root prctl prlimit64 pwrite64 rename renameat renameat2 rmdir seccomp sendmsg sendto
    setdomainname setgid setgroups sethostname setns setresgid setresuid setsid setuid setxattr symlink symlinkat umask umount2
    unlink unlinkat unshare vfork wait4 waitid write
    """
CHANGING = frozenset(_CHANGING.split())
_OPENED_TO_WRITE = re.compile(r"O_CREAT|O_WRONLY|O_RDWR")


@dataclass(frozen=True)
class Point:
    """The entry of a process's `number`th call of a name."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}#{self.number}"


@dataclass(frozen=True)
class Call:
    """One call in a trace: who made it, and the line."""

    pid: str
    point: Point
    line: str

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        if self.point.name in ("open", "openat", "openat2"):
            return bool(_OPENED_TO_WRITE.search(self.line))
        return self.point.name in CHANGING


def strace() -> str:
    """Where strace is. Skips the test without it."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed")
    return found


def trace(argv: Sequence[str], log: Path) -> list[Call]:
    """All calls of a command and its children, in their order. The command has to end, with all its children."""
    done = subprocess.run(
        [strace(), "-f", "-qq", "-s", "200", "-o", str(log), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, log.read_text(errors="replace")[-2000:]
    counts: Counter[tuple[str, str]] = Counter()
    calls = []
    for line in log.read_text(errors="replace").splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found is not None:
            pid, name = found[1], found[2]
            counts[pid, name] += 1
            calls.append(Call(pid, Point(name, counts[pid, name]), line))
    return calls


def of_runtime(calls: list[Call], first: str) -> list[Point]:
    """Where to kill the runtime itself: from its first call that has `first` in its line."""
    own = [call for call in calls if call.pid == calls[0].pid]
    begin = next(index for index, call in enumerate(own) if first in call.line)
    return [call.point for call in own[begin:] if call.changes]


def of_process(calls: list[Call], pid: str) -> list[Point]:
    """Where to kill a process that the runtime started: points that no other process reaches before it, up to the commit."""
    others = Counter[str]()
    for call in calls:
        if call.pid != pid:
            others[call.point.name] = max(others[call.point.name], call.point.number)
    found = []
    for call in calls:
        if call.pid == pid and re.search(r"PR_SET_PDEATHSIG, (SIG_)?0\b", call.line):
            break  # from here on it is a matter of who is quicker
        if call.pid == pid and call.changes and call.point.number > others[call.point.name]:
            found.append(call.point)
    return found


def who(calls: list[Call], line: str) -> str:
    """The process that makes the call of this line (a regular expression)."""
    return next(call.pid for call in calls if re.search(line, call.line))


def chosen(points: list[T], most: int = MOST) -> list[T]:
    """All of them, or a part that is spread evenly: never more than MOST."""
    most = min(most, MOST)
    if EVERY or len(points) <= most:
        return points
    return [points[index * len(points) // most] for index in range(most)]


@dataclass(frozen=True)
class Death:
    """How a command ended: its exit code (negative: that signal) and what it said."""

    code: int
    said: str


def killed_at(argv: Sequence[str], point: Point, *, children: bool = False) -> Death:
    """Run a command that is killed at a point; `children`: whichever process of its family gets there."""
    inject = f"inject={point.name}:signal=KILL:when={point.number}"
    command = [
        strace(),
        *(["-f"] if children else []),
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        f"trace={point.name}",
        "-e",
        inject,
        *argv,
    ]
    # A file, not a pipe: where the kill comes too late the container keeps it.
    with tempfile.TemporaryFile() as said:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            timeout=PATIENCE,
            check=False,
        ).returncode
        said.seek(0)
        return Death(code, said.read().decode(errors="replace"))


class Watch:
    """Looks for what a kill leaves behind, point by point."""

    def __init__(self, runtime: Runtime, isolation: Isolation) -> None:
        self.runtime = runtime
        self.leaks = Leaks(isolation.token)
        self.leaks.kinds = {kind: self.leaks.kinds[kind] for kind in ("process", "mount", "cgroup")}
        self.before = self.leaks.snapshot()
        self.killed = 0
        self.points = 0
        self.complaints: list[str] = []
        self.slowest = 0.0
        self.share = 0.7  # of the points have to be reached

    def complain(self, where: object, what: str) -> None:
        """Note what went wrong."""
        self.complaints.append(f"{where}: {what}")

    def delete(self, where: object, container: str) -> None:
        """`delete --force`, as a caller does it who waits for what becomes its child."""
        began = time.monotonic()
        argv = self.runtime.argv("delete", "--force", container)
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while process.poll() is None and time.monotonic() - began < PATIENCE:
                reap_orphans({process.pid})
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
            if process.poll() is None:
                process.kill()
                self.complain(where, f"delete --force hangs for {PATIENCE} s")
            assert process.stderr is not None
            words = process.stderr.read().decode(errors="replace")
        self.slowest = max(self.slowest, time.monotonic() - began)
        if process.returncode:
            self.complain(where, f"delete --force: exit code {process.returncode}: {words}")

    def nothing_left(self, where: object, container: str) -> None:
        """Note what is left of the container."""
        for leak in self.leaks.compare(self.before):
            self.complain(where, str(leak))
        if (self.runtime.root / container).exists():
            self.complain(where, f"left behind: {sorted(os.listdir(self.runtime.root / container))}")

    def count(self, death: Death, code: int = -signal.SIGKILL) -> bool:
        """Whether the kill took place: the numbers of calls may vary a little from run to run."""
        self.points += 1
        self.killed += death.code == code
        return death.code == code
