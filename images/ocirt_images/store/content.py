"""Content by digest: what registries call blobs and manifests.

The order for new content: the bytes are on disk; the file is renamed to its place; the place's entries are on disk; the row.
Has and its sisters look at the row and at the file's size, so content whose file somebody took away counts as not there, and is
fetched anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from sqlite3 import Connection

from ocirt_images import manifest
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.changes import Changes, exhausted
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flight, Flights, Waiting
from ocirt_images.store.ingest import MODE, Ingest
from ocirt_images.store.layout import Layout
from ocirt_images.store.leases import Lease
from ocirt_images.store.links import links_of_file
from ocirt_images.store.recovery import Recovery


class Content:
    """The content of a store. Threads share it."""

    def __init__(self, layout: Layout, database: Database, changes: Changes, flights: Flights, recovery: Recovery) -> None:
        self._layout = layout
        self._database = database
        self._changes = changes
        self._flights = flights
        self._recovery = recovery

    def has(self, digest: Digest) -> bool:
        """Whether it is there, whole."""
        return self._size(digest) is not None

    def size(self, digest: Digest) -> int:
        """How many bytes it has. Raises Error("not-found")."""
        found = self._size(digest)
        if found is None:
            raise _not_found(digest)
        return found

    def path(self, digest: Digest) -> Path:
        """The file that has it, to be read only. Raises Error("not-found")."""
        self.size(digest)
        return self._layout.blob(digest)

    def open(self, digest: Digest) -> int:
        """A descriptor to read it by; it stays readable when the content is removed. Raises Error("not-found")."""
        path = self.path(digest)
        try:
            with exhausted(path):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _not_found(digest) from None

    def read(self, digest: Digest, limit: int = manifest.LIMIT) -> bytes:
        """All of it, verified again. Raises Error("not-found"), Error("corrupt"), Error("invalid") for more than `limit`
        bytes.
        """
        size = self.size(digest)
        if size > limit:
            raise Error("invalid", f"{size} bytes, and {limit} at most are read", subject=digest)
        with open(self.open(digest), "rb") as file:
            data = file.read(size + 1)
        if len(data) != size or Digest.of(data, digest.algorithm) != digest:
            raise Error("corrupt", "its file has other bytes", subject=digest, hint="ocirt fsck --repair, then pull again")
        return data

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Those that are not there."""
        return [digest for digest in dict.fromkeys(digests) if not self.has(digest)]

    def put(self, data: bytes, digest: Digest, lease: Lease) -> None:
        """Takes in something small: a manifest, a configuration. What a manifest refers to is kept while it is there.

        Raises Error("corrupt") if `data` has another digest.
        """
        found = Digest.of(data, digest.algorithm)
        if found != digest:
            raise Error("corrupt", f"its {len(data)} bytes have the digest {found}", subject=digest)
        lease.pin([digest])
        if self.has(digest):
            return
        flight = self._flights.take(self._layout.content_lock(digest))
        try:
            if self.has(digest):
                return
            path = self._layout.ingest(digest)
            self._changes.unlink(self._layout.map(digest))
            descriptor = self._changes.create(path, os.O_TRUNC)
            try:
                self._changes.write_at(descriptor, data, 0, path)
                self._changes.chmod(descriptor, MODE)
                self._changes.fsync(descriptor, path)
            finally:
                os.close(descriptor)
            self._keep(digest, path)
        finally:
            flight.end()

    def ingest(self, descriptor: Descriptor, lease: Lease, *, waiting: Waiting | None = None) -> Ingest | None:
        """The right to bring this content: of all threads and processes that ask, one gets it at a time; the others wait here.

        None: the content is there, pinned by `lease`. An owner who dies is followed by one who waits, and finds his bytes.
        waiting: called about four times a second while another one is at work, with how many bytes he has.
        Raises Error("corrupt") if it is there with another size than the descriptor's.
        """
        digest = descriptor.digest
        lease.pin([digest])
        if self._present(descriptor):
            return None
        flight = self._flights.take(self._layout.content_lock(digest), waiting)
        try:
            if self._present(descriptor):
                flight.end()
                return None
            return self._begin(descriptor, flight)
        except BaseException:
            flight.end()
            raise

    def _begin(self, descriptor: Descriptor, flight: Flight) -> Ingest:
        digest = descriptor.digest
        paths = self._layout.ingest(digest), self._layout.map(digest)

        def keep(path: Path) -> None:
            self._keep(digest, path)

        return Ingest(digest, descriptor.size, paths, flight, self._changes, keep)

    def _present(self, descriptor: Descriptor) -> bool:
        found = self._size(descriptor.digest)
        if found is not None and found != descriptor.size:
            what = f"it has {found} bytes, and its descriptor says {descriptor.size}"
            raise Error("corrupt", what, subject=descriptor.digest)
        return found is not None

    def _size(self, digest: Digest) -> int | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT size FROM content WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            there = os.stat(self._layout.blob(digest), follow_symlinks=False).st_size
        except FileNotFoundError:
            return None
        return int(row[0]) if there == row[0] else None

    def _keep(self, digest: Digest, path: Path) -> None:
        """Makes content of a file that is whole, right and on disk; the caller owns the flight."""
        size = path.stat().st_size
        targets = links_of_file(path, size)
        blob = self._layout.blob(digest)
        try:
            self._changes.rename(path, blob)
            self._changes.fsync_directory(blob.parent)
            with self._database.writing() as connection:
                insert(connection, digest, size, targets)
        except BaseException:
            self._recovery.settle_content(digest)
            raise


def insert(connection: Connection, digest: Digest, size: int, targets: Iterable[Digest]) -> None:
    """The rows of content that is on disk."""
    said = "INSERT INTO content VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size"
    connection.execute(said, (digest, size, time.time()))
    connection.execute("DELETE FROM links WHERE holder = ?", (digest,))
    connection.executemany("INSERT INTO links VALUES (?, ?)", [(digest, target) for target in sorted(targets)])
    connection.execute("DELETE FROM removals WHERE digest = ?", (digest,))


def _not_found(digest: Digest) -> Error:
    return Error("not-found", "not in the store", subject=digest, hint="pull the image that has it")
