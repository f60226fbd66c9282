"""What refers to what, and the removal of what nothing refers to.

Nothing stops while this works: each transaction looks at some names only and asks an index whether anything refers to them.

The order for content: its row goes, with a row in `removals` in the same transaction; its file; the row in `removals`. For a
layer the same with `leftovers`. Whoever removes holds the flight of that name, so nobody makes it anew in between; who finds
such a row without an owner finishes (recovery.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from sqlite3 import Connection

from ocirt_images.digest import Digest
from ocirt_images.store import limits, notes
from ocirt_images.store.changes import Changes
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flight, Flights
from ocirt_images.store.layout import Layout

BATCH = 32  # blobs in one transaction

# Conditions on a row of `content`, and on one of `layers`.
CONTENT_UNUSED = """
    NOT EXISTS (SELECT 1 FROM image_content WHERE digest = content.digest)
    AND NOT EXISTS (SELECT 1 FROM links WHERE target = content.digest)
    AND NOT EXISTS (SELECT 1 FROM lease_content WHERE digest = content.digest)
    """
LAYER_UNUSED = """
    NOT EXISTS (SELECT 1 FROM image_layers WHERE chain_id = layers.chain_id)
    AND NOT EXISTS (SELECT 1 FROM layers AS child WHERE child.parent = layers.chain_id)
    AND NOT EXISTS (SELECT 1 FROM writables WHERE chain_id = layers.chain_id)
    AND NOT EXISTS (SELECT 1 FROM lease_layers WHERE chain_id = layers.chain_id)
    """
_CONTENT = f"SELECT size FROM content WHERE digest = ? AND {CONTENT_UNUSED}"
_LAYER = f"SELECT id, parent, size FROM layers WHERE chain_id = ? AND {LAYER_UNUSED}"


@dataclass(slots=True)
class Freed:
    """What went: numbers of blobs and layers, and their bytes."""

    contents: int = 0
    content_bytes: int = 0
    layers: int = 0
    layer_bytes: int = 0

    def __iadd__(self, other: Freed) -> Freed:
        self.contents += other.contents
        self.content_bytes += other.content_bytes
        self.layers += other.layers
        self.layer_bytes += other.layer_bytes
        return self


class References:
    """Removal by reference counts."""

    def __init__(self, layout: Layout, database: Database, changes: Changes, flights: Flights) -> None:
        self._layout = layout
        self._database = database
        self._changes = changes
        self._flights = flights

    def free(self, contents: Iterable[Digest], layers: Iterable[Digest]) -> Freed:
        """Removes those of these that nothing refers to, and then what only they referred to.

        What somebody is making or removing at this moment is left to them: they have pinned it.
        """
        freed = Freed()
        waiting = list(dict.fromkeys(layers))
        while waiting:
            waiting += self._free_layer(waiting.pop(), freed)
        queue = list(dict.fromkeys(contents))
        while queue:
            batch, queue = queue[:BATCH], queue[BATCH:]
            queue += self._free_contents(batch, freed)
        return freed

    def _free_contents(self, batch: list[Digest], freed: Freed) -> list[Digest]:
        """What they referred to, if they went."""
        with self._database.reading() as connection:
            # Most candidates are still in use: seen without a lock and without a transaction.
            batch = [digest for digest in batch if connection.execute(_CONTENT, (digest,)).fetchone()]
        with ExitStack() as owned:
            gone: list[Digest] = []
            targets: list[Digest] = []
            batch = [digest for digest in batch if _own(owned, self._flights.try_take(self._layout.content_lock(digest)))]
            if not batch:
                return []
            with self._database.writing() as connection:
                for digest in batch:
                    if row := connection.execute(_CONTENT, (digest,)).fetchone():
                        targets += drop_content(connection, digest)
                        gone.append(digest)
                        freed.contents += 1
                        freed.content_bytes += row[0]
            self.finish_contents(gone)
        return targets

    def finish_contents(self, digests: list[Digest]) -> None:
        """The files of content whose row is gone; the caller owns their flights."""
        for digest in digests:
            self._changes.unlink(self._layout.blob(digest))
        for directory in {self._layout.blob(digest).parent for digest in digests}:
            self._changes.fsync_directory(directory)
        if digests:
            with self._database.writing() as connection:
                connection.executemany("DELETE FROM removals WHERE digest = ?", [(digest,) for digest in digests])

    def _free_layer(self, chain_id: Digest, freed: Freed) -> list[Digest]:
        """Its parent, if it went."""
        with self._database.reading() as connection:
            if not connection.execute(_LAYER, (chain_id,)).fetchone():
                return []
        flight = self._flights.try_take(self._layout.layer_lock(chain_id))
        if flight is None:
            return []
        try:
            with self._database.writing() as connection:
                row = connection.execute(_LAYER, (chain_id,)).fetchone()
                if not row:
                    return []
                number, parent, size = row
                drop_layer(connection, number, chain_id)
            freed.layers += 1
            freed.layer_bytes += size
            self.finish_layer(number)
            return [Digest(parent)] if parent else []
        finally:
            flight.end()

    def finish_layer(self, number: int) -> None:
        """The directories of a number that has no row in `layers`; the caller owns its flight."""
        with self._database.reading() as connection:
            committed = connection.execute("SELECT 1 FROM layers WHERE id = ?", (number,)).fetchone()
        if not committed:
            for directory in (self._layout.staged(number), self._layout.layer(number)):
                notes.remove(directory, notes.LAYER, self._changes)
        with self._database.writing() as connection:
            connection.execute("DELETE FROM leftovers WHERE id = ?", (number,))

    def finish_writable(self, number: int, *, durable: bool = True) -> None:
        """The directory of a number in `abandoned`, if it is there; the caller owns its flight. durable: on disk at the end."""
        with self._database.reading() as connection:
            abandoned = connection.execute("SELECT 1 FROM abandoned WHERE id = ?", (number,)).fetchone()
            kept = connection.execute("SELECT 1 FROM writables WHERE id = ?", (number,)).fetchone()
        if abandoned and not kept:
            changes = self._changes if durable else Changes(sync=False)
            limits.remove_directory(self._layout.writable(number), changes)
        if abandoned:
            with self._database.writing(durable=durable) as connection:
                connection.execute("DELETE FROM abandoned WHERE id = ?", (number,))


def drop_content(connection: Connection, digest: Digest) -> list[Digest]:
    """The row of a blob goes, its file is to go. What the blob referred to."""
    targets = [Digest(target) for (target,) in connection.execute("SELECT target FROM links WHERE holder = ?", (digest,))]
    connection.execute("DELETE FROM content WHERE digest = ?", (digest,))
    connection.execute("INSERT OR IGNORE INTO removals VALUES (?)", (digest,))
    return targets


def drop_layer(connection: Connection, number: int, chain_id: Digest) -> None:
    """The row of a layer goes, its directory is to go."""
    connection.execute("DELETE FROM layers WHERE id = ?", (number,))
    connection.execute("INSERT OR REPLACE INTO leftovers (id, chain_id) VALUES (?, ?)", (number, chain_id))


def _own(owned: ExitStack, flight: Flight | None) -> bool:
    if flight is not None:
        owned.callback(flight.end)
    return flight is not None
