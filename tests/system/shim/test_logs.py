"""A container's log, as its shim writes it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.runtime import wait_for
from tests.system.shim.conftest import Boxes


def test_long_lines_and_a_line_without_an_end(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "head -c 25 /dev/zero | tr '\\0' x; echo; printf rest", limit=10)
    box.run()
    box.call("Delete")
    assert box.entries() == [
        ("stdout", "P", "x" * 10),
        ("stdout", "P", "x" * 10),
        ("stdout", "F", "x" * 5),
        ("stdout", "P", "rest"),
    ]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ", line) for line in box.log.read_text().splitlines())


def test_rotation(boxes: Boxes) -> None:
    """No line is lost, none comes twice."""
    box = boxes("sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done")
    box.call("Start")
    kept: list[Path] = []
    for number in range(20):
        old = box.log.with_name(f"log.{number}")
        box.log.rename(old)
        kept.append(old)
        box.call("ReopenLog")
    box.call("Wait")
    lines = [line.split(" ", 3)[3] for path in (*kept, box.log) for line in path.read_text().splitlines()]
    assert lines == [str(number) for number in range(2000)]


def test_a_terminal(boxes: Boxes) -> None:
    box = boxes("sh", "-c", "test -t 1 && echo yes; echo err >&2", terminal=True)
    box.run()
    box.call("Delete")
    assert box.entries() == [("stdout", "F", "yes"), ("stdout", "F", "err")]


def test_a_full_log_keeps_nobody_waiting(boxes: Boxes) -> None:
    """/dev/full stands for the disk."""
    box = boxes("sh", "-c", "echo 1; echo 2; exit 4")
    box.log.unlink()
    box.log.symlink_to("/dev/full")
    # A link is not followed: the shim goes on in the file that it has.
    box.call("Start")
    assert box.call("Wait").exit_code == 4


def test_a_grandchild_keeps_the_stream(boxes: Boxes) -> None:
    """The end of init is told at once."""
    box = boxes("sh", "-c", "sleep 1000 & echo done", linux={"namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]})
    ended = box.run()
    assert ended.exit_code == 0
    wait_for(lambda: ("stdout", "F", "done") in box.entries(), "the log", 5)
    wait_for(lambda: box.call("Pids").pids == [], "the end of the others", 5)
