"""Shims of several containers in one process: none has to do with another."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from ocirt.containers.delete import delete
from ocirt.errors import Error
from ocirt_api.messages.shim import CREATED, RUNNING, STOPPED, KillRequest
from ocirt_shim import record
from tests.support.bundle import default_config
from tests.support.hungfs import HungFileSystem
from tests.support.runtime import wait_for
from tests.system.shim.conftest import Boxes

_SOON = 2.0  # seconds
_RESTARTS = 40
_GROWTH = 64  # KiB


def own_memory(pid: int) -> int:
    """KiB that no other process has."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty:", "Private_Clean:")))


def descriptors(pid: int) -> list[str]:
    return sorted(link.partition(":")[0] for link in links(pid))


def links(pid: int) -> list[str]:
    """What the descriptors of a process lead to, which may be closed meanwhile."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def settle(pid: int, left: int = 1) -> None:
    """Until workers have ended but for so many children, and the shim has seen that connections did."""
    wait_for(lambda: len(children(pid)) == left, "the end of workers", 5)
    time.sleep(0.3)


def test_two_lives(boxes: Boxes) -> None:
    first = boxes("sh", "-c", "echo one; read line; exit 3", stdin=True)
    second = boxes("sh", "-c", "echo two; exit 4", beside=first)
    third = boxes("sleep", "1000", beside=second)
    assert {record.load(str(box.shim.directory))["pid"] for box in (first, second, third)} == {first.shim.pid}
    wait_for(lambda: len(children(first.shim.pid)) == 3, "the end of their workers", 5)
    for box in (second, third, first):
        assert box.call("State").status == CREATED
        box.call("Start")
    assert second.call("Wait").exit_code == 4
    assert second.entries() == [("stdout", "F", "two")]
    wait_for(lambda: first.entries() == [("stdout", "F", "one")], "its line", 5)
    second.call("Delete")
    wait_for(lambda: not second.shim.directory.exists(), "the end of its files", 5)
    with pytest.raises(OSError, match="No such file"):
        second.shim.again()
    # Also its maker's connection ends, although the process goes on.
    assert second.shim.socket.recv(1) == b""
    assert third.execute("echo", "there").stdout == b"there\n"
    first.call("Kill", KillRequest(signal=9))
    assert (first.call("Wait").exit_code, third.call("State").status) == (137, RUNNING)
    first.call("Delete")
    again = third.shim.again()
    with again.socket:
        assert again.call("State").status == RUNNING
    assert third.is_served()
    third.call("Delete")
    wait_for(lambda: not third.is_served(), "the end of the process", 5)


def test_the_first_is_deleted_while_it_runs(boxes: Boxes) -> None:
    first = boxes("sleep", "1000")
    second = boxes("sleep", "1000", beside=first)
    for box in (first, second):
        box.call("Start")
    ended = first.call("Delete")
    assert (ended.status, ended.exit_code) == (STOPPED, 137)
    assert second.execute("true").exit_code == 0
    wait_for(lambda: children(second.shim.pid) == [second.call("State").pid], "the end of workers", 5)


def test_one_that_was_never_made(boxes: Boxes) -> None:
    """Its maker is gone, or its document is wrong: the others do not notice."""
    first = boxes("sleep", "1000")
    first.call("Start")
    settle(first.shim.pid)
    before = descriptors(first.shim.pid)
    for _ in range(3):
        first.shim.share(boxes.place, "never").socket.close()
    with pytest.raises(Error, match="/process/cwd"):
        boxes("true", beside=first, process={"cwd": "relative"})
    boxes.made[-1].call("Delete")
    wait_for(lambda: descriptors(first.shim.pid) == before, "the end of what was made for them", 5)
    wait_for(lambda: len(children(first.shim.pid)) == 1, "the end of their workers", 5)
    assert first.call("State").status == RUNNING


def test_the_process_is_killed(boxes: Boxes) -> None:
    """With it go all that it held: each is taken away as one whose shim is lost."""
    made = [boxes("sleep", "1000")]
    made.append(boxes("sleep", "1000", beside=made[0]))
    for box in made:
        box.call("Start")
    os.kill(made[0].shim.pid, signal.SIGKILL)
    for box in made:
        wait_for(lambda box=box: not record.is_alive(record.load(str(box.shim.directory))), "the end", 5)  # type: ignore[misc]
        delete(str(boxes.place / "runtime"), box.shim.directory.name, force=True)


def test_containers_that_come_and_go(boxes: Boxes, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is restarted again and again leaves nothing in the process that it shares."""
    first = boxes("sleep", "1000")
    first.call("Start")

    def live(number: int) -> None:
        box = boxes("sh", "-c", f"echo {number}; exit 7", beside=first)
        assert box.run().exit_code == 7
        box.call("Delete")
        box.shim.socket.close()
        wait_for(lambda: not box.shim.directory.exists(), "its end", 5)
        boxes.made.remove(box)

    for number in range(4):
        live(number)
    pid = first.shim.pid
    settle(pid)
    before, files = own_memory(pid), descriptors(pid)
    for number in range(_RESTARTS):
        live(number)
    settle(pid)
    assert descriptors(pid) == files
    after = own_memory(pid)
    with capsys.disabled():
        print(f"\n  a shim's own memory: {before} KiB; after {_RESTARTS} containers {after} KiB", end="")
    assert after - before <= _GROWTH


def test_one_more_takes_little(boxes: Boxes, capsys: pytest.CaptureFixture[str]) -> None:
    first = boxes("sleep", "1000")
    first.call("Start")
    alone = own_memory(first.shim.pid)
    for _ in range(4):
        boxes("sleep", "1000", beside=first).call("Start")
    each = (own_memory(first.shim.pid) - alone) / 4
    with capsys.disabled():
        print(f"\n  the first: {alone} KiB; each of four more: {each:.0f} KiB", end="")
    assert each < alone / 4


def test_one_that_does_not_end(hung: HungFileSystem, boxes: Boxes, tmp_path: Path) -> None:
    """Its removal waits for it, and the others are answered meanwhile."""
    bind = {"destination": "/hung", "type": "bind", "source": str(tmp_path / "hung"), "options": ["rbind"]}
    first = boxes("sleep", "1000")
    second = boxes("/hung/program", beside=first, mounts=[*default_config()["mounts"], bind])
    first.call("Start")
    start = second.shim.send("Start")
    init = second.call("State").pid
    wait_for(lambda: Path(f"/proc/{init}/wchan").read_text() == "request_wait_answer", "the open", 10)
    removal = second.shim.send("Delete")
    begin = time.monotonic()
    assert first.execute("echo", "here").stdout == b"here\n"
    assert first.call("State").status == RUNNING
    assert time.monotonic() - begin < _SOON
    with pytest.raises(Error, match="does not end"):
        second.shim.receive("Delete", removal)
    hung.free()
    second.shim.receive("Start", start)
    second.call("Delete")
    assert first.call("State").status == RUNNING


def test_without_a_descriptor(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    with pytest.raises(Error, match="no descriptor came with the call"):
        box.call("Share")
    mine, theirs = socket.socketpair()
    with mine, theirs:
        box.shim.call("Share", descriptor=theirs.fileno())
    assert box.call("State").status == CREATED


def test_one_whose_directory_was_taken_away(boxes: Boxes) -> None:
    """By who gave it up: its end is not that of the others."""
    first = boxes("sleep", "1000")
    first.call("Start")
    gone = boxes("true", beside=first)
    for file in gone.shim.directory.iterdir():
        file.unlink()
    gone.shim.directory.rmdir()
    assert gone.run().exit_code == 0
    gone.call("Delete")
    boxes.made.remove(gone)
    gone.shim.socket.close()
    assert first.execute("true").exit_code == 0


def test_two_removals_at_once(boxes: Boxes) -> None:
    first = boxes("sleep", "1000")
    second = boxes("sleep", "1000", beside=first)
    second.call("Start")
    other = second.shim.again()
    with other.socket:
        calls = second.shim.send("Delete"), other.send("Delete")
        assert second.shim.receive("Delete", calls[0]).exit_code == other.receive("Delete", calls[1]).exit_code == 137
    assert first.call("State").status == CREATED


def test_an_input_that_ends_while_another_is_made(boxes: Boxes) -> None:
    """Neither the worker that waits for the other's document nor anybody else keeps it open."""
    first = boxes("sh", "-c", "cat; echo over", stdin=True)
    first.call("Start")
    waiting = first.shim.share(boxes.place, "waiting")
    settle(first.shim.pid, 2)
    workers = [pid for pid in children(first.shim.pid) if pid != first.call("State").pid]
    assert not set(pipes(workers[0])) & set(pipes(first.call("State").pid))
    waiting.socket.close()


def pipes(pid: int) -> list[str]:
    return [one for one in links(pid) if one.startswith("pipe:")]
