"""Two commands at once, a machine at its limits, and many containers: what is left is what was there before.

OCIRT_TEST_ENDURANCE=1 does it in full (1,000 cycles, 50 containers, 200 execs); else a part, so that it takes seconds.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ocirt.cgroups.layout import detect
from tests.support.bundle import Bundle
from tests.support.isolation import Isolation, mount, umount
from tests.support.runtime import Result, Runtime, reap_orphans, wait_for
from tests.system.conftest import MakeBundle
from tests.system.test_cgroups import available

FULL = os.environ.get("OCIRT_TEST_ENDURANCE") == "1"
CYCLES, AT_ONCE, EXECS = (1000, 50, 200) if FULL else (40, 16, 40)


# Two at once


def together(*actions: Callable[[], Result]) -> list[Result]:
    """The results of calls that begin at the same moment."""
    gate = threading.Barrier(len(actions))

    def act(action: Callable[[], Result]) -> Result:
        gate.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def test_two_creates_of_one_name(runtime: Runtime, bundle: MakeBundle) -> None:
    """One makes it, the other is told that it exists; the one that is there works."""
    made = bundle(args=["sh", "-c", "echo lives"])
    for _ in range(10):
        container = runtime.new_id()
        runtime.prepare(made, container)
        outs = [runtime.work / f"{container}.{number}" for number in range(2)]
        calls = [functools.partial(runtime.detached, "create", "--bundle", made.path, container, out=out) for out in outs]
        done = together(*calls)
        assert sorted(one.rc for one in done) == [0, 1], done
        (loser,) = (one for one in done if one.rc)
        loser.failed("exists")
        pid = runtime.pid(container)
        runtime.start(container).ok()
        assert runtime.wait(container, pid) == 0
        assert outs[done.index(loser) ^ 1].read_text() == "lives\n"
        runtime.delete(container).ok()


def test_delete_while_it_is_created(runtime: Runtime, bundle: MakeBundle) -> None:
    """`delete --force` beside a create: whoever is first, a second `delete --force` leaves nothing."""
    made = bundle(args=["true"])
    for _ in range(10):
        container = runtime.new_id()
        runtime.prepare(made, container)
        first, second = together(
            functools.partial(runtime.detached, "create", "--bundle", made.path, container, out=runtime.output_of(container)),
            functools.partial(runtime.call, "delete", "--force", container),
        )
        assert first.rc in (0, 1, -signal.SIGKILL)  # a creator that is in the way
        assert second.rc == 0, second
        reap_orphans()
        runtime.call("delete", "--force", container).ok()
        assert not (runtime.root / container).exists()


@pytest.mark.parametrize("verb", ["start", "exec", "kill", "pause", "ps"])
def test_an_init_that_has_vanished(runtime: Runtime, bundle: MakeBundle, verb: str) -> None:
    """Its record says created, its process is gone: an error that says so, and `delete` works."""
    container = runtime.create(bundle(args=["true"]))
    pid = runtime.pid(container)
    os.kill(pid, 9)
    runtime.wait(container, pid)
    assert runtime.status(container) == "stopped"
    done = runtime.call(verb, container, *(["true"] if verb == "exec" else []))
    if verb != "ps":  # of a cgroup without processes
        done.failed("not running|stopped|has ended")
    runtime.delete(container).ok()


# A machine at its limits


@contextlib.contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """A file system of one page for the state."""
    place.mkdir(exist_ok=True)
    mount("tmpfs", str(place), "tmpfs", 0, options)
    try:
        yield
    finally:
        umount(str(place))


@pytest.mark.parametrize("options", ["size=4k", "nr_inodes=2", "nr_inodes=4"])
def test_a_full_disk(runtime: Runtime, bundle: MakeBundle, options: str) -> None:
    """No room for the record: said in a line, and nothing is left."""
    with small_disk(runtime.root, options):
        (runtime.root / "full").write_bytes(bytes(4096 if "size" in options else 0))
        runtime.try_create(bundle()).failed("[Nn]o space", rc=1)
        assert [path.name for path in runtime.root.iterdir() if path.name[0] != "@"] == ["full"]


def test_a_root_that_cannot_be_written(runtime: Runtime, bundle: MakeBundle) -> None:
    """A read-only --root."""
    with small_disk(runtime.root, "size=64k"):
        mount("none", str(runtime.root), "none", 0x20 | 0x1)  # MS_REMOUNT | MS_RDONLY
        runtime.try_create(bundle()).failed("[Rr]ead-only", rc=1)
        runtime.call("list").ok()


@pytest.fixture
def full(isolation: Isolation) -> Iterator[Path]:
    """A cgroup that takes one process. No container's lies below it."""
    if not available("pids"):
        pytest.skip("no pids controller in this view")
    place = next(path for path in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")) if (path / "cgroup.procs").exists())
    parent = place / isolation.cgroup_parent[1:]
    if (parent / "cgroup.subtree_control").exists():
        (parent / "cgroup.subtree_control").write_text("+pids")
    made = parent / "full"
    made.mkdir()
    (made / "pids.max").write_text("1")
    yield made
    wait_for(lambda: not (made / "cgroup.procs").read_text(), "the end of the processes")
    made.rmdir()


def run_in(cgroup: Path, runtime: Runtime, made: Bundle) -> Result:
    """`run` by a process of this cgroup."""
    container = runtime.new_id()
    runtime.prepare(made, container)
    argv = runtime.argv("run", "--bundle", made.path, container)
    command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs"), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return Result(tuple(argv), done.returncode, done.stdout, done.stderr)


def test_no_process_is_allowed(runtime: Runtime, bundle: MakeBundle, full: Path) -> None:
    """A runtime in a cgroup that takes no second process; then one whose container's own limit is 1.

    Version 2 has init made in the container's cgroup, whose limit is the one that counts then (CLONE_INTO_CGROUP). In version 1,
    and where systemd moves a process that is there, it is made in the runtime's. A hook's process is always.
    """
    made = bundle(args=["echo", "made"])
    done = run_in(full, runtime, made)
    if detect().mode == "v2" and runtime.manager != "systemd":
        assert done.ok().out == "made\n"
    else:
        assert done.failed("clone|temporarily unavailable", rc=1).err.count("\n") == 1
    made.edit(hooks={"createRuntime": [{"path": "/bin/true"}]})
    assert run_in(full, runtime, made).failed("temporarily unavailable", rc=1).err.count("\n") == 1
    one = bundle(args=["true"], edit=lambda config: config["linux"]["resources"].update({"pids": {"limit": 1}}))
    runtime.run(one).ok()


def test_little_memory(runtime: Runtime, bundle: MakeBundle) -> None:
    """4 MiB are enough."""
    if not available("memory"):
        pytest.skip("no memory controller in this view")
    made = bundle(args=["echo", "fits"], edit=lambda config: config["linux"]["resources"].update({"memory": {"limit": 4 << 20}}))
    assert runtime.run(made).ok().out == "fits\n"


@pytest.mark.parametrize("most", range(5, 22))
def test_few_descriptors(runtime: Runtime, bundle: MakeBundle, most: int) -> None:
    """A runtime that may open only a few files says so, and leaves nothing."""
    made = bundle(args=["true"])
    container = runtime.new_id()
    runtime.prepare(made, container)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, 1024))

    done = subprocess.run(
        runtime.argv("run", "--bundle", made.path, container),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done
    if done.returncode:
        assert "oo many open files" in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    assert not (runtime.root / container).exists()


# Many


def test_cycles(runtime: Runtime, bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    """create, start, exec, delete, over and over. The search for leaks around the test compares before and after."""
    made = bundle(args=["sleep", "1000"])
    for _ in range(CYCLES):
        container = runtime.create(made)
        runtime.start(container).ok()
        runtime.exec(container, "true").ok()
        runtime.delete(container, "--force").ok()
        reap_orphans()
    with capsys.disabled():
        print(f"\n  {CYCLES} cycles of create, start, exec and delete", end="")


def test_many_at_once(runtime: Runtime, bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Containers that run side by side, made and removed by several callers at once."""
    bundles = [bundle(args=["sleep", "1000"]) for _ in range(4)]

    def make(number: int) -> list[str]:
        return [runtime.run_detached(bundles[number]) for _ in range(number, AT_ONCE, 4)]

    with ThreadPoolExecutor(4) as pool:
        containers = [container for made in pool.map(make, range(4)) for container in made]
        assert len(runtime.call("list", "-q").ok().out.split()) == len(containers) == AT_ONCE
        for done in pool.map(lambda container: runtime.exec(container, "true"), containers):
            done.ok()
        for done in pool.map(lambda container: runtime.delete(container, "--force"), containers):
            done.ok()
    assert runtime.call("list", "-q").ok().out == ""
    with capsys.disabled():
        print(f"\n  {AT_ONCE} containers at once", end="")


def test_many_execs(runtime: Runtime, bundle: MakeBundle, capsys: pytest.CaptureFixture[str]) -> None:
    """In one container, eight at a time: each gets its own output and exit code; init is alone in the end."""
    container = runtime.run_detached(bundle(args=["sleep", "1000"]))
    init = runtime.pid(container)
    files = len(os.listdir(f"/proc/{init}/fd"))
    with ThreadPoolExecutor(8) as pool:
        results = list(
            pool.map(lambda number: runtime.exec(container, "sh", "-c", f"echo {number}; exit {number % 7}"), range(EXECS))
        )
    for number, done in enumerate(results):
        assert (done.rc, done.out) == (number % 7, f"{number}\n")
    reap_orphans()
    assert runtime.call("ps", "--format", "json", container).ok().json() == [init]
    assert len(os.listdir(f"/proc/{init}/fd")) == files
    with capsys.disabled():
        print(f"\n  {EXECS} execs", end="")
