"""A container's log, as its shim writes it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ocirt_api.messages.shim import KillRequest
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


def test_a_bound_of_its_size_and_the_rotation_of_others(boxes: Boxes) -> None:
    """All that was written is somewhere: what the shim itself put aside is read before it does so again."""
    box = boxes("sh", "-c", "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done", size=8000)
    box.call("Start")
    old = box.log.with_name("log.1")
    seen: dict[str, list[str]] = {}  # by the first line, which has a time

    def note(path: Path) -> None:
        if lines := path.read_text().splitlines():
            seen.setdefault(lines[0], lines)

    for number in range(3):
        wait_for(lambda: box.log.stat().st_size > 1000, "some lines", 10)
        kept = box.log.with_name(f"log.2026-{number}")
        box.log.rename(kept)
        box.call("ReopenLog")
        note(kept)
    while not box.call("State").exited_at:
        if old.exists():
            note(old)
    box.call("Delete")
    for path in (old, box.log):
        if path.exists():
            note(path)
    lines = sorted(line for found in seen.values() for line in found)
    assert [int(line.split(" ", 3)[3]) for line in lines] == list(range(300))
    assert box.log.stat().st_size <= 8000


@pytest.mark.parametrize("length", [80, 16384])
def test_a_flood(boxes: Boxes, length: int) -> None:
    """As fast as it goes: all lines in order, others are served meanwhile, and the shim does not grow."""
    count = (48 << 20) // length
    lines = [f"{number:012d}".ljust(length - 1, "x") for number in range(count)]
    (boxes.rootfs / "flood").write_text("".join(line + "\n" for line in lines))
    box = boxes("sh", "-c", "cat /flood; while :; do cat /flood; done >/dev/stderr")
    before = _memory(box.shim.pid)
    Path(f"/proc/{box.shim.pid}/clear_refs").write_text("5\n")  # the peak begins anew
    box.call("Start")
    for _ in range(20):
        assert box.execute("echo", "here").stdout == b"here\n"
    wait_for(lambda: b" stderr F " in _tail(box.log), "the first file's end", 60)
    box.call("Kill", KillRequest(signal=9, all=True))
    assert box.call("Wait").exit_code == 137
    assert _memory(box.shim.pid, "VmHWM") - before <= 4096
    number = 0
    with box.log.open("rb") as log:
        for line in log:
            _, stream, tag, text = line.rstrip(b"\n").split(b" ", 3)
            if stream == b"stderr":
                break
            assert (tag, text.decode()) == (b"F", lines[number])
            number += 1
    assert number == count
    box.call("Delete")
    box.log.unlink()


def _memory(pid: int, name: str = "VmRSS") -> int:
    """KiB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":"))


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        return file.read()
