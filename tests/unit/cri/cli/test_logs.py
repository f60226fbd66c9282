"""`ocirt logs`: the file's lines, parts put together, rotation, times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.errors import Error
from ocirt_cri.cli import logs, output
from ocirt_cri.cli.logs import Line, Reader, parse

TIME = "2026-11-29T10:00:00.000000001Z"


class Given:
    """Flags of a command line."""

    def __init__(self, **flags: Any) -> None:
        self.flags = flags

    def get(self, name: str) -> Any:
        return self.flags.get(name, "")

    def given(self, name: str) -> bool:
        return name in self.flags


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{TIME} stdout F hello", Line(TIME, "stdout", True, b"hello")),
        (f"{TIME} stderr P hel", Line(TIME, "stderr", False, b"hel")),
        (f"{TIME} stdout F:x ", Line(TIME, "stdout", True, b"")),
        (f"{TIME} stdout F a b  c", Line(TIME, "stdout", True, b"a b  c")),
        (f"{TIME} stdin F hello", None),
        (f"{TIME} stdout X hello", None),
        ("hello", None),
        ("", None),
    ],
)
def test_a_line(line: str, expected: Line | None) -> None:
    assert parse(line.encode()) == expected


@given(st.binary())
def test_anything_is_a_line_or_none(line: bytes) -> None:
    found = parse(line)
    assert found is None or found.stream in ("stdout", "stderr")


def entry(text: str, tag: str = "F", stream: str = "stdout") -> str:
    return f"{TIME} {stream} {tag} {text}\n"


def test_a_log_that_grows_and_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(entry("1") + entry("2")[:10])
    reader = Reader(str(path))
    assert [line.text for line in reader.lines()] == [b"1"]
    with path.open("a") as log:
        log.write(entry("2")[10:])
    assert [line.text for line in reader.lines()] == [b"2"]
    with path.open("a") as log:
        log.write(entry("3"))
    path.rename(tmp_path / "0.log.old")
    path.write_text(entry("4"))
    assert [line.text for line in reader.lines()] == [b"3", b"4"]
    path.unlink()
    assert list(reader.lines()) == []


def test_parts_are_put_together(capfd: pytest.CaptureFixture[str]) -> None:
    begun: set[str] = set()
    for text, whole in (("a", False), ("b", True), ("c", True)):
        logs._print(Line(TIME, "stdout", whole, text.encode()), begun, timestamps=True)
    logs._print(Line(TIME, "stderr", True, b"e"), begun, timestamps=False)
    said = capfd.readouterr()
    assert said.out == f"{TIME} ab\n{TIME} c\n"
    assert said.err == "e\n"


def test_since() -> None:
    assert logs._since(Given(), 0) == ""
    assert logs._since(Given(since="1m30s"), 90) == "1970-01-01T00:00:00"
    with pytest.raises(Error, match="--since: 'tomorrow'"):
        logs._since(Given(since="tomorrow"), 0)


def test_tail() -> None:
    assert logs._number(Given()) is None
    assert logs._number(Given(tail="0")) == 0
    for text in ("-1", "many", ""):
        with pytest.raises(Error, match="--tail"):
            logs._number(Given(tail=text))


def test_a_log_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Error, match="the log is gone"):
        Reader(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (3600, "1h"), (3661, "1h1m"), (90061, "1d1h"), (-5, "0s")]
)
def test_ages(seconds: float, text: str) -> None:
    assert output.age(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0B"), (999, "999B"), (1000, "0.977KiB"), (1 << 20, "1MiB"), (5 << 40, "5TiB")])
def test_sizes(number: int, text: str) -> None:
    assert output.size(number) == text


def test_nothing_moves_the_cursor() -> None:
    assert output.plain("a\x1b[2Jb\nc") == "a?[2Jb?c"


def test_a_reader_that_went_away() -> None:
    read, write = os.pipe()
    os.close(read)
    pid = os.fork()
    if not pid:
        try:
            output.write(b"x", write)
        finally:
            os._exit(1)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 141
