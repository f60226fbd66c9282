"""Cgroups on the real kernel: made, joined, frozen, killed and removed.

In whatever version /sys/fs/cgroup shows (OCIRT_TEST_VIEW=v2 for the other one).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocirt.cgroups import control, files, unified
from ocirt.cgroups.layout import Layout, own_cgroups
from ocirt.cgroups.paths import resolve, writable
from ocirt.errors import Error
from tests.support.cgroups import Cgroup, New, in_cgroup, layout, new, numbers, version_1, version_2
from tests.support.isolation import Isolation

# Fixtures of others.
__all__ = ["layout", "new"]

Start = Callable[..., "subprocess.Popen[bytes]"]

# Forks as fast as it can; each generation lives for a moment, so that some are always just being born.
FORKER = """
import os, time
os.write(1, b"x")
end = time.monotonic() + 60
while time.monotonic() < end:
    pid = os.fork()
    if pid:
        time.sleep(0.001)
        if os.fork():
            os._exit(0)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes in a cgroup; they are reaped at the end, whatever became of them."""
    running: list[subprocess.Popen[bytes]] = []

    def run(cgroup: Cgroup, *command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command or ("sleep", "60"),
            stdout=subprocess.PIPE,
            preexec_fn=lambda: control.attach(cgroup["paths"], os.getpid()),  # noqa: PLW1509
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def own(pid: int) -> dict[str, str]:
    """The cgroups that the kernel says a process is in."""
    lines = own_cgroups(Path(f"/proc/{pid}/cgroup").read_text())
    return {controller: path for controllers, path in lines for controller in controllers}


def new_below(cgroup: Cgroup) -> Cgroup:
    """A child of every directory."""
    paths = {name: path + "/child" for name, path in cgroup["paths"].items()}
    return {"mode": cgroup["mode"], "paths": paths, "created": control.create(paths)}


def is_there(cgroup: Cgroup) -> bool:
    return any(Path(path).exists() for path in cgroup["paths"].values())


# -- making and joining --------------------------------------------------------------------------------------------------------


def test_create_attach_remove(layout: Layout, new: New, start: Start, isolation: Isolation) -> None:
    """In every hierarchy; after that nothing is left, the parents that were made for it included."""
    cgroup = new("/deep/down")
    assert len(cgroup["created"]) == 3 * len(set(cgroup["paths"].values()))
    process = start(cgroup)
    assert control.processes(cgroup) == [process.pid]
    inner = cgroup["paths"][""].removeprefix(layout.mounts[""])
    for controller, path in own(process.pid).items():
        if controller in layout.mounts:
            assert path == inner, controller
    control.kill(cgroup, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    control.remove(cgroup)
    assert not any(Path(directory).exists() for directory in cgroup["created"])
    assert Path(layout.mounts[""] + isolation.cgroup_parent).is_dir()
    # What is gone has no processes, is not paused, and can be killed and removed again.
    assert control.processes(cgroup) == []
    assert not control.frozen(cgroup)
    control.kill(cgroup, signal.SIGKILL)
    control.remove(cgroup)


def test_create_is_all_or_nothing(layout: Layout, isolation: Isolation) -> None:
    """The error names the directory; what was made before it is gone."""
    paths = resolve(f"{isolation.cgroup_parent}/c{next(numbers)}/x", "id", layout, False)
    with pytest.raises(OSError, match="nowhere") as caught:
        control.create(paths | {"zzz": "/proc/nowhere/x"})
    assert caught.value.filename.startswith("/proc/nowhere")
    assert not any(Path(path).parent.exists() for path in paths.values())


def test_create_where_it_exists(new: New) -> None:
    """A directory that was there is not ours: removing takes the leaf, and leaves the parents to whoever made them."""
    first = new("/x")
    assert control.create(first["paths"]) == []
    parent = {name: str(Path(path).parent) for name, path in first["paths"].items()}
    control.remove({"paths": first["paths"], "created": []})
    assert all(Path(path).is_dir() for path in parent.values())
    control.remove({"paths": parent, "created": []})


def test_join_by_itself(layout: Layout, new: New) -> None:
    """A process with one thread joins by writing 0."""
    cgroup = new()
    opened = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in files.join_files(cgroup["paths"])]
    inner = cgroup["paths"][""].removeprefix(layout.mounts[""])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for fd in opened:
                os.write(fd, b"0")
            found = own(os.getpid())
            status = 0 if all(found[name] == inner for name in layout.mounts) else 2
        finally:
            os._exit(status)
    for fd in opened:
        os.close(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_cpuset_is_filled(layout: Layout, new: New) -> None:
    """Every level gets what its parent has, also below one that somebody made without."""
    version_1(layout, "cpuset")
    cgroup = new("/a/b", only=["cpuset"])
    leaf = Path(cgroup["paths"]["cpuset"])
    for name in ("cpuset.cpus", "cpuset.mems"):
        assert (leaf / name).read_text() == (Path(layout.mounts["cpuset"]) / name).read_text() != "\n"
    (leaf / "bare").mkdir()
    assert (leaf / "bare/cpuset.cpus").read_text() == "\n"
    made = control.create({"cpuset": str(leaf / "bare/below")})
    assert (leaf / "bare/cpuset.cpus").read_text() == (leaf / "bare/below/cpuset.cpus").read_text() != "\n"
    assert made == [str(leaf / "bare/below")]


def test_controllers_are_handed_on(layout: Layout, new: New) -> None:
    """Version 2: the leaf has all that the root has, and keeps it to itself."""
    version_2(layout)
    leaf = Path(new("/a/b")["paths"][""])
    root = Path(layout.mounts[""], "cgroup.controllers").read_text().split()
    assert (leaf / "cgroup.controllers").read_text().split() == root != []
    assert (leaf / "cgroup.subtree_control").read_text().split() == []


def test_below_processes_it_is_threaded(layout: Layout, new: New, start: Start) -> None:
    """Version 2: in a threaded parent a cgroup would be invalid; it is made one that a process can join."""
    version_2(layout)
    directory = Path(new()["paths"][""])
    (directory / "t").mkdir()
    (directory / "t/cgroup.type").write_text("threaded")
    new_paths = {"": str(directory / "new")}
    control.create(new_paths)
    assert (directory / "new/cgroup.type").read_text() == "threaded\n"
    # A process joins the domain, one of its two threads the threaded cgroup: it is one process, from wherever one looks.
    code = (
        "import os, threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\nos.write(1, b'x'); time.sleep(60)"
    )
    process = start({"paths": {"": str(directory)}}, sys.executable, "-ISc", code)
    assert process.stdout is not None
    assert process.stdout.read(1) == b"x"
    thread = max(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))
    assert thread != process.pid
    (directory / "new/cgroup.threads").write_text(str(thread))
    assert control.processes({"paths": {"": str(directory)}}) == [process.pid]
    assert control.processes({"paths": new_paths}) == [process.pid]


def test_without_permission(layout: Layout, isolation: Isolation) -> None:
    """`create` names the first directory that it may not make; `writable` says what could be made."""
    paths = resolve(f"{isolation.cgroup_parent}/c{next(numbers)}", "id", layout, True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                control.create(paths)
            except PermissionError as error:
                status = 0 if error.filename in paths.values() and writable(paths) == {} else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert writable(paths) == paths


# -- what was there before -----------------------------------------------------------------------------------------------------


def test_check_empty(layout: Layout, new: New, start: Start) -> None:
    """Nothing there, an empty one, a frozen one, one with a process below."""
    control.check_empty(resolve("/ocirt-test-nowhere/x", "id", layout, False))
    cgroup = new()
    control.check_empty(cgroup["paths"])
    control.freeze(cgroup)
    with pytest.raises(Error, match="container's cgroup unexpectedly frozen"):
        control.check_empty(cgroup["paths"])
    control.thaw(cgroup)
    start(new_below(cgroup))
    with pytest.raises(Error, match=r"container's cgroup is not empty: 1 process\(es\) found"):
        control.check_empty(cgroup["paths"])


# -- freezing, killing, removing -----------------------------------------------------------------------------------------------


def drain(pipe: int) -> None:
    """Read what is there."""
    try:
        while os.read(pipe, 65536):
            pass
    except BlockingIOError:
        pass


def test_freeze_and_thaw(new: New, start: Start) -> None:
    """A frozen process does nothing."""
    cgroup = new()
    process = start(cgroup, sys.executable, "-ISc", "import os, time\nwhile True: os.write(1, b'x'); time.sleep(0.001)")
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    assert os.read(pipe, 1) == b"x"
    assert not control.frozen(cgroup)
    control.freeze(cgroup)
    assert control.frozen(cgroup)
    os.set_blocking(pipe, False)
    drain(pipe)
    time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(pipe, 1)
    control.thaw(cgroup)
    assert not control.frozen(cgroup)
    os.set_blocking(pipe, True)
    assert os.read(pipe, 1) == b"x"


def test_frozen_from_above_is_not_paused(new: New) -> None:
    """Somebody froze the parent: the container itself is not paused."""
    cgroup = new()
    child = new_below(cgroup)
    control.freeze(cgroup)
    assert control.frozen(cgroup)
    assert not control.frozen(child)
    control.thaw(cgroup)


def test_no_freezer() -> None:
    """Without a hierarchy that can, an error in runc's words."""
    for action in (control.freeze, control.thaw):
        with pytest.raises(Error, match="cannot toggle freezer: cgroups not configured for container"):
            action({"paths": {"pids": "/nowhere"}})


def variants(layout: Layout) -> list[list[str] | None]:
    """The paths that `kill` may have to do with: all, and without the unified hierarchy."""
    return [None] if layout.mode == "v2" else [None, [name for name in layout.mounts if name]]


@pytest.mark.parametrize("paused", [False, True])
def test_kill(layout: Layout, new: New, start: Start, paused: bool) -> None:
    """SIGKILL ends all, in children and paused too, and `remove` succeeds behind it."""
    for only in variants(layout):
        cgroup = new(only=only)
        running = [start(cgroup), start(cgroup), start(new_below(cgroup))]
        assert sorted(control.processes(cgroup)) == sorted(process.pid for process in running)
        if paused:
            control.freeze(cgroup)
        control.kill(cgroup, signal.SIGKILL)
        control.remove(cgroup)
        assert [process.wait() for process in running] == [-signal.SIGKILL] * 3


def test_kill_outruns_forks(layout: Layout, new: New, start: Start) -> None:
    """Processes that keep forking do not get away."""
    for only in variants(layout):
        cgroup = new(only=only)
        process = start(cgroup, sys.executable, "-ISc", FORKER)
        assert process.stdout is not None
        assert process.stdout.read(1) == b"x"
        deadline = time.monotonic() + 5
        while len(control.processes(cgroup)) < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
        control.kill(cgroup, signal.SIGKILL)
        control.remove(cgroup)
        process.wait()
        reap_orphans()


def reap_orphans() -> None:
    """Children that came to this subreaper."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
        except ChildProcessError:
            return


def test_other_signals(layout: Layout, new: New, start: Start) -> None:
    """Every process gets it; a paused container stays paused."""
    for only in variants(layout):
        cgroup = new(only=only)
        running = [start(cgroup), start(new_below(cgroup))]
        control.kill(cgroup, 0)
        assert [process.poll() for process in running] == [None, None]
        assert not control.frozen(cgroup)
        control.freeze(cgroup)
        control.kill(cgroup, signal.SIGTERM)
        assert control.frozen(cgroup)
        control.thaw(cgroup)
        assert [process.wait() for process in running] == [-signal.SIGTERM] * 2


def test_kill_spares_this_process(layout: Layout, new: New) -> None:
    """Signalling its own cgroup would end the runtime in the middle."""
    version_1(layout, "pids")
    cgroup = new(only=["pids"])

    def action() -> int:
        try:
            control.kill(cgroup, signal.SIGKILL)
        except Error as error:
            return 0 if "this process" in error.message else 2
        return 1

    assert in_cgroup(cgroup, action) == 0


def test_remove_waits(layout: Layout, new: New, start: Start) -> None:
    """For a process on its way out."""
    for only in variants(layout):
        cgroup = new(only=only)
        process = start(cgroup, "sleep", "0.1")
        control.remove(cgroup)
        assert process.wait() == 0
        assert not is_there(cgroup)


def test_remove_gives_up(new: New, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pids in the error, and having removed what could be."""
    monkeypatch.setattr(control, "REMOVE_TIMEOUT", 0.05)
    cgroup = new()
    process = start(cgroup)
    child = new_below(cgroup)
    with pytest.raises(Error, match=rf"cgroup is still in use: processes {process.pid}"):
        control.remove(cgroup)
    assert not is_there(child)
    assert process.poll() is None


def test_remove_of_many_children(new: New) -> None:
    """A container that ran containers."""
    cgroup = new()
    for path in set(cgroup["paths"].values()):
        for name in ("a/b/c", "a/d", "e"):
            Path(path, name).mkdir(parents=True)
    control.remove(cgroup)
    assert not is_there(cgroup)


# -- version 2 details ---------------------------------------------------------------------------------------------------------


def test_of_process(layout: Layout, new: New, start: Start) -> None:
    """Where exec goes when the container's own cgroup takes no process any more."""
    cgroup = new()
    process = start(new_below(cgroup))
    assert unified.of_process(process.pid, layout.mounts[""]) == cgroup["paths"][""] + "/child"


def test_wait_event(new: New, start: Start) -> None:
    """Told when it happens; a time limit holds; a cgroup that is gone is not populated."""
    cgroup = new()
    directory = cgroup["paths"][""]
    assert unified.wait_event(directory, "populated 0", 0)
    process = start(cgroup, "sleep", "0.1")
    assert not unified.wait_event(directory, "populated 0", 0.01)
    assert unified.wait_event(directory, "populated 0", 5)
    process.wait()
    control.remove(cgroup)
    assert unified.wait_event(directory, "populated 0", 0)
    assert not unified.wait_event(directory, "frozen 1", 0)
