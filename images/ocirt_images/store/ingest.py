"""Content on its way into the store: written by its one owner, hashed as its beginning grows, committed when it is what it
should be.

One thread may write from the front, or several at different offsets. The hash follows the unbroken beginning: a piece that comes
next in line is hashed from memory, one that came early is read back when the gap before it is closed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.changes import Changes
from ocirt_images.store.flights import Flight
from ocirt_images.store.received import Received

if TYPE_CHECKING:
    from hashlib import _Hash

Buffer = bytes | bytearray | memoryview
MODE = 0o444  # of content; it is never written again
_PIECE = 1 << 20


class Ingest:
    """Content that is being fetched, and belongs to who holds this. A context manager: left without `commit`, it keeps its
    bytes for the next owner, on disk.

    path: the file; what lies beyond `offset` may have gaps. digest, size: what it is to be.
    resumed: how many bytes an earlier owner left.
    grown: called with `offset` when that grew, by the thread that closed the gap; two threads may call in either order.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        paths: tuple[Path, Path],
        flight: Flight,
        changes: Changes,
        keep: Callable[[Path], None],
    ) -> None:
        """paths: the file and its map. keep: makes content of the file, which is whole, right and on disk."""
        self.digest = digest
        self.size = size
        self.path, self._map = paths
        self.grown: Callable[[int], None] | None = None
        self._flight = flight
        self._changes = changes
        self._keep = keep
        self._lock = threading.Lock()  # the map
        self._hashing = threading.Lock()  # the hash, and how far it is
        self._hash: _Hash = digest.hasher()
        self._hashed = 0
        self._descriptor = changes.create(self.path)
        try:
            length = os.fstat(self._descriptor).st_size
            self._received = Received(self._map, size, length, changes)
            try:
                if length > size:
                    changes.truncate(self._descriptor, size, self.path)
                self._follow(0, b"")
            except BaseException:
                self._received.close()
                raise
        except BaseException:
            os.close(self._descriptor)
            raise
        self.resumed = self._received.total
        flight.report(self.resumed)

    @property
    def offset(self) -> int:
        """How many bytes from the beginning are there without a gap."""
        with self._lock:
            return self._received.prefix

    @property
    def received(self) -> int:
        """How many bytes are there, wherever they are."""
        with self._lock:
            return self._received.total

    @property
    def missing(self) -> list[tuple[int, int]]:
        """The ranges that are still to be fetched: start and end, in order."""
        with self._lock:
            return self._received.gaps

    def allocate(self) -> None:
        """Takes the space for all of it now. Raises Error("exhausted") if there is none."""
        if self.size:
            self._changes.allocate(self._descriptor, self.size, self.path)

    def write(self, data: Buffer) -> None:
        """Appends at `offset`; for one thread. Raises Error("corrupt") for more bytes than there should be."""
        self.write_at(self.offset, data)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Writes at an offset. Threads may call it at the same time, each for another range.

        What is there already stays as it is: it may have been hashed, and read. Raises Error("corrupt") for bytes beyond
        the end that there should be, Error("exhausted") without space.
        """
        view = memoryview(data).cast("B")
        if offset + len(view) > self.size:
            raise Error("corrupt", f"more than the {self.size} bytes that it should have", subject=self.digest)
        with self._lock:
            wanted = self._received.missing(offset, offset + len(view))
        for start, end in wanted:
            self._write(start, view[start - offset : end - offset])

    def _write(self, offset: int, data: memoryview) -> None:
        length = len(data)
        self._changes.write_at(self._descriptor, data, offset, self.path)
        with self._lock:
            before = self._received.prefix
            self._received.add(offset, offset + length)
            prefix, total = self._received.prefix, self._received.total
        self._flight.report(total)
        if prefix > before and self.grown is not None:
            self.grown(prefix)
        self._follow(offset, data)

    def commit(self) -> None:
        """Makes content of it, on disk for good.

        Raises Error("corrupt"): bytes are missing (those that are there stay), or they are not what the digest says (they go).
        """
        received = self.received
        if received < self.size:
            raise Error("corrupt", f"only {received} of {self.size} bytes came", subject=self.digest)
        self._follow(0, b"")
        found = Digest.from_hash(self._hash)
        if found != self.digest:
            self.discard()
            hint = "part of it was left by an earlier attempt: try again" if self.resumed else ""
            raise Error("corrupt", f"its {self.size} bytes have the digest {found}", subject=self.digest, hint=hint)
        try:
            self._changes.chmod(self._descriptor, MODE)
            self._changes.fsync(self._descriptor, self.path)
            self._keep(self.path)
            self._changes.unlink(self._map)
        finally:
            self._close()

    def discard(self) -> None:
        """Drops the bytes."""
        try:
            self._changes.unlink(self.path)
            self._changes.unlink(self._map)
        finally:
            self._close()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._descriptor < 0:
            return
        if not self._received.total:
            self.discard()
            return
        try:
            self._changes.fsync(self._descriptor, self.path)
            self._received.keep()
        finally:
            self._close()

    def _follow(self, offset: int, data: Buffer) -> None:
        """Hashes as far as the beginning is there. One thread does; others find it at work and go on writing."""
        while self._hashed < self.offset and self._hashing.acquire(blocking=not data):
            try:
                if data and offset == self._hashed:
                    self._hash.update(data)
                    self._hashed += memoryview(data).nbytes
                while self._hashed < (end := self.offset):
                    piece = os.pread(self._descriptor, min(_PIECE, end - self._hashed), self._hashed)
                    if not piece:
                        raise Error("corrupt", "its file was cut short", subject=str(self.path), hint="who else writes there?")
                    self._hash.update(piece)
                    self._hashed += len(piece)
            finally:
                self._hashing.release()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)
            self._received.close()
            self._flight.end()
