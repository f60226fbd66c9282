"""What a killed process left, brought to one of the two states between which it was killed. Done at each opening.

Nothing of this looks at what a living owner works on: whoever makes or removes something holds its flight, and what nobody
holds has no owner. A lock file, a row in `leftovers` or `removals`, and a directory in staging/ only stay when somebody was
killed, so on a healthy store this reads two short directories and four empty tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.changes import Changes
from ocirt_images.store.database import Database
from ocirt_images.store.flights import Flights
from ocirt_images.store.layout import LOCK, Layout, locked_writable, number, parse
from ocirt_images.store.references import References


class Recovery:
    """Finishes or takes back what was half done."""

    def __init__(self, layout: Layout, database: Database, changes: Changes, flights: Flights, references: References) -> None:
        self._layout = layout
        self._database = database
        self._changes = changes
        self._flights = flights
        self._references = references

    def run(self) -> None:
        """All of it; what somebody works on is left alone."""
        for digest in self.contents():
            with self._owned(self._layout.content_lock(digest)) as owned:
                if owned:
                    self.settle_content(digest)
        for chain_id, numbers in self.leftovers().items():
            with self._owned(self._layout.layer_lock(chain_id)) as owned:
                for identifier in numbers if owned else ():
                    self._references.finish_layer(identifier)
        for identifier in self.lone_staging():
            self._references.finish_layer(identifier)
        for identifier in self.writables():
            with self._owned(self._layout.writable_lock(identifier)) as owned:
                if owned:
                    self._references.finish_writable(identifier)

    def settle_content(self, digest: Digest) -> None:
        """The files of one digest agree with its row; the caller owns its flight.

        A blob without a row was renamed to its place by somebody who died before he wrote the row: it goes back to where it came
        from, where the next owner finds it whole.
        """
        ingest, ranges, blob = self._layout.ingest(digest), self._layout.map(digest), self._layout.blob(digest)
        with self._database.reading() as connection:
            row = connection.execute("SELECT 1 FROM content WHERE digest = ?", (digest,)).fetchone()
            removed = connection.execute("SELECT 1 FROM removals WHERE digest = ?", (digest,)).fetchone()
        if removed:
            self._references.finish_contents([] if row else [digest])
        elif not row and blob.exists():
            self._changes.rename(blob, ingest)
        if row or not ranges.exists() or not ingest.exists():
            self._unlink(ingest, ranges)

    def contents(self) -> list[Digest]:
        """Digests of which something lies in the wrong place."""
        names = os.listdir(self._layout.ingests)
        kept = {f"{name}.map" for name in names} & set(names)
        lone = [name for name in names if (name not in kept and f"{name}.map" not in kept) or name.endswith(LOCK)]
        with self._database.reading() as connection:
            removed = [digest for (digest,) in connection.execute("SELECT digest FROM removals")]
        return _digests([parse(name) for name in lone] + [_digest(text) for text in removed])

    def leftovers(self) -> dict[Digest, list[int]]:
        """By ChainID: the directories that are layers no more, or not yet; and locks that were left."""
        found: dict[Digest, list[int]] = {}
        with self._database.reading() as connection:
            rows = connection.execute("SELECT id, chain_id FROM leftovers").fetchall()
        for identifier, chain_id in rows:
            if (digest := _digest(chain_id)) is not None:
                found.setdefault(digest, []).append(identifier)
        for name in os.listdir(self._layout.staging):
            if name.endswith(LOCK) and (digest := parse(name)) is not None:
                found.setdefault(digest, [])
        return found

    def lone_staging(self) -> list[int]:
        """Numbers of directories in staging/ that have no row: it went with a power cut."""
        present = [found for name in os.listdir(self._layout.staging) if (found := number(name)) is not None]
        with self._database.reading() as connection:
            known = {identifier for (identifier,) in connection.execute("SELECT id FROM leftovers")}
        return [found for found in present if found not in known and self._layout.staged(found).exists()]

    def writables(self) -> list[int]:
        """Numbers of writable layers that are being removed; and of locks that were left."""
        locked = [found for name in os.listdir(self._layout.staging) if (found := locked_writable(name)) is not None]
        with self._database.reading() as connection:
            return sorted({*locked, *(identifier for (identifier,) in connection.execute("SELECT id FROM abandoned"))})

    def _unlink(self, *paths: Path) -> None:
        for path in paths:
            if path.exists():
                self._changes.unlink(path)

    @contextmanager
    def _owned(self, lock: Path) -> Iterator[bool]:
        flight = self._flights.try_take(lock)
        try:
            yield flight is not None
        finally:
            if flight is not None:
                flight.end()


def _digest(text: object) -> Digest | None:
    try:
        return Digest(str(text))
    except Error:
        return None


def _digests(found: list[Digest | None]) -> list[Digest]:
    return list(dict.fromkeys(digest for digest in found if digest is not None))
