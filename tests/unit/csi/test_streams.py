"""The first line of a stream of `ocirt-csi send`."""

from __future__ import annotations

import os

import pytest

from ocirt_csi.cli.move import Head, read_head
from ocirt_csi.errors import Error

LINE = b'ocirt-csi-snapshot-1 {"name":"n","volume":"v","size":1048576,"referenced":16384,"created":1,"base":"snap-0"}\n'


def _read(text: bytes) -> tuple[Head, bytes]:
    reader, writer = os.pipe()
    try:
        os.write(writer, text)
        os.close(writer)
        return read_head(reader), os.read(reader, 100)
    finally:
        os.close(reader)


def test_what_follows_is_left_to_the_next_reader() -> None:
    head, rest = _read(LINE + b"btrfs-stream\0")
    assert head == Head("n", "v", 1 << 20, 16384, 1, "snap-0")
    assert rest == b"btrfs-stream\0"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"btrfs-stream\0",
        LINE[:-1],
        LINE.replace(b"1048576", b"-1"),
        LINE.replace(b"1048576", b"true"),
        LINE.replace(b"1048576", b"1e9"),
        LINE.replace(b"16384", b"99999999999"),
        LINE.replace(b'"v"', b'"../v\\u0000"'),
        LINE.replace(b'"v"', b"[]"),
        LINE.replace(b'"base"', b'"bass"'),
        b"ocirt-csi-snapshot-1 " + b"x" * 5000 + b"\n",
    ],
    ids=range(11),
)
def test_lines_that_are_none(text: bytes) -> None:
    with pytest.raises(Error) as caught:
        _read(text)
    assert caught.value.code == "invalid"
