"""Progress, with a clock and a terminal of the test's own."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from ocirt_images.cli.progress import REDRAW, Bars, Board, JsonLines, Lines, Quiet, bar, choose
from ocirt_images.digest import Digest
from ocirt_images.events import (
    Done,
    Event,
    LayerDone,
    LayerKnown,
    LayerProgress,
    LayerUnpacking,
    LayerWaiting,
    Resolved,
    Retrying,
)

ONE, TWO, THREE = (Digest.of(bytes([number])) for number in range(3))
NAME = "docker.io/library/x:1"
START: list[Event] = [Resolved(NAME, ONE, "linux/amd64"), LayerKnown(ONE, 1000), LayerKnown(TWO, 2000), LayerKnown(THREE, 3000)]


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pipe() -> Iterator[tuple[int, Callable[[], str]]]:
    """A descriptor to write to, and what was written."""
    fd = os.memfd_create("terminal")
    place = 0

    def read() -> str:
        nonlocal place
        data = os.pread(fd, 1 << 20, place)
        place += len(data)
        return data.decode()

    yield fd, read
    os.close(fd)


def board(*events: tuple[float, Event]) -> Board:
    made = Board()
    for event in START:
        made.apply(event, 0.0)
    for now, event in events:
        made.apply(event, now)
    return made


def test_a_board() -> None:
    """A head, a line for each layer, a sum."""
    lines = board(
        (0.0, LayerProgress(ONE, 0)),
        (1.0, LayerProgress(ONE, 500)),
        (1.0, LayerWaiting(TWO, 700)),
        (1.0, LayerUnpacking(THREE, 1500)),
    ).lines(100, 24)
    assert lines[0] == f"{NAME} (linux/amd64)"
    assert re.fullmatch(rf"{ONE.short}  \[=+> +\]  500B/1kB  500B/s", lines[1])
    assert re.fullmatch(rf"{TWO.short}  waiting on another pull  \[=+> +\]  700B/2kB", lines[2])
    assert re.fullmatch(rf"{THREE.short}  unpacking  \[=+> +\]  1.5kB/3kB", lines[3])
    assert lines[4] == "0 of 3 layers, 4.2kB of 6kB  500B/s"


def test_how_layers_end() -> None:
    lines = board((0, LayerDone(ONE)), (0, LayerDone(TWO, "exists")), (0, LayerDone(THREE, "mounted"))).lines(80, 24)
    assert lines[1:4] == [
        f"{ONE.short}  done       1kB",
        f"{TWO.short}  exists     2kB",
        f"{THREE.short}  mounted    3kB",
    ]
    assert lines[4] == "3 of 3 layers, 6kB of 6kB"


@pytest.mark.parametrize("width", [1, 10, 30, 40, 60, 80, 200])
def test_no_line_is_too_wide(width: int) -> None:
    """A line that wraps would be drawn twice."""
    made = board((0.0, LayerProgress(ONE, 0)), (1.0, LayerProgress(ONE, 999)), (1.0, LayerWaiting(TWO, 1)))
    made.apply(Retrying(ONE, "reset \x1b[2J by peer", 2.0), 1.0)
    lines = made.lines(width, 24)
    assert all(len(line) < max(width, 2) for line in lines)
    assert all(line.isprintable() for line in lines)


def test_more_layers_than_lines() -> None:
    """Those that move are shown."""
    made = Board()
    made.apply(Resolved(NAME, ONE), 0.0)
    layers = [Digest.of(f"{number}".encode()) for number in range(100)]
    for layer in layers:
        made.apply(LayerKnown(layer, 10), 0.0)
    for layer in layers[:50]:
        made.apply(LayerDone(layer), 0.0)
    made.apply(LayerProgress(layers[90], 5), 0.0)
    lines = made.lines(80, 10)
    assert len(lines) <= 9
    assert lines[1].startswith(layers[90].short)
    assert lines[-1].startswith("50 of 100 layers")


def test_the_speed_leaves_out_what_was_there() -> None:
    """A pull that goes on did not fetch the first half in no time."""
    made = board((10.0, LayerProgress(THREE, 1500)), (11.0, LayerProgress(THREE, 1700)))
    assert made.layers[THREE].speed == 200


def test_a_bar() -> None:
    assert [bar(moved, 100, 12) for moved in (0, 50, 100, 200)] == [
        "[>         ]",
        "[=====>    ]",
        "[==========]",
        "[==========]",
    ]
    assert bar(0, 0, 12) == "[>         ]"


def screen(text: str, rows: int = 50) -> list[str]:
    """What a terminal shows after `text`: cursor up, carriage return, erase to the end of a line and of the screen."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[AKJ]|\r|\n|[^\r\n\x1b]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b["):
            number = int(part[2:-1] or 0)
            if part[-1] == "A":
                assert number <= row < rows, "above the top"
                row -= number
            elif part[-1] == "K":
                lines[row] = lines[row][:column]
            else:
                lines = [*lines[:row], lines[row][:column]]
        else:
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_bars_are_redrawn_in_their_place(pipe: tuple[int, Callable[[], str]]) -> None:
    fd, read = pipe
    clock = Clock()
    text = ""
    with Bars(fd, clock, lambda: (80, 24)) as bars:
        for event in START:
            bars(event)
        for moved in range(0, 1001, 100):
            clock.now += 1.1 * REDRAW
            bars(LayerProgress(ONE, moved))
            text += read()
            assert sum(line.startswith(ONE.short) for line in screen(text)) == 1
        bars(LayerDone(ONE))
    text += read()
    shown = screen(text)
    assert shown[0] == f"{NAME} (linux/amd64)"
    assert shown[1].startswith(f"{ONE.short}  done")
    assert shown[-1] == ""  # the cursor is below


def test_bars_are_not_drawn_too_often(pipe: tuple[int, Callable[[], str]]) -> None:
    """Ten times a second, whatever comes."""
    fd, read = pipe
    clock = Clock()
    bars = Bars(fd, clock, lambda: (80, 24))
    for event in START:
        bars(event)
    read()
    for number in range(1000):
        clock.now += 0.001
        bars(LayerProgress(TWO, number))
    assert read().count(NAME) <= 10


def test_bars_of_a_second_image_are_below_the_first(pipe: tuple[int, Callable[[], str]]) -> None:
    fd, read = pipe
    with Bars(fd, Clock(), lambda: (80, 24)) as bars:
        for event in [*START, LayerDone(ONE), LayerDone(TWO), LayerDone(THREE), Done(NAME, ONE)]:
            bars(event)
        second: list[Event] = [Resolved("quay.io/y:2", TWO), LayerKnown(TWO, 2000), LayerDone(TWO, "exists")]
        for event in second:
            bars(event)
    shown = screen(read())
    assert [line for line in shown if line.startswith(("docker", "quay"))] == [f"{NAME} (linux/amd64)", "quay.io/y:2"]
    assert sum("done" in line for line in shown) == 3


def test_a_terminal_that_cannot_say_its_size(pipe: tuple[int, Callable[[], str]]) -> None:
    fd, read = pipe
    with Bars(fd, Clock()) as bars:  # of a memfd there is no size
        bars(START[0])
    assert NAME in read()


def test_lines(pipe: tuple[int, Callable[[], str]]) -> None:
    """Once for each thing, and no line for what is only on its way."""
    fd, read = pipe
    lines = Lines(fd)
    events: list[Event] = [*START, LayerProgress(ONE, 10), LayerWaiting(TWO, 1), LayerWaiting(TWO, 2), LayerDone(ONE)]
    for event in [*events, Retrying(TWO, "503 from x\n", 4.0), LayerDone(TWO, "exists"), Done(NAME, ONE)]:
        lines(event)
    assert read().splitlines() == [
        f"{NAME}: {ONE} (linux/amd64)",
        f"{TWO.short}: waiting on another pull",
        f"{ONE.short}: done, 1kB",
        "503 from x?; again in 4 s",
        f"{TWO.short}: exists, 2kB",
    ]


def test_json(pipe: tuple[int, Callable[[], str]]) -> None:
    fd, read = pipe
    clock = Clock()
    made = JsonLines(fd, clock)
    for event in [*START[:2], LayerProgress(ONE, 1), LayerProgress(ONE, 2), LayerDone(ONE), Done(NAME, ONE, TWO)]:
        made(event)
    found = [json.loads(line) for line in read().splitlines()]
    assert [one["event"] for one in found] == ["Resolved", "LayerKnown", "LayerProgress", "LayerDone", "Done"]
    assert found[2] == {"event": "LayerProgress", "layer": ONE, "moved": 1}
    assert found[4] == {"event": "Done", "name": NAME, "digest": ONE, "image_id": TWO}


def test_events_from_many_threads(pipe: tuple[int, Callable[[], str]]) -> None:
    """No line is torn by another."""
    fd, read = pipe
    bars = Bars(fd, lambda: 0.0, lambda: (80, 24))
    for event in START:
        bars(event)

    def move() -> None:
        for number in range(300):
            bars(LayerProgress(ONE, number))

    threads = [threading.Thread(target=move) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bars.close()
    assert screen(read())[0] == f"{NAME} (linux/amd64)"


@pytest.mark.parametrize(
    ("terminal", "term", "quiet", "as_json", "wanted"),
    [
        (True, "xterm", False, False, Bars),
        (True, "dumb", False, False, Lines),
        (False, "xterm", False, False, Lines),
        (True, "xterm", True, False, Quiet),
        (True, "xterm", True, True, JsonLines),
    ],
)
def test_what_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    term: str,
    quiet: bool,
    as_json: bool,
    wanted: type,  # noqa: FBT001
) -> None:
    monkeypatch.setattr("os.isatty", lambda fd: terminal)
    monkeypatch.setenv("TERM", term)
    assert type(choose(quiet=quiet, as_json=as_json)) is wanted
