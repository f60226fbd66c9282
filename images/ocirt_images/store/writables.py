"""Writable layers of containers: a directory each, on top of a committed layer that it holds.

The order for a new one: a number of its own, with a row in `abandoned`; its directory; the row in `writables` and the end of
the one in `abandoned`, in one transaction. For an old one: the other way round.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import limits, notes
from ocirt_images.store.changes import Changes
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flight, Flights
from ocirt_images.store.layout import Layout
from ocirt_images.store.references import Freed, References

_COLUMNS = "id, key, chain_id, created"
# The next number that no writable layer has or had. A database that was rebuilt knows the numbers of those that it has only.
_NUMBER = """
    INSERT INTO abandoned (id) SELECT 1 + max(
        (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'abandoned'),
        (SELECT coalesce(max(id), 0) FROM writables)
    )
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class WritableRecord:
    """A container's writable layer. path: overlayfs' upper directory; work: its work directory. created: seconds since the
    epoch.
    """

    id: int
    key: str
    chain_id: Digest | None
    path: Path
    work: Path
    created: float


class Writables:
    """The writable layers of a store. Threads share it."""

    def __init__(self, layout: Layout, database: Database, changes: Changes, flights: Flights, references: References) -> None:
        self._layout = layout
        self._database = database
        self._changes = changes
        self._flights = flights
        self._references = references

    def create(self, key: str, chain_id: Digest | None, *, durable: bool = True, size: int = 0) -> WritableRecord:
        """A new one, empty, on this layer (None: on nothing). key: who it is for.

        durable: it is on disk for good when this returns; a container that does not outlive the boot can do without.
        size: what it may take, in bytes (see limits.py); 0: what the file system has.
        Raises Error("exists") if there is one for `key`, Error("not-found") if there is no such layer, Error("unsupported") for a
        size that the file system cannot limit.
        """
        self._check(key, chain_id)
        number, flight = self._begin()
        record = self._record((number, key, chain_id, time.time()))
        try:
            self._make(record, size, self._changes if durable else Changes(sync=False))
            with self._database.writing(durable=durable) as connection:
                values = (number, key, chain_id, record.created)
                connection.execute(f"INSERT INTO writables ({_COLUMNS}) VALUES (?, ?, ?, ?)", values)
                connection.execute("DELETE FROM abandoned WHERE id = ?", (number,))
                if chain_id and not connection.execute("SELECT 1 FROM layers WHERE chain_id = ?", (chain_id,)).fetchone():
                    raise _no_layer(chain_id)
        except BaseException as err:
            self._references.finish_writable(number)
            if isinstance(err, sqlite3.IntegrityError):
                raise _exists(key) from None
            raise
        finally:
            flight.end()
        return record

    def get(self, key: str) -> WritableRecord | None:
        """The one for `key`."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM writables WHERE key = ?", (key,)).fetchone()
        return self._record(row) if row else None

    def list(self) -> list[WritableRecord]:
        """All of them, oldest first."""
        with self._database.reading() as connection:
            return [self._record(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM writables ORDER BY id")]

    def delete(self, key: str, *, durable: bool = True) -> Freed:
        """Removes the one for `key` with all that was written to it, and layers that nothing else refers to.

        durable: it is gone for good when this returns. Without it a power cut may bring it back, whole or half removed: for who
        looks after a boot which of his are left, and removes them again.
        Raises Error("not-found").
        """
        record = self.get(key)
        if record is None:
            raise Error("not-found", "no such writable layer", subject=key)
        flight = self._flights.take(self._layout.writable_lock(record.id))
        try:
            with self._database.writing(durable=durable) as connection:
                if connection.execute("DELETE FROM writables WHERE id = ?", (record.id,)).rowcount:
                    connection.execute("INSERT INTO abandoned VALUES (?)", (record.id,))
            self._references.finish_writable(record.id, durable=durable)
        finally:
            flight.end()
        return self._references.free([], [record.chain_id] if record.chain_id else [])

    def _check(self, key: str, chain_id: Digest | None) -> None:
        """The answer for most mistakes, before anything is made."""
        if self.get(key) is not None:
            raise _exists(key)
        with self._database.reading() as connection:
            if chain_id and not connection.execute("SELECT 1 FROM layers WHERE chain_id = ?", (chain_id,)).fetchone():
                raise _no_layer(chain_id)

    def _begin(self) -> tuple[int, Flight]:
        """A number of its own, and the flight that goes with it."""
        with ExitStack() as undo:
            with self._database.writing(durable=False) as connection:
                number = connection.execute(_NUMBER).lastrowid
                assert number is not None
                # Taken before others see the row: they take a row without an owner for one that a dead process left.
                flight = self._flights.take(self._layout.writable_lock(number))
                undo.callback(flight.end)
            undo.pop_all()
            return number, flight

    def _make(self, record: WritableRecord, size: int, changes: Changes) -> None:
        directory = record.path.parent
        # A power cut may have taken the row that had this number, and left its directory.
        limits.remove_directory(directory, changes)
        limits.make_directory(directory, size, changes)
        try:
            changes.mkdir(record.path, mode=0o755)
            changes.mkdir(record.work)
            notes.write(directory / notes.WRITABLE, note(record.key, record.chain_id, record.created), changes)
        except Error as err:
            # XFS says of a project's limit what it says of a full disk.
            if size and err.code == "exhausted" and limits.has_room(self._layout.writables):
                hint = f"the layer's own directories do not fit into {size} bytes"
                raise Error("exhausted", "the quota is used up", subject=err.subject, hint=hint) from err
            raise
        changes.fsync_directory(self._layout.writables)

    def _record(self, row: tuple[int, str, str | None, float]) -> WritableRecord:
        number, key, chain_id, created = row
        directory = self._layout.writable(number)
        return WritableRecord(
            id=number,
            key=key,
            chain_id=Digest(chain_id) if chain_id else None,
            path=directory / "fs",
            work=directory / "work",
            created=created,
        )


def note(key: str, chain_id: str | None, created: float) -> dict[str, object]:
    """What stands in a writable layer's note."""
    return {"key": key, "chainId": chain_id, "created": created}


def _exists(key: str) -> Error:
    return Error("exists", "it has a writable layer already", subject=key)


def _no_layer(chain_id: Digest) -> Error:
    return Error("not-found", "a layer that is not unpacked", subject=chain_id, hint="pull the image that has it")
