"""The log's file: its bounds, and a disk that is full."""

from __future__ import annotations

import errno
import posix
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_shim import log as module
from ocirt_shim.log import OLD, Log

HEAD = len("2026-11-29T10:00:00.000000001Z stdout F ")


def texts(path: Path) -> list[str]:
    return [line.split(" ", 3)[3] for line in path.read_text().splitlines()]


@given(st.lists(st.lists(st.integers(0, 200), max_size=8), max_size=8), st.integers(1, 600), st.integers(0, 3))
def test_a_bound_of_its_size(pieces: list[list[int]], size: int, by_others: int) -> None:
    """Every file holds whole lines, and no more than it may unless that is one line; none is lost, none comes twice."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        log = Log(str(path), size=size)
        number, written, seen = 0, [], []
        for turn, piece in enumerate(pieces):
            for length in piece:
                words = f"{number} ".ljust(length, "x")
                number += 1
                written.append(words)
                log.write("stdout", words.encode() + b"\n")
                old = Path(str(path) + OLD)
                if old.exists():  # or it would be written over
                    assert old.stat().st_size <= size or len(texts(old)) == 1
                    seen += texts(old)
                    old.unlink()
                assert path.stat().st_size <= size or len(texts(path)) == 1
            if by_others and turn % by_others == 0:  # the kubelet's way
                path.rename(path.with_name("rotated"))
                log.reopen()
                seen += texts(path.with_name("rotated"))
        log.close()
        assert [*seen, *texts(path)] == written


def test_many_lines_at_once_are_cut_at_ends_of_lines(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), size=HEAD * 3)
    log.write("stdout", b"".join(b"%d\n" % number for number in range(100)))
    log.close()
    assert texts(tmp_path / "log") == ["98", "99"]
    assert texts(tmp_path / ("log" + OLD)) == ["96", "97"]


def test_where_it_cannot_be_renamed_it_grows(tmp_path: Path) -> None:
    (tmp_path / ("log" + OLD)).mkdir()
    log = Log(str(tmp_path / "log"), size=HEAD * 2)
    for number in range(9):
        log.write("stdout", b"%d\n" % number)
    log.close()
    assert texts(tmp_path / "log") == [str(number) for number in range(9)]


def test_between_rename_and_reopen_it_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(str(path), size=(HEAD + 2) * 3)
    log.write("stdout", b"1\n2\n3\n")
    path.rename(tmp_path / "rotated")
    log.write("stdout", b"4\n")
    log.reopen()
    log.write("stdout", b"5\n")
    log.close()
    assert (texts(tmp_path / "rotated"), texts(path)) == (["1", "2", "3"], ["4", "5"])
    assert not path.with_name("log" + OLD).exists()


def test_a_bound_of_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines of a second are left out, and counted."""
    now = 10 * 10**9
    monkeypatch.setattr(module, "monotonic_ns", lambda: now)
    log = Log(str(tmp_path / "log"), rate=(HEAD + 2) * 3)
    log.write("stdout", b"".join(b"%d\n" % number for number in range(5)))
    log.write("stdout", b"5\n6\n")
    now += 10**9
    log.write("stdout", b"7\n")
    log.write("stdout", b"8\n9\na\nb\n")
    log.end("stdout")
    log.close()
    words = "lines were dropped: more than"
    found = [text if words not in text else text.partition(" more")[0] for text in texts(tmp_path / "log")]
    assert found == ["0", "1", "2", "ocirt: 4 lines were dropped:", "7", "8", "9", "ocirt: 2 lines were dropped:"]


def test_after_a_full_disk_a_line_begins_at_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was torn stays a line of its own."""
    full = False

    def write(fd: int, data: Any) -> int:
        if full and len(data) < HEAD:
            raise OSError(errno.ENOSPC, "full")
        return posix.write(fd, data[: HEAD + 2] if full else data)

    class Posix:
        def __getattr__(self, name: str) -> Any:
            return write if name == "write" else getattr(posix, name)

    monkeypatch.setattr(module, "posix", Posix())
    log = Log(str(tmp_path / "log"))
    log.write("stdout", b"first\n")
    full = True
    log.write("stdout", b"second\n")
    full = False
    log.write("stdout", b"third\n")
    log.close()
    assert texts(tmp_path / "log") == ["first", "se", "third"]
    assert log.lost == len("cond\n")
