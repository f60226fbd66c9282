"""Streams and their words, without a container: what subprocess refuses is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ocirt.library import process
from ocirt.library.process import DEVNULL, PIPE, STDOUT, Streams, Text


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_streams_are_closed() -> None:
    before = open_descriptors()
    streams = Streams(PIPE, PIPE, STDOUT)
    assert streams.inner[1] == streams.inner[2]
    assert set(streams.outer) == {0, 1}
    streams.sent()
    streams.close()
    assert open_descriptors() == before
    streams = Streams(DEVNULL, None, 2)
    assert streams.inner[1:] == [1, 2]
    streams.close()
    with pytest.raises(ValueError, match="stderr"):
        Streams(PIPE, STDOUT, None)
    with pytest.raises(AttributeError):
        Streams(PIPE, PIPE, object())  # type: ignore[arg-type]
    assert open_descriptors() == before


@pytest.mark.parametrize(
    "words",
    [
        {"input": "x", "stdin": DEVNULL},
        {"stdin": PIPE},
        {"capture_output": True, "stdout": PIPE},
        {"capture_output": True, "stderr": PIPE},
    ],
)
def test_words_that_exclude_each_other(words: dict[str, Any]) -> None:
    usual: dict[str, Any] = dict.fromkeys(("input", "stdin", "stdout", "stderr", "timeout", "encoding", "errors", "output_limit"))
    usual |= dict.fromkeys(("capture_output", "check", "text"), False)
    with pytest.raises(ValueError, match="may not|needs"):
        process.complete({}, [], **(usual | words))


def test_text() -> None:
    assert Text(False, None, None).decode(b"a\r\n") == b"a\r\n"
    assert Text(True, None, None).decode(b"a\r\nb\rc\n") == "a\nb\nc\n"
    assert Text(False, "latin-1", None).decode(b"\xe9") == "é"
    assert Text(True, "utf-8", "replace").decode(b"\xff") == "\ufffd"
    assert Text(True, "utf-16-le", None).encode("x") == b"x\0"
    assert Text(True, None, None).decode(None) is None
    with pytest.raises(LookupError):
        Text(True, "klingon", None)


def test_a_result_says_what_happened() -> None:
    done = process.CompletedProcess(["x"], -9, None, None)
    done.oom_killed = True
    assert repr(done) == "CompletedProcess(args=['x'], returncode=-9, oom_killed=True)"
    with pytest.raises(process.CalledProcessError):
        done.check_returncode()
