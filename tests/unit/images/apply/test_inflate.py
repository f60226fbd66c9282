"""Compressed streams: whole ones of several parts, broken ones, ones that grow too much, and files that are still growing."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images.apply import inflate
from ocirt_images.apply.frames import Frames
from ocirt_images.apply.limits import LimitExceeded, Limits
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.source import Growing, Source

# Two halves: one that compresses, one that does not.
DATA = b"all work and no play " * 20000 + random.Random(1).randbytes(300_000)
SKIPPED = struct.pack("<II", 0x184D2A55, 9) + b"a table. "


def zstd(data: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(level=3, **options).compress(data)  # type: ignore[arg-type]


def drain(stream: inflate.Inflater, size: int = 1 << 16) -> bytes:
    out = bytearray()
    buffer = memoryview(bytearray(size))
    while count := stream.readinto(buffer):
        out += buffer[:count]
    return bytes(out)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "layer", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def inflated(fd: int, data: bytes, compression: str, limits: Limits = Limits()) -> bytes:  # noqa: B008
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)
    return drain(inflate.inflater(Source(fd, len(data)), compression, limits))


GZIPPED, ZSTD, CHECKED = gzip.compress(DATA, mtime=0), zstd(DATA), zstd(DATA, write_checksum=True)


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize(
    ("data", "compression", "times"),
    [
        (DATA, "", 1),
        (GZIPPED, "gzip", 1),
        (GZIPPED + gzip.compress(b"", mtime=0) + GZIPPED, "gzip", 2),
        (GZIPPED + bytes(512), "gzip", 1),
        (ZSTD, "zstd", 1),
        (CHECKED + SKIPPED + ZSTD + SKIPPED, "zstd", 2),
        (SKIPPED + CHECKED, "zstd", 1),
        (zstd(DATA, write_content_size=False), "zstd", 1),
        (zstandard.ZstdCompressor().compressobj().compress(b"") + zstd(b""), "zstd", 0),
    ],
)
def test_whole(file: int, data: bytes, compression: str, times: int, standard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if standard:
        monkeypatch.setattr(inflate, "GzipFile", gzip.GzipFile)
    assert inflated(file, data, compression) == DATA * times


def test_isal_is_what_is_used() -> None:
    assert inflate.GzipFile.__module__.startswith("isal")


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize(
    ("data", "compression"),
    [
        *((GZIPPED[:size], "gzip") for size in (0, 1, 9, 11, 1000, len(GZIPPED) - 8, len(GZIPPED) - 1)),
        (GZIPPED + b"garbage after the end", "gzip"),
        (GZIPPED + b"\x1f\x8b", "gzip"),
        (GZIPPED[:-8] + bytes(8), "gzip"),
        (GZIPPED[:5000] + bytes(100) + GZIPPED[5100:], "gzip"),
        (DATA, "gzip"),
        *((CHECKED[:size], "zstd") for size in (0, 1, 4, 5, 7, 1000, len(CHECKED) - 4, len(CHECKED) - 1)),
        (ZSTD[:-1], "zstd"),
        (ZSTD + b"\x28\xb5", "zstd"),
        (ZSTD + b"garbage after the end", "zstd"),
        (ZSTD + SKIPPED[:10], "zstd"),
        (CHECKED[:-1] + b"\0", "zstd"),
        (DATA, "zstd"),
    ],
)
def test_broken(file: int, data: bytes, compression: str, standard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if standard:
        monkeypatch.setattr(inflate, "GzipFile", gzip.GzipFile)
    with pytest.raises(Malformed, match=f"{compression} stream"):
        inflated(file, data, compression)


@pytest.mark.parametrize(("data", "compression"), [(GZIPPED, "gzip"), (CHECKED, "zstd")])
def test_a_flipped_bit_is_found_or_changes_nothing(file: int, data: bytes, compression: str) -> None:
    for at in random.Random(7).sample(range(len(data)), 60):
        flipped = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        try:
            found = inflated(file, flipped, compression)
        except Malformed:
            continue
        assert found == DATA  # a file name or a time in the head


BOMB = b"\0" * (64 << 20)


@pytest.mark.parametrize(("data", "compression"), [(gzip.compress(BOMB, mtime=0), "gzip"), (zstd(BOMB), "zstd")])
def test_bombs(file: int, data: bytes, compression: str) -> None:
    with pytest.raises(LimitExceeded, match=r"times as many \(ratio\)"):
        inflated(file, data, compression, Limits(ratio_from=1 << 20))
    with pytest.raises(LimitExceeded, match=r"limit of 10000000 \(size\)"):
        inflated(file, data, compression, Limits(size=10_000_000))
    assert inflated(file, data, compression, Limits(ratio_from=64 << 20)) == BOMB


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_growing(file: int, compression: str) -> None:
    """The reader gets what is valid, waits for more, and hashes all of it."""
    data = {"": DATA, "gzip": GZIPPED, "zstd": ZSTD}[compression]
    os.ftruncate(file, len(data))  # the rest is zeros until it is written
    growing = Growing(len(data))
    hasher = hashlib.sha256()
    out: list[bytes] = []
    source = Source(file, len(data), growing.fileno(), hasher)
    reader = threading.Thread(target=lambda: out.append(drain(inflate.inflater(source, compression, Limits()))))
    reader.start()
    for at in range(0, len(data), 7919):
        os.pwrite(file, data[at : at + 7919], at)
        growing.advance(min(at + 7919, len(data)))
        growing.advance(at)  # late news is no news
    reader.join()
    growing.close()
    growing.advance(1)
    assert out == [DATA]
    assert hasher.digest() == hashlib.sha256(data).digest()


def test_abandoned(file: int) -> None:
    os.ftruncate(file, 1000)
    growing = Growing(1000)
    growing.advance(300)
    growing.abandon()
    growing.abandon()
    with pytest.raises(Malformed, match="ended after 0 of 1000"):
        drain(inflate.inflater(Source(file, 1000, growing.fileno()), "", Limits()))


def test_a_file_that_is_too_short(file: int) -> None:
    os.ftruncate(file, 10)
    with pytest.raises(Malformed, match="has 10 bytes, not 1000"):
        drain(inflate.inflater(Source(file, 1000), "", Limits()))


STREAM = CHECKED + SKIPPED + zstd(b"", write_content_size=False) + zstd(b"\0" * 300_000)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_frames(cuts: list[int]) -> None:
    frames = Frames()
    assert frames.complete
    edges = [0, *sorted(cuts), len(STREAM)]
    for begin, end in zip(edges, edges[1:], strict=False):
        frames.feed(STREAM[begin:end])
    assert frames.complete


def test_frames_end_nowhere_else() -> None:
    frames = Frames()
    ends: list[int] = []
    for at in range(len(CHECKED) - 100, len(STREAM)):
        if not ends and at == len(CHECKED) - 100:
            frames.feed(STREAM[:at])
        frames.feed(STREAM[at : at + 1])
        if frames.complete:
            ends.append(at + 1)
    assert ends[0] == len(CHECKED)
    assert ends[-1] == len(STREAM)
    assert len(ends) == 4
