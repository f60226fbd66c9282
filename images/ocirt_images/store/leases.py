"""Leases: they pin content and layers that no image refers to yet.

A lease ends with its block, when its time is up, or with its process. Its process is known to live by a lock on byte N of the
store's lock file, which the kernel drops with the descriptor (an "open file description lock", fcntl(2)): a process ID would say
nothing across PID namespaces. flock and these locks do not see each other, so the same file serves for both.

What a lease pinned and nothing else refers to goes when its block ends well. After an error, a kill or a time-out it stays, so
that the next attempt finds it; `prune` removes it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import time
from collections.abc import Iterable
from sqlite3 import Connection
from types import TracebackType

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.database import Database
from ocirt_images.store.layout import Layout
from ocirt_images.store.references import Freed, References

DAY = 86400.0
_FLOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit kernels: type, whence, start, length, pid


class Leases:
    """The leases of a store."""

    def __init__(self, layout: Layout, database: Database, references: References) -> None:
        self._layout = layout
        self._database = database
        self._references = references
        self._descriptor = os.open(layout.lock, os.O_RDWR | os.O_CLOEXEC)

    def lease(self, name: str | None = None, *, seconds: float = DAY) -> Lease:
        """A new lease, a context manager.

        name: what it is for, for people (`Leases.list`); two may have the same. seconds: until it ends, if it is not extended.
        """
        with self._database.writing(durable=False) as connection:
            values = (name or "", time.time() + seconds)
            number = connection.execute("INSERT INTO leases (name, expires) VALUES (?, ?)", values).lastrowid
            assert number is not None
            # Locked before others see the row: they take a row without a lock for one that a dead process left.
            _lock(self._descriptor, fcntl.F_WRLCK, number)
        return Lease(self, number, name or "")

    def expire(self) -> int:
        """Removes the rows of leases whose time is up or whose process is gone. How many there were."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, expires FROM leases").fetchall()
        dead = self._dead(rows)
        if dead:
            with self._database.writing(durable=False) as connection:
                connection.executemany("DELETE FROM leases WHERE id = ?", [(number,) for number in dead])
        return len(dead)

    def close(self) -> None:
        """Drops the locks of all leases of this process."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _dead(self, rows: list[tuple[int, float]]) -> list[int]:
        """Those whose time is up, or whose process is gone."""
        if not rows:
            return []
        now = time.time()
        # A descriptor of its own: a lock is not seen by the one that holds it.
        probe = os.open(self._layout.lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            return [number for number, expires in rows if expires <= now or not _is_locked(probe, number)]
        finally:
            os.close(probe)

    def _pin(self, number: int, contents: set[Digest], layers: set[Digest]) -> None:
        try:
            with self._database.writing(durable=False) as connection:
                _insert(connection, "lease_content (lease, digest)", number, contents)
                _insert(connection, "lease_layers (lease, chain_id)", number, layers)
        except sqlite3.IntegrityError:
            raise Error("cancelled", "the lease has ended: its time is up", hint="ask for more seconds, or extend it") from None

    def _extend(self, number: int, seconds: float) -> None:
        with self._database.writing(durable=False) as connection:
            done = connection.execute("UPDATE leases SET expires = ? WHERE id = ?", (time.time() + seconds, number)).rowcount
        if not done:
            raise Error("cancelled", "the lease has ended: its time is up", hint="extend it earlier")

    def _end(self, number: int, contents: set[Digest], layers: set[Digest], *, free: bool) -> Freed:
        with self._database.writing(durable=False) as connection:
            connection.execute("DELETE FROM leases WHERE id = ?", (number,))
        _lock(self._descriptor, fcntl.F_UNLCK, number)
        return self._references.free(contents, layers) if free else Freed()

    def list(self) -> list[tuple[int, str, float]]:
        """Number, name and end (seconds since the epoch) of each lease that holds."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, name, expires FROM leases ORDER BY id").fetchall()
        dead = set(self._dead([(number, expires) for number, _, expires in rows]))
        return [row for row in rows if row[0] not in dead]


class Lease:
    """Pins what is touched under it. Threads may share it. Left by an error it keeps on disk what it pinned, for another
    attempt.
    """

    def __init__(self, leases: Leases, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self._leases = leases
        self._lock = threading.Lock()
        self._contents: set[Digest] = set()
        self._layers: set[Digest] = set()
        self._ended = False

    def pin(self, contents: Iterable[Digest] = (), layers: Iterable[Digest] = ()) -> None:
        """Pins content by digest and layers by ChainID, also what is yet to come; all in one transaction, so ask for many at
        once.

        Raises Error("cancelled") if the lease's time is up.
        """
        with self._lock:
            if self._ended:
                raise Error("internal", "the lease has ended", subject=self.name)
            new_contents, new_layers = set(contents) - self._contents, set(layers) - self._layers
            if new_contents or new_layers:
                self._leases._pin(self.number, new_contents, new_layers)
                self._contents |= new_contents
                self._layers |= new_layers

    def extend(self, seconds: float = DAY) -> None:
        """It ends so many seconds from now. Raises Error("cancelled") if its time is up."""
        self._leases._extend(self.number, seconds)

    def end(self, *, free: bool = True) -> Freed:
        """Ends it, and removes what it pinned and nothing else refers to (free=False: leaves that to `prune`)."""
        with self._lock:
            if self._ended:
                return Freed()
            self._ended = True
        return self._leases._end(self.number, self._contents, self._layers, free=free)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.end(free=kind is None)


def _insert(connection: Connection, where: str, number: int, digests: set[Digest]) -> None:
    connection.executemany(f"INSERT OR IGNORE INTO {where} VALUES (?, ?)", [(number, str(digest)) for digest in digests])


def _lock(descriptor: int, kind: int, number: int) -> None:
    """Locks or unlocks a lease's byte."""
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, number, 1, 0))


def _is_locked(descriptor: int, number: int) -> bool:
    """Whether another descriptor, of whichever process, holds a lease's byte."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
