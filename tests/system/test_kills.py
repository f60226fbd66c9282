"""SIGKILL of the runtime, and of init, at every step of what they do: `delete --force` then leaves nothing, and nothing hangs.

strace kills a process when it enters its Nth call of a name. Which calls there are is seen in a first run. What happens up to a
call that changes nothing is what happens up to the next one that does, so only those are points to kill at.

OCIRT_TEST_ALL_KILLS=1 tries every point; else a part of them, evenly spread, so that it takes a minute and not ten.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.seccomp_profiles import small
from tests.support.bundle import Bundle
from tests.support.isolation import Isolation
from tests.support.leaks import Leaks
from tests.support.runtime import Runtime, lines, reap_orphans, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available

pytestmark = pytest.mark.ocirt_only("runc leaves things behind here (opencontainers/runc issue 4534)")

EVERY = os.environ.get("OCIRT_TEST_ALL_KILLS") == "1"
MOST = 120  # points of one test, unless all are tried
PATIENCE = 20.0  # seconds until something hangs

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


def of_init(calls: list[Call]) -> list[Point]:
    """Where to kill init, from its clone until the runtime may have committed: points that the runtime itself never reaches."""
    runtimes = Counter(call.point.name for call in calls if call.pid == calls[0].pid)
    child = next(call.pid for call in calls if call.pid != calls[0].pid)
    found = []
    for call in calls:
        if call.pid == child and re.search(r"PR_SET_PDEATHSIG, (SIG_)?0\b", call.line):
            break  # from here on it is a matter of who is quicker
        if call.pid == child and call.point.number > runtimes[call.point.name]:
            found.append(call)
    return [call.point for call in found if call.changes]


def chosen(points: list[Point]) -> list[Point]:
    """All of them, or a part that is spread evenly."""
    if EVERY or len(points) <= MOST:
        return points
    return [points[index * len(points) // MOST] for index in range(MOST)]


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
        for leak in self.leaks.compare(self.before, 2):
            self.complain(where, str(leak))
        if (self.runtime.root / container).exists():
            self.complain(where, f"left behind: {sorted(os.listdir(self.runtime.root / container))}")

    def count(self, death: Death, code: int = -signal.SIGKILL) -> bool:
        """Whether the kill took place: the numbers of calls may vary a little from run to run."""
        self.points += 1
        self.killed += death.code == code
        return death.code == code


@pytest.fixture
def watch(
    runtime: Runtime, isolation: Isolation, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[Watch]:
    """A watch that says at the end how many points were killed, and fails the test for what was left."""
    made = Watch(runtime, isolation)
    yield made
    with capsys.disabled():
        print(
            f"\n  {request.node.name}: killed at {made.killed} of {made.points} points, delete ≤ {made.slowest * 1000:.0f} ms",
            end="",
        )
    if made.complaints:
        pytest.fail(f"{len(made.complaints)} complaints:{lines(made.complaints[:20])}", pytrace=False)
    assert made.killed >= made.share * made.points, "too many points were never reached"


@pytest.fixture
def rich(bundle: MakeBundle) -> Bundle:
    """A bundle that needs many kinds of calls; of limits those that this view has controllers for."""
    limits = {"pids": {"limit": 100}, "memory": {"limit": 1 << 28}}
    return bundle(
        args=["/bin/true"],
        seccomp=small(),
        cwd="/made/on/demand",
        sysctl={"net.ipv4.ip_forward": "1"},
        add_mounts=[
            {"destination": "/data", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "rslave"]},
            {"destination": "/home", "type": "tmpfs", "source": "tmpfs", "options": ["ro", "tmpcopyup"]},
            {
                "destination": "/sys/fs/cgroup",
                "type": "cgroup",
                "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
            },
        ],
        edit=lambda config: config["linux"]["resources"].update({name: limits[name] for name in limits if available(name)}),
    )


def test_create_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `create`, with a filter that is translated and put into the cache each time."""
    container = runtime.new_id()
    runtime.prepare(rich, container)
    # `run` does what `create` does, and ends by itself under strace.
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for number, point in enumerate(chosen(points), 100):
        container = runtime.new_id()
        rich.config["linux"]["seccomp"]["syscalls"][1]["errnoRet"] = number
        runtime.prepare(rich, container)
        watch.count(killed_at(runtime.argv("create", "--bundle", rich.path, container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_run_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of an attached `run`, up to its end."""
    runtime.run(rich).ok()  # the filter is known from here on
    container = runtime.new_id()
    runtime.prepare(rich, container)
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for point in chosen(points):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        watch.count(killed_at(runtime.argv("run", "--bundle", rich.path, container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_a_killed_create_can_be_looked_at(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """`state` and `list` of what is left say stopped, created or nothing; its name is free again after `delete --force`."""
    runtime.run(rich).ok()
    container = runtime.new_id()
    runtime.prepare(rich, container)
    points = of_runtime(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"), f'root/{container}"')
    for point in points[:: max(1, len(points) // 8)]:
        watch.count(killed_at(runtime.argv("create", "--bundle", rich.path, container), point))
        state = runtime.call("state", container)
        if state.rc == 0 and state.json()["status"] not in ("stopped", "created", "creating"):
            watch.complain(point, state.out)
        if state.rc != 0 and "does not exist" not in state.err:
            watch.complain(point, state.err)
        runtime.call("list").ok()
        watch.delete(point, container)
        runtime.create(rich, container=container)
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_init_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of its own: the runtime says so, exits with 1, and takes everything back."""
    runtime.run(rich).ok()
    container = runtime.new_id()
    runtime.prepare(rich, container)
    points = of_init(trace(runtime.argv("run", "--bundle", rich.path, container), tmp_path / "log"))
    for point in chosen(points):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        death = killed_at(runtime.argv("run", "--bundle", rich.path, container), point, children=True)
        if watch.count(death, 1) and death.said.count("\n") != 1:
            watch.complain(point, f"it says {death.said!r}")
        if death.code not in (0, 1):
            watch.complain(point, f"exit code {death.code}: {death.said!r}")
        watch.nothing_left(point, container)


def test_start_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `start`: the container is created or runs, and can be deleted."""
    container = runtime.create(rich.edit(args=["/bin/sleep", "1000"]))
    # Here reading is a step, too: there is not much else.
    calls = [call for call in trace(runtime.argv("start", container), tmp_path / "log") if call.line]
    watch.delete("first", container)
    begin = next(index for index, call in enumerate(calls) if f"{container}/" in call.line)
    for point in chosen([call.point for call in calls[begin:]])[::2]:
        container = runtime.create(rich)
        watch.count(killed_at(runtime.argv("start", container), point))
        state = runtime.state(container)["status"]
        if state not in ("created", "running"):
            watch.complain(point, f"the container is {state}")
        watch.delete(point, container)
        watch.nothing_left(point, container)


def test_exec_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path) -> None:
    """At every step of `exec`: what it began is gone or goes on to its end, the container lives."""
    container = runtime.run_detached(rich.edit(args=["/bin/sleep", "1000"]))
    init = runtime.pid(container)
    points = of_runtime(trace(runtime.argv("exec", container, "/bin/true"), tmp_path / "log"), f"{container}/")

    def alone() -> bool:
        reap_orphans()
        return bool(json.loads(runtime.call("ps", "--format", "json", container).ok().out) == [init])

    for point in chosen(points):
        watch.count(killed_at(runtime.argv("exec", container, "/bin/true"), point))
        try:
            wait_for(alone, "the end of what exec began", 5)
        except AssertionError as err:
            watch.complain(point, str(err))
    assert runtime.exec(container, "/bin/echo", "still here").ok().out == "still here\n"
    watch.delete("the end", container)
    watch.nothing_left("the end", container)


@pytest.mark.parametrize("running", [False, True], ids=["created", "running"])
def test_delete_is_killed(runtime: Runtime, rich: Bundle, watch: Watch, tmp_path: Path, running: bool) -> None:  # noqa: FBT001
    """At every step of `delete --force`: the next one does the rest."""
    rich.edit(args=["/bin/sleep", "1000"])

    def make() -> str:
        return runtime.run_detached(rich) if running else runtime.create(rich)

    container = make()
    pid = runtime.pid(container)
    points = of_runtime(trace(runtime.argv("delete", "--force", container), tmp_path / "log"), f"{container}/")
    reap_orphans()
    assert not Path(f"/proc/{pid}").exists()
    for point in chosen(points):
        container = make()
        watch.count(killed_at(runtime.argv("delete", "--force", container), point))
        watch.delete(point, container)
        watch.nothing_left(point, container)


def at_random(action: Callable[[], subprocess.Popen[bytes]], seconds: float) -> int:
    """Start a command, kill it after so many seconds; its exit code."""
    with action() as process:
        time.sleep(seconds)
        process.kill()
        return process.wait(PATIENCE)


def test_create_is_killed_at_random(runtime: Runtime, rich: Bundle, watch: Watch) -> None:
    """Without strace, which changes who is quicker: from half a millisecond after the start to beyond the end."""
    moments = random.Random(4)
    watch.share = 0.1  # how long a create takes is the machine's affair
    for number in range(400 if EVERY else 40):
        container = runtime.new_id()
        runtime.prepare(rich, container)
        argv = runtime.argv("create", "--bundle", rich.path, container)
        seconds = moments.uniform(0.0005, 0.04)

        def start(argv: list[str] = argv) -> subprocess.Popen[bytes]:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        watch.points += 1
        watch.killed += at_random(start, seconds) == -signal.SIGKILL
        where = f"{number}, after {seconds * 1000:.1f} ms"
        watch.delete(where, container)
        watch.nothing_left(where, container)
