"""`import ocirt` as a program uses it: containers that live on between calls, and many threads at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import ocirt
from tests.support.library import Library, library, program
from tests.support.runtime import wait_for

# Fixtures of others.
__all__ = ["library"]

pytestmark = pytest.mark.ocirt_only("the library is ocirt's own")


# -- containers ----------------------------------------------------------------------------------------------------------------


def test_the_life_of_a_container(library: Library) -> None:
    """create, start, exec, kill, wait, delete; the command sees the same."""
    script = "trap 'exit 3' TERM; echo ready; cat; while :; do sleep 0.1; done"
    box = library.create("sh", "-c", script, stdin=ocirt.PIPE, stdout=ocirt.PIPE)
    assert (box.status, library.names()) == ("created", [box.id])
    assert box.pid == library.runtime.pid(box.id)
    with pytest.raises(TimeoutError):
        box.wait(0.05)
    box.start()
    with pytest.raises(ocirt.Error, match="already running"):
        box.start()
    assert box.stdin is not None
    assert box.stdout is not None
    assert box.stdout.read(6) == b"ready\n"
    box.stdin.write(b"x")
    box.stdin.close()
    assert box.stdout.read(1) == b"x"
    done = box.exec(
        ["sh", "-c", "echo $A; pwd; id -u; hostname"], env={"A": "1"}, cwd="/tmp", user=9, stdout=ocirt.PIPE, text=True
    )
    assert done.stdout == "1\n/tmp\n9\nocirt\n"
    assert box.exec(["sh", "-c", "exit 5"]).returncode == 5
    with pytest.raises(ocirt.TimeoutExpired):
        box.exec(["sleep", "1000"], timeout=0.2)
    with pytest.raises(ocirt.Error, match="nope"):
        box.exec(["/nope"])
    again = ocirt.Container.load(box.id, library.runtime.root)
    assert (again.status, again.state) == ("running", box.state)
    assert [each.id for each in ocirt.Container.list(library.runtime.root)] == [box.id]
    box.kill("TERM")
    assert box.wait(20) == 3
    assert box.wait() == 3
    assert again.wait(5) is None
    assert (box.status, box.pid) == ("stopped", 0)
    with pytest.raises(ocirt.Error, match="not running") as raised:
        box.kill(9)
    assert raised.value.code == "state"
    box.delete()
    assert library.names() == []
    with pytest.raises(ocirt.Error, match="does not exist"):
        ocirt.Container.load(box.id, library.runtime.root)


def test_pause_and_resume(library: Library) -> None:
    with library.create("sleep", "1000") as box:
        box.start()
        box.pause()
        assert box.status == "paused"
        assert library.runtime.status(box.id) == "paused"
        with pytest.raises(ocirt.Error, match="paused"):
            box.exec(["true"])
        box.resume()
        assert box.exec(["true"]).returncode == 0
        box.pause()
    assert library.names() == []  # a frozen one is deleted too


def test_a_container_lives_on(library: Library) -> None:
    """After the end of who made it, and the command goes on with it."""
    words = library.texts()
    caller = program(f"""
        import ocirt
        box = ocirt.Container.create(["sleep", "1000"], **{words!r})
        box.start()
        print(box.pid)
    """)
    pid = int(caller.communicate(timeout=60)[0])
    assert library.runtime.status(words["id"]) == "running"
    assert library.runtime.pid(words["id"]) == pid
    assert library.runtime.exec(words["id"], "echo", "x").ok().out == "x\n"
    waits = ocirt.Container.load(words["id"], library.runtime.root)
    with pytest.raises(TimeoutError):
        waits.wait(0.1)
    library.runtime.kill(words["id"], "KILL").ok()
    assert waits.wait(20) is None
    wait_for(lambda: waits.status == "stopped", "its end")
    library.runtime.delete(words["id"]).ok()
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)  # we are the subreaper


def test_a_dropped_object_is_no_end(library: Library) -> None:
    box = library.create("sleep", "1000")
    name = box.id
    box.start()
    box.close()
    del box
    with ocirt.Container.load(name, library.runtime.root) as again:
        assert again.status == "running"
        assert again.exec(["true"]).returncode == 0
    assert library.names() == []


def test_what_is_made_from_keywords_is_a_bundle(library: Library) -> None:
    """The command can show its plan; the empty root goes with the container."""
    with library.create(sys.executable, "-c", "pass", mounts=ocirt.host_python()) as box:
        bundle = Path(box.state.bundle)
        assert json.loads((bundle / "config.json").read_text())["hostname"] == "ocirt"
        assert box.state.rootfs == f"{bundle}/rootfs"
        library.runtime.call("--cgroup-manager", "cgroupfs", "plan", bundle).ok()  # as the library has them
        box.start()
        assert box.wait(30) == 0
    assert not bundle.exists()


# -- threads -------------------------------------------------------------------------------------------------------------------


def in_threads(count: int, job: Callable[[int], object]) -> None:
    """Call `job` in threads at once. Raises the first exception of one."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            job(number)
        except BaseException as err:  # noqa: BLE001
            failures.append(err)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_many_threads(library: Library) -> None:
    """8 threads at once beside one that never rests. OCIRT_TEST_LIBRARY_RUNS: how many each runs (500 for the full count)."""
    runs = int(os.environ.get("OCIRT_TEST_LIBRARY_RUNS", "15"))
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            sum(range(1000))

    def job(number: int) -> None:
        for turn in range(runs):
            words = library.words({})
            done = ocirt.run(["cat"], input=f"{number} {turn}", capture_output=True, text=True, timeout=120, **words)
            assert (done.returncode, done.stdout) == (0, f"{number} {turn}")

    restless = threading.Thread(target=busy)
    restless.start()
    before = len(os.listdir("/proc/self/fd"))
    try:
        in_threads(8, job)
    finally:
        stop.set()
        restless.join()
    assert library.names() == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the zygote's socket


def test_threads_share_a_container(library: Library) -> None:
    with library.create("sleep", "1000") as box:
        box.start()

        def job(number: int) -> None:
            for _ in range(5):
                assert box.exec(["echo", str(number)], capture_output=True, text=True).stdout == f"{number}\n"

        in_threads(4, job)
        waited: list[int | None] = []
        waiters = [threading.Thread(target=lambda: waited.append(box.wait(30))) for _ in range(3)]
        for thread in waiters:
            thread.start()
        box.kill("KILL")
        for thread in waiters:
            thread.join()
        assert waited == [-signal.SIGKILL] * 3
