"""Unpacked layers by ChainID.

The order for a new layer: a number of its own, with a row in `leftovers`; its tree in staging/; the tree on disk; its note on
disk; the directory renamed to its place; the place's entries on disk; the row in `layers` and the end of the one in
`leftovers`, in one transaction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from types import TracebackType
from typing import Any

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import notes
from ocirt_images.store.changes import Changes
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flight, Flights, Waiting
from ocirt_images.store.layout import Layout
from ocirt_images.store.leases import Lease
from ocirt_images.store.references import References

_COLUMNS = "id, chain_id, parent, diff_id, size, inodes, created"
_NOTE = ("chainId", "parent", "diffId", "size", "inodes", "created")
# The next number that no layer has or had. A database that was rebuilt knows the numbers of its layers only.
_NUMBER = """
    INSERT INTO leftovers (id, chain_id) SELECT 1 + max(
        (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'leftovers'),
        (SELECT coalesce(max(id), 0) FROM layers)
    ), ?
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRecord:
    """A committed layer.

    path: its tree. size: bytes on disk; inodes: of its tree, this layer alone. created: seconds since the epoch.
    """

    id: int
    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    path: Path
    size: int
    inodes: int
    created: float


class Layers:
    """The layers of a store. Threads share it."""

    def __init__(self, layout: Layout, database: Database, changes: Changes, flights: Flights, references: References) -> None:
        self._layout = layout
        self._database = database
        self._changes = changes
        self._flights = flights
        self._references = references

    def get(self, chain_id: Digest) -> LayerRecord | None:
        """The layer with this ChainID; None if there is none, or its tree was taken away."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM layers WHERE chain_id = ?", (chain_id,)).fetchone()
        if row is None:
            return None
        record = self._record(row)
        return record if record.path.is_dir() else None

    def chain(self, chain_id: Digest) -> list[LayerRecord]:
        """A layer and all below it, from the lowest up. Raises Error("not-found") if one is missing."""
        found: list[LayerRecord] = []
        wanted: Digest | None = chain_id
        while wanted is not None:
            record = self.get(wanted)
            if record is None:
                raise Error("not-found", "a layer that is not unpacked", subject=wanted, hint="pull the image that has it")
            found.insert(0, record)
            wanted = record.parent
        return found

    def list(self) -> list[LayerRecord]:
        """All layers, oldest first."""
        with self._database.reading() as connection:
            return [self._record(row) for row in connection.execute(f"SELECT {_COLUMNS} FROM layers ORDER BY id")]

    def stage(
        self, chain_id: Digest, *, parent: Digest | None, diff_id: Digest, lease: Lease, waiting: Waiting | None = None
    ) -> Staged | None:
        """The right to make a layer: of all threads and processes that ask, one gets it at a time; the others wait here.

        None: the layer is there, pinned by `lease`. What an owner left who died is removed: his successor begins anew.
        waiting: called about four times a second while another one is at work, with what he reported.
        """
        lease.pin(layers=[chain_id, parent] if parent else [chain_id])
        if self.get(chain_id) is not None:
            return None
        flight = self._flights.take(self._layout.layer_lock(chain_id), waiting)
        try:
            if self.get(chain_id) is None:
                return self._stage(chain_id, parent, diff_id, flight)
            flight.end()
            return None
        except BaseException:
            flight.end()
            raise

    def _stage(self, chain_id: Digest, parent: Digest | None, diff_id: Digest, flight: Flight) -> Staged:
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id FROM leftovers WHERE chain_id = ?", (chain_id,)).fetchall()
        for (left,) in rows:
            self._references.finish_layer(left)
        with self._database.writing(durable=False) as connection:
            number = connection.execute(_NUMBER, (chain_id,)).lastrowid
        assert number is not None
        # A power cut may have taken the row that had this number, and left its directories.
        for directory in (self._layout.staged(number), self._layout.layer(number)):
            notes.remove(directory, notes.LAYER, self._changes)
        self._changes.mkdir(self._layout.staged(number))
        self._changes.mkdir(self._layout.staged(number) / "fs", mode=0o755)
        return Staged(self, number, chain_id, parent, diff_id, self._layout.staged(number) / "fs", flight)

    def _commit(self, staged: Staged, size: int, inodes: int, *, synced: bool) -> LayerRecord:
        parent = staged.parent
        if parent is not None and self.get(parent) is None:
            what = "its parent is not committed"
            raise Error(
                "internal", what, subject=staged.chain_id, cause=str(parent), hint="layers are committed from the lowest up"
            )
        directory, place = self._layout.staged(staged.number), self._layout.layer(staged.number)
        if not synced:
            self.sync()
        record = LayerRecord(
            id=staged.number,
            chain_id=staged.chain_id,
            parent=parent,
            diff_id=staged.diff_id,
            path=place / "fs",
            size=size,
            inodes=inodes,
            created=time.time(),
        )
        notes.write(directory / notes.LAYER, note(record), self._changes)
        self._changes.rename(directory, place)
        self._changes.fsync_directory(self._layout.layers)
        with self._database.writing() as connection:
            insert(connection, record)
        return record

    def sync(self) -> None:
        """All that was written to the store's file system is on disk: once for many layers, then `commit(synced=True)`."""
        self._changes.sync_tree(self._layout.staging)

    def _record(self, row: tuple[Any, ...]) -> LayerRecord:
        return read_note(dict(zip(_NOTE, row[1:], strict=True)), row[0], self._layout)


class Staged:
    """A layer that is being made, and belongs to who holds this. A context manager: left without `commit` it is discarded.

    path: the tree to fill; it is there, empty, with mode 0755. parent must be committed before this is.
    """

    def __init__(
        self, layers: Layers, number: int, chain_id: Digest, parent: Digest | None, diff_id: Digest, path: Path, flight: Flight
    ) -> None:
        self.number = number
        self.chain_id = chain_id
        self.parent = parent
        self.diff_id = diff_id
        self.path = path
        self._layers = layers
        self._flight = flight
        self._ended = False

    def report(self, done: int) -> None:
        """Tells those who wait for this layer how far it is."""
        self._flight.report(done)

    def commit(self, *, size: int, inodes: int, synced: bool = False) -> LayerRecord:
        """Makes a layer of it, on disk for good.

        size: bytes on disk; inodes: how many the tree has. synced: `Layers.sync` was called after the last change.
        Raises Error("internal") if its parent is not committed.
        """
        try:
            record = self._layers._commit(self, size, inodes, synced=synced)
        except BaseException:
            self.discard()
            raise
        self._ended = True
        self._flight.end()
        return record

    def discard(self) -> None:
        """Removes what was made of it. Does nothing the second time."""
        if not self._ended:
            self._ended = True
            try:
                self._layers._references.finish_layer(self.number)
            finally:
                self._flight.end()

    def __enter__(self) -> Staged:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.discard()


def insert(connection: Connection, record: LayerRecord) -> None:
    """The row of a layer that is on disk; or it takes the place of one whose tree was taken away."""
    values = (record.id, record.chain_id, record.parent, record.diff_id, record.size, record.inodes, record.created)
    changed = "id = excluded.id, parent = excluded.parent, diff_id = excluded.diff_id, size = excluded.size"
    changed += ", inodes = excluded.inodes, created = excluded.created"
    said = f"INSERT INTO layers ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (chain_id) DO UPDATE SET {changed}"
    connection.execute(said, values)
    connection.execute("DELETE FROM leftovers WHERE id = ?", (record.id,))


def note(record: LayerRecord) -> dict[str, object]:
    """What stands in a layer's note."""
    values = (record.chain_id, record.parent, record.diff_id, record.size, record.inodes, record.created)
    return dict(zip(_NOTE, values, strict=True))


def read_note(value: dict[str, Any], number: int, layout: Layout) -> LayerRecord:
    """The layer with this number from its note, or from the columns of its row. Raises Error("invalid") that names the field."""
    subject = f"layer {number}"
    for name in ("size", "inodes"):
        if type(value.get(name)) is not int or value[name] < 0:
            raise Error("invalid", "not a number", subject=f"{subject}/{name}", cause=repr(value.get(name))[:80])
    for name in ("chainId", "diffId", "parent"):
        if not isinstance(value.get(name), str) and not (name == "parent" and value.get(name) is None):
            raise Error("invalid", "not a digest", subject=f"{subject}/{name}", cause=repr(value.get(name))[:80])
    created = value.get("created")
    return LayerRecord(
        id=number,
        chain_id=Digest(value["chainId"], f"{subject}/chainId"),
        parent=Digest(value["parent"], f"{subject}/parent") if value["parent"] else None,
        diff_id=Digest(value["diffId"], f"{subject}/diffId"),
        path=layout.layer(number) / "fs",
        size=value["size"],
        inodes=value["inodes"],
        created=float(created) if isinstance(created, (int, float)) else 0.0,
    )
