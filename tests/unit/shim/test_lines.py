"""The CRI's log format: what comes in goes out, cut where a line is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_shim.lines import Clock, Lines

STAMP = b"T"


def written(pieces: list[bytes], limit: int) -> list[tuple[bytes, bytes]]:
    """Tag and text of each line of the log."""
    lines = Lines("stdout", limit)
    text = b"".join([lines.feed(piece, STAMP) for piece in pieces]) + lines.end(STAMP)
    found = []
    for line in text.split(b"\n")[:-1]:
        stamp, stream, tag, rest = line.split(b" ", 3)
        assert (stamp, stream) == (STAMP, b"stdout")
        found.append((tag, rest))
    assert text == b"".join(b"T stdout %s %s\n" % one for one in found)
    return found


@given(st.lists(st.binary(max_size=30).map(lambda data: data.replace(b"x", b"\n"))), st.integers(1, 12))
def test_nothing_is_lost(pieces: list[bytes], limit: int) -> None:
    found = written(pieces, limit)
    assert b"".join(rest + (b"\n" if tag == b"F" else b"") for tag, rest in found) == b"".join(pieces)
    assert all(len(rest) <= limit for _, rest in found)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=4), st.integers(1, 12))
def test_it_does_not_matter_how_it_comes(data: bytes, cuts: list[int], limit: int) -> None:
    ends = [0, *sorted(cuts), len(data)]
    assert written([data[start:end] for start, end in zip(ends, ends[1:], strict=False)], limit) == written([data], limit)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [(b"F", b"")]),
        (b"ab\nc\n", [(b"F", b"ab"), (b"F", b"c")]),
        (b"abcd\n", [(b"P", b"abc"), (b"F", b"d")]),
        (b"abcdef\n", [(b"P", b"abc"), (b"F", b"def")]),
        (b"abcdefg", [(b"P", b"abc"), (b"P", b"def"), (b"P", b"g")]),
        (b"ab", [(b"P", b"ab")]),
    ],
)
def test_tags(data: bytes, expected: list[tuple[bytes, bytes]]) -> None:
    assert written([data], 3) == expected


@pytest.mark.parametrize(
    ("now", "text"),
    [(0, b"1970-01-01T00:00:00.000000000Z"), (1_764_410_400_000_000_001, b"2025-11-29T10:00:00.000000001Z")],
)
def test_times(now: int, text: bytes) -> None:
    clock = Clock()
    assert clock.stamp(now) == text
    assert clock.stamp(now + 1_000_000_000)[:4] == text[:4]
