"""Bytes that pass once: counted, decompressed if they are compressed, and read in pieces of a bounded size."""

from __future__ import annotations

import io
import os
import zlib
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 20
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_MOST_AT_ONCE = 64 << 20  # bytes; more is only wanted by a tar's header that lies about its size


class Reader(Protocol):
    """What `read(n)` gives at most n bytes of, and b"" at the end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes. Raises OSError, Error("corrupt")."""


class Descriptor:
    """Reads an open descriptor, which stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        return os.read(self._fd, size)


class Part:
    """Reads `size` bytes of a file from `offset` on, whatever else reads it."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._end = offset + size

    def read(self, size: int, /) -> bytes:
        """The next bytes. Raises Error("corrupt") if the file ends before."""
        size = min(size, self._end - self._offset)
        data = os.pread(self._fd, size, self._offset)
        if size and not data:
            raise Error("corrupt", "the file ends too early", cause=f"{self._end - self._offset} bytes are missing")
        self._offset += len(data)
        return data


class Decompressed:
    """Reads what a decompressor makes of another reader's bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer than `size` as a rule."""
        while not self._piece:
            found = next(self._pieces, None)
            if found is None:
                return b""
            self._piece = memoryview(found)
        data, self._piece = self._piece[:size], self._piece[size:]
        return bytes(data)


class Rewound:
    """Reads bytes that were read already, then the rest."""

    def __init__(self, head: bytes, rest: Reader) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._rest.read(size)


class Forward:
    """A reader as the file that `tarfile` wants: with a position, which only grows."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._position = 0

    def read(self, size: int, /) -> bytes:
        """`size` bytes, fewer only at the end. Raises Error("invalid") for a size that no honest archive asks for."""
        if size > _MOST_AT_ONCE:
            raise Error("invalid", f"a header of {size} bytes in a tar", hint="the archive is damaged, or made to do harm")
        pieces = []
        while size > 0 and (data := self._reader.read(min(size, CHUNK))):
            pieces.append(data)
            size -= len(data)
            self._position += len(data)
        return b"".join(pieces)

    def some(self, size: int) -> bytes:
        """At most `size` bytes, as many as there are at once."""
        data = self._reader.read(min(size, CHUNK))
        self._position += len(data)
        return data

    def tell(self) -> int:
        """How many bytes have passed."""
        return self._position

    def seek(self, position: int, /) -> int:
        """Skip up to a position that lies ahead."""
        while self._position < position and self.some(position - self._position):
            pass
        return self._position


def whole(reader: Reader, limit: int, subject: str) -> bytes:
    """All that a reader has. Raises Error("invalid") if that is more than `limit` bytes."""
    pieces, size = [], 0
    while data := reader.read(CHUNK):
        pieces.append(data)
        size += len(data)
        if size > limit:
            raise Error("invalid", f"longer than {limit} bytes", subject=subject)
    return b"".join(pieces)


def compression(head: bytes) -> str:
    """How content that begins with `head` is compressed: `gzip`, `zstd`, or "" for not at all."""
    if head.startswith(GZIP):
        return "gzip"
    return "zstd" if head.startswith(ZSTD) else ""


def plain(reader: Reader, subject: str) -> Reader:
    """What a reader has, decompressed if it is compressed. Raises Error("unsupported") for what only others know."""
    head = b""
    while len(head) < 6 and (data := reader.read(6 - len(head))):
        head += data
    found = compression(head)
    reader = Rewound(head, reader)
    if head.startswith((b"BZh", b"\xfd7zXZ\x00")):
        raise Error("unsupported", "compressed by bzip2 or xz", subject=subject, hint="decompress it and pass it by a pipe")
    makers: dict[str, Callable[[Reader, str], Iterator[bytes]]] = {"gzip": _gunzip, "zstd": _unzstd}
    return Decompressed(makers[found](reader, subject)) if found else reader


def _gunzip(reader: Reader, subject: str) -> Iterator[bytes]:
    """All members of a gzip stream."""
    library: Any = zlib
    try:
        from isal import isal_zlib  # noqa: PLC0415

        library = isal_zlib  # more than twice as fast
    except ModuleNotFoundError:
        pass
    inflate, rest = library.decompressobj(31), b""
    try:
        while data := rest or reader.read(CHUNK):
            if inflate.eof:
                if not data.strip(b"\0"):  # padding
                    rest = b""
                    continue
                inflate = library.decompressobj(31)
            yield inflate.decompress(data, CHUNK)
            rest = inflate.unconsumed_tail or inflate.unused_data
    except (zlib.error, library.error) as err:
        raise Error("corrupt", "not gzip", subject=subject, cause=str(err)) from None
    if not inflate.eof:
        raise Error("corrupt", "the compressed stream ends too early", subject=subject)


def _unzstd(reader: Reader, subject: str) -> Iterator[bytes]:
    """All frames of a zstd stream."""
    import zstandard  # noqa: PLC0415  (only for archives that are so compressed)

    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        with decompressor.stream_reader(cast("IO[bytes]", _Source(reader)), read_across_frames=True, closefd=False) as frames:
            while data := frames.read(CHUNK):
                yield data
    except zstandard.ZstdError as err:
        raise Error("corrupt", "not zstd", subject=subject, cause=str(err)) from None


class _Source(io.RawIOBase):
    """A reader as the file that zstandard wants."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        return self._reader.read(CHUNK if size < 0 else size)
