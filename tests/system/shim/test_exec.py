"""Programs that run in a container to their end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ocirt.errors import Error
from ocirt_api.messages.shim import ExecRequest
from tests.system.shim.conftest import Boxes


def test_what_it_returns(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    done = box.execute("sh", "-c", "echo out; echo err >&2; exit 5")
    assert (done.exit_code, done.stdout, done.stderr, done.timed_out, done.truncated) == (5, b"out\n", b"err\n", False, False)
    assert box.execute("cat", stdin=b"hello").stdout == b"hello"
    assert box.execute("sh", "-c", "kill -9 $$").exit_code == 137


def test_what_cannot_be_run(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    with pytest.raises(Error, match="/no/such"):
        box.execute("/no/such")
    assert box.execute("true").exit_code == 0


def test_time_runs_out(boxes: Boxes) -> None:
    """Nothing of it is left, not what it has put into the background either."""
    box = boxes("sleep", "1000")
    box.call("Start")
    begin = time.monotonic()
    done = box.execute("sh", "-c", "sleep 2000 & sleep 2000", timeout=300_000_000)
    assert done.timed_out
    assert time.monotonic() - begin < 5
    assert box.call("Pids").pids == [box.call("State").pid]


def test_much_output(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    done = box.execute("sh", "-c", "head -c 3000000 /dev/zero; echo end >&2")
    assert done.spilled
    assert Path(done.spilled + ".stdout").stat().st_size == 3_000_000
    assert Path(done.spilled + ".stderr").read_text() == "end\n"
    for name in ("stdout", "stderr"):
        Path(f"{done.spilled}.{name}").unlink()
    done = box.execute("sh", "-c", "head -c 3000000 /dev/zero", output_limit=1000)
    assert (len(done.stdout), done.truncated) == (1000, True)


def test_many_at_once(boxes: Boxes) -> None:
    box = boxes("sleep", "1000")
    box.call("Start")
    request = ExecRequest(process=b'{"args": ["sh", "-c", "sleep 0.1; echo x"], "cwd": "/", "env": ["PATH=/bin"], "user": {}}')
    streams = [box.shim.send("Exec", request) for _ in range(30)]
    assert [box.shim.receive("Exec", stream).stdout for stream in streams] == [b"x\n"] * 30
    assert box.call("Pids").pids == [box.call("State").pid]


def test_time_runs_out_for_those_that_have_left_the_tree(boxes: Boxes) -> None:
    """Their parent has ended, so they are init's children."""
    box = boxes("sleep", "1000")
    box.call("Start")
    done = box.execute("sh", "-c", "(setsid sleep 2000 &); (sleep 2000 &); sleep 2000", timeout=300_000_000)
    assert done.timed_out
    assert box.call("Pids").pids == [box.call("State").pid]


def test_what_goes_on_in_the_background(boxes: Boxes) -> None:
    """In time it may; the container's removal ends it."""
    box = boxes("sleep", "1000")
    box.call("Start")
    done = box.execute("sh", "-c", "sleep 2000 & echo yes", timeout=5_000_000_000)
    assert (done.stdout, done.timed_out) == (b"yes\n", False)
    assert len(box.call("Pids").pids) == 2
