"""Writable layers of containers: a directory each, on top of a committed layer that it holds.

The row of a new one and its directories come in one transaction: what a kill leaves is a directory without a row, which the
next one with this number takes away. The row of an old one goes first, with a row in `abandoned` in the same transaction; then
its directory.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import notes
from ocirt_images.store.changes import Changes
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flights
from ocirt_images.store.layout import Layout
from ocirt_images.store.references import Freed, References

_COLUMNS = "id, key, chain_id, created"


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

    def create(self, key: str, chain_id: Digest | None) -> WritableRecord:
        """A new one, empty, on this layer (None: on nothing). key: who it is for.

        Raises Error("exists") if there is one for `key`, Error("not-found") if there is no such layer.
        """
        with self._database.writing() as connection:
            if connection.execute("SELECT 1 FROM writables WHERE key = ?", (key,)).fetchone():
                raise Error("exists", "it has a writable layer already", subject=key)
            if chain_id and not connection.execute("SELECT 1 FROM layers WHERE chain_id = ?", (chain_id,)).fetchone():
                raise Error("not-found", "a layer that is not unpacked", subject=chain_id, hint="pull the image that has it")
            created = time.time()
            values = (key, chain_id, created)
            number = connection.execute("INSERT INTO writables (key, chain_id, created) VALUES (?, ?, ?)", values).lastrowid
            assert number is not None
            self._make(number, note(key, chain_id, created))
        return self._record((number, key, chain_id, created))

    def get(self, key: str) -> WritableRecord | None:
        """The one for `key`."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM writables WHERE key = ?", (key,)).fetchone()
        return self._record(row) if row else None

    def list(self) -> list[WritableRecord]:
        """All of them, oldest first."""
        with self._database.reading() as connection:
            return [self._record(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM writables ORDER BY id")]

    def delete(self, key: str) -> Freed:
        """Removes the one for `key` with all that was written to it, and layers that nothing else refers to.

        Raises Error("not-found").
        """
        record = self.get(key)
        if record is None:
            raise Error("not-found", "no such writable layer", subject=key)
        flight = self._flights.take(self._layout.writable_lock(record.id))
        try:
            with self._database.writing() as connection:
                if connection.execute("DELETE FROM writables WHERE id = ?", (record.id,)).rowcount:
                    connection.execute("INSERT INTO abandoned VALUES (?)", (record.id,))
            self._references.finish_writable(record.id)
        finally:
            flight.end()
        return self._references.free([], [record.chain_id] if record.chain_id else [])

    def _make(self, number: int, note: dict[str, object]) -> None:
        directory = self._layout.writable(number)
        notes.remove(directory, notes.WRITABLE, self._changes)
        self._changes.mkdir(directory)
        self._changes.mkdir(directory / "fs", mode=0o755)
        self._changes.mkdir(directory / "work")
        notes.write(directory / notes.WRITABLE, note, self._changes)
        self._changes.fsync_directory(self._layout.writables)

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
