"""What a check finds, and how it goes about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from ocirt_images.digest import Digest
from ocirt_images.store.flights import locked

if TYPE_CHECKING:
    from ocirt_images.store.store import Store

# Every kind of damage, and what repair does about it.
KINDS = {
    "database-damaged": "a new database is made of the rows that can be read and of what is in the store",
    "database-missing": "a new database is made of what is in the store",
    "directory-missing": "the directory is made",
    "mode-wrong": "the mode is set",
    "row-invalid": "the row is removed",
    "row-dangling": "the row is removed",
    "size-wrong": "the row gets the size of the file, whose bytes are right",
    "blob-missing": "the row is removed: the next pull fetches the content",
    "blob-truncated": "the file and the row are removed: the next pull fetches the content",
    "blob-damaged": "the file and the row are removed: the next pull fetches the content",
    "blob-unindexed": "the row is made: the file's bytes are right",
    "blob-extra": "the file is removed: its name is not the digest of its bytes",
    "links-wrong": "the rows are made anew from the manifest",
    "image-incomplete": "the name is removed, as its manifest or configuration is not there: pull it again",
    "image-references-wrong": "the rows are made anew from the image",
    "layer-missing": "the row is removed: the next pull unpacks the layer",
    "layer-orphan": "the row is removed, as the layer below is not there: the next pull unpacks it",
    "layer-unindexed": "the row is made from the note beside the tree",
    "layer-extra": "the directory is removed",
    "layer-note-wrong": "the note is written anew",
    "writable-missing": "the row is removed: what was written to it is lost",
    "writable-unindexed": "the row is made from the note beside the tree",
    "writable-extra": "the directory is removed: nothing was ever written to it, or it was being removed",
    "writable-note-wrong": "the note is written anew",
    "ingest-stale": "the file is removed, or moved to where the next pull goes on with it",
    "staging-stale": "the directory is removed: its maker is dead",
    "removal-unfinished": "the removal is finished",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A damage. kind: one of KINDS; subject: a path, digest or name; text: what is wrong with it; repaired: whether it still
    is.
    """

    kind: str
    subject: str
    text: str
    repaired: bool

    def __str__(self) -> str:
        return f"{self.subject}: {self.text} ({self.kind}{', repaired' if self.repaired else ''})"


class Check:
    """One run over a store.

    repair: whether damages are repaired; then nobody else uses the store. Else others do, and what looks wrong because somebody
    works on it at this moment is none: see `confirmed`.
    gone: content that is not there or not right. unindexed: content without a row.
    """

    def __init__(self, store: Store, *, repair: bool, progress: Callable[[int, int], None]) -> None:
        self.store = store
        self.repair = repair
        self.progress = progress
        self.findings: list[Finding] = []
        self.gone: set[Digest] = set()
        self.unindexed: set[Digest] = set()

    def found(self, kind: str, subject: object, text: str, repair: Callable[[], None] | None = None) -> None:
        """Notes a damage, and repairs it if that is asked for."""
        if kind not in KINDS:
            raise AssertionError(kind)
        if self.repair and repair is not None:
            repair()
        self.findings.append(Finding(kind, str(subject), text, self.repair))

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self.store.database.reading() as connection:
            return connection.execute(query, values).fetchall()

    def tables(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        """All rows of several queries, as of one moment."""
        with self.store.database.reading() as connection:
            connection.execute("BEGIN")
            try:
                return [connection.execute(query).fetchall() for query in queries]
            finally:
                connection.execute("COMMIT")

    def execute(self, statement: str, *values: object) -> None:
        """One statement as a transaction, whatever other rows refer to what it changes."""
        with self.repairing() as connection:
            connection.execute(statement, values)

    @contextmanager
    def repairing(self) -> Iterator[Connection]:
        """A transaction without foreign keys: in a damaged store they are broken already. A later check sees to them."""
        with self.store.database.writing(foreign_keys=False) as connection:
            yield connection

    @contextmanager
    def owned(self, lock: Path) -> Iterator[bool]:
        """Keeps others away from what a lock file stands for; False: somebody is at work on it. A lock file that is there
        stays.
        """
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            flight = self.store.flights.try_take(lock)
            try:
                yield flight is not None
            finally:
                if flight is not None:
                    flight.end()
            return
        try:
            yield locked(descriptor, lock)
        finally:
            os.close(descriptor)

    def confirmed(self, lock: Path, wrong: Callable[[], object]) -> bool:
        """Whether something is wrong, looked at while nobody works on what this lock file stands for."""
        if self.repair:
            return bool(wrong())
        with self.owned(lock) as owned:
            return owned and bool(wrong())
