"""A process that runs programs in containers, and is no container's."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt.errors import Error
from ocirt_api.messages.shim import ExecRequest
from tests.support.runtime import wait_for
from tests.support.shims import Shim, Zygote
from tests.system.shim.conftest import Box, Boxes

SLEEP = ("sleep", "1000")


class Executor:
    """One of them, with a client."""

    def __init__(self, zygote: Zygote, place: Path) -> None:
        self.place = place
        mine, answer = zygote.ask({"do": "executor", "runtime": str(place / "runtime")})
        self.pid: int = answer["at"]
        self.client = Shim(mine, place)

    def request(self, box: Box, *args: str, **more: Any) -> ExecRequest:
        process = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        state = box.shim.directory
        return ExecRequest(process=json.dumps(process).encode(), id=state.name, state=str(state), **more)

    def run(self, box: Box, *args: str, **more: Any) -> Any:
        return self.client.call("Exec", self.request(box, *args, **more))

    def files(self) -> list[str]:
        return sorted(os.readlink(one) for one in Path(f"/proc/{self.pid}/fd").iterdir())

    @property
    def is_there(self) -> bool:
        return Path(f"/proc/{self.pid}/exe").exists()


@pytest.fixture
def executor(boxes: Boxes, zygote: Zygote) -> Iterator[Executor]:
    made = Executor(zygote, boxes.place)
    yield made
    made.client.socket.close()
    wait_for(lambda: not made.is_there, "its end", 10)


@pytest.fixture
def started(boxes: Boxes) -> Callable[..., Box]:
    def start(*args: str, **edits: Any) -> Box:
        box = boxes(*(args or SLEEP), **edits)
        box.call("Start")
        return box

    return start


def test_in_several_containers(executor: Executor, started: Callable[..., Box]) -> None:
    """Each time in the right one, also after one that shares pids with the host."""
    spaces = [{"type": kind} for kind in ("mount", "uts", "ipc", "network")]
    boxes = [started(hostname=f"h{number}") for number in range(2)]
    boxes.append(started(hostname="h2", linux={"namespaces": spaces}))
    for number in (0, 1, 2, 0, 2, 1):
        done = executor.run(boxes[number], "sh", "-c", "hostname; cat; echo $$ >&2; exit 5", stdin=b"in")
        assert (done.exit_code, done.stdout) == (5, b"h%d\nin" % number)
        own = {link: os.readlink(f"/proc/self/ns/{link}") for link in ("pid", "pid_for_children", "mnt")}
        assert own == {link: os.readlink(f"/proc/{executor.pid}/ns/{link}") for link in own}
        assert number == 2 or int(done.stderr) < 100
        assert boxes[number].call("Pids").pids == [boxes[number].call("State").pid]


def test_it_keeps_nothing(executor: Executor, started: Callable[..., Box]) -> None:
    """Neither descriptors nor children, of what went well and of what did not."""
    box = started()
    executor.run(box, "true", timeout=5_000_000_000)
    before = executor.files()
    for _ in range(20):
        executor.run(box, "true", timeout=5_000_000_000)
        with pytest.raises(Error, match="/no/such"):
            executor.run(box, "/no/such")
    assert executor.files() == before
    assert not Path(f"/proc/{executor.pid}/task/{executor.pid}/children").read_text()


def test_memory(executor: Executor, started: Callable[..., Box]) -> None:
    """A program more leaves nothing behind."""

    def rss() -> int:
        fields = Path(f"/proc/{executor.pid}/smaps_rollup").read_text().split()
        return int(fields[fields.index("Private_Dirty:") + 1])

    box = started()
    for _ in range(100):
        executor.run(box, "true")
    before = rss()
    for _ in range(300):
        executor.run(box, "true")
    assert rss() - before < 300, "KiB"


def test_what_is_no_running_container(executor: Executor, boxes: Boxes, started: Callable[..., Box]) -> None:
    created = boxes(*SLEEP)
    with pytest.raises(Error, match="does not exist"):
        executor.client.call("Exec", ExecRequest(process=b'{"args": ["true"]}', id="nobody", state=str(executor.place)))
    stopped = started("true")
    stopped.call("Wait")
    with pytest.raises(Error, match="cannot exec in a stopped container"):
        executor.run(stopped, "true")
    with pytest.raises(Error, match="object is expected"):
        executor.client.call("Exec", ExecRequest(process=b"[]", id=created.shim.directory.name, state=str(executor.place)))
    with pytest.raises(Error, match="no method"):
        executor.client.call("State")
    assert executor.run(started(), "echo", "x").stdout == b"x\n"


def test_time_runs_out(executor: Executor, started: Callable[..., Box]) -> None:
    box = started()
    done = executor.run(box, "sh", "-c", "(setsid sleep 2000 &); (sleep 2000 &); sleep 2000", timeout=300_000_000)
    assert done.timed_out
    assert box.call("Pids").pids == [box.call("State").pid]
    assert executor.run(box, "echo", "x").stdout == b"x\n"


def test_much_output(executor: Executor, started: Callable[..., Box]) -> None:
    """In files beside the shim's own, which no other writes to."""
    box = started()
    ours, its = (run("sh", "-c", "head -c 3000000 /dev/zero") for run in (lambda *args: executor.run(box, *args), box.execute))
    assert ours.spilled != its.spilled
    for one in (ours, its):
        assert Path(one.spilled + ".stdout").stat().st_size == 3_000_000


def test_without_its_maker(executor: Executor, started: Callable[..., Box]) -> None:
    """What runs goes on to its end, or to that of its time."""
    box = started()
    executor.client.send("Exec", executor.request(box, "sh", "-c", "sleep 1; echo $$ > /over; sleep 1000", timeout=2_000_000_000))
    wait_for(lambda: len(box.call("Pids").pids) > 1, "the program", 10)
    executor.client.socket.shutdown(2)
    time.sleep(0.2)
    assert executor.is_there
    wait_for(lambda: not executor.is_there, "its end", 10)
    assert (executor.place / box.shim.directory.name / "upper" / "over").exists()
    assert box.call("Pids").pids == [box.call("State").pid]


def test_its_container_ends(executor: Executor, started: Callable[..., Box]) -> None:
    box = started()
    words = "sh", "-c", "touch /there; exec sleep 1000"
    stream = executor.client.send("Exec", executor.request(box, *words, timeout=60_000_000_000))
    wait_for((executor.place / box.shim.directory.name / "upper" / "there").exists, "the program", 10)
    os.kill(box.call("State").pid, signal.SIGKILL)
    assert executor.client.receive("Exec", stream).exit_code == 137
    box.call("Delete")
