"""Compressed bytes in, the archive's bytes out, into buffers of the caller's.

gzip is python-isal's (Intel's ISA-L, two to three times as fast as zlib), or the standard library's where that is not installed;
zstd is python-zstandard's. Both let other threads run while they work.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Any, Protocol

import zstandard

from ocirt_images.apply.frames import Frames
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.source import Source

GzipFile: Any
try:
    from isal import igzip
except ImportError:  # no wheel for this platform
    GzipFile = gzip.GzipFile
else:
    GzipFile = igzip.IGzipFile

COMPRESSIONS = ("", "gzip", "zstd")
PIECE = 1 << 18  # compressed bytes that are read at a time
WINDOW = 1 << 27  # the memory that a zstd frame may ask for; what `zstd --long` writes, and what its command line allows


class Inflater(Protocol):
    """`readinto` fills a buffer and returns how many bytes it wrote; 0 at the end. Raises Malformed, LimitExceeded, OSError."""

    def readinto(self, buffer: memoryview, /) -> int: ...  # noqa: D102


def inflater(source: Source, compression: str, limits: Limits) -> Inflater:
    """What inflates `source`, which is compressed by one of COMPRESSIONS."""
    if compression == "gzip":
        return _Gzip(source, limits)
    if compression == "zstd":
        return _Zstd(source, limits)
    return _Plain(source, limits)


class _Counted:
    """How much has come out, beside how much went in."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._count = 0

    def _counted(self, size: int) -> int:
        self._count += size
        self._limits.check("size", self._count, "bytes of the archive")
        self._limits.check_ratio(self._count, self._source.position)
        return size


class _Plain(_Counted):
    def readinto(self, buffer: memoryview, /) -> int:
        return self._counted(self._source.readinto(buffer))


class _Gzip(_Counted):
    """All members of a gzip stream; zeros after the last one are padding, everything else there is an error."""

    def __init__(self, source: Source, limits: Limits) -> None:
        super().__init__(source, limits)
        self._file = GzipFile(fileobj=source, mode="rb")

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            size: int = self._file.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as err:
            raise Malformed(f"not a gzip stream as it should be, near byte {self._source.position}: {err}") from None
        if not size and not self._count and not self._source.position:
            raise Malformed("not a gzip stream: it is empty")
        return self._counted(size)


class _Zstd(_Counted):
    """All frames of a zstd stream; those that are to be skipped (zstd:chunked keeps its table in one) are."""

    def __init__(self, source: Source, limits: Limits) -> None:
        super().__init__(source, limits)
        self._frames = Frames()
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        self._stream = decompressor.stream_reader(self, read_size=PIECE, read_across_frames=True)  # type: ignore[arg-type]

    def read(self, size: int) -> bytes:
        """What the stream reader reads from."""
        data = self._source.read(size)
        self._frames.feed(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            size = self._stream.readinto(buffer)
        except zstandard.ZstdError as err:
            raise Malformed(f"not a zstd stream as it should be, near byte {self._source.position}: {err}") from None
        if not size and (not self._frames.complete or not self._source.position):
            raise Malformed(f"the zstd stream is truncated after byte {self._source.position}")
        return self._counted(size)
