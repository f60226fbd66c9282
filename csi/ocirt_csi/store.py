"""What the driver must not forget, in SQLite (WAL, synchronous=FULL): a row for each object, all of them in memory too.

A row is its own journal: its phase says `making` before anything is made, `removing` before anything is taken away, and it is
gone when nothing is left. What `put` and `delete` are given at once is written at once, or not at all.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar, cast

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.model import Record, Snapshot, Volume

VERSION = 1
AUDIT = "ocirt_csi.commit"  # the audit event before each write
_SCHEMA = (
    "CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
T = TypeVar("T", bound=Record)


class Store:
    """The database at a path, which is made if it is missing. Any thread may use it. Raises Error("corrupt" …), sqlite3.Error."""

    def __init__(self, path: str) -> None:
        self._lock = threading.RLock()
        self._objects: dict[str, dict[str, Record]] = {kind: {} for kind in model.KINDS}
        self._names: dict[tuple[str, str], str] = {}
        self._sequence = 0
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(path)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as err:
            hint = "move it away: `ocirt-csi fsck` makes a new one of what the pools hold"
            raise Error("corrupt", "cannot be read as the driver's state", subject=path, cause=str(err), hint=hint) from None

    def _prepare(self, path: str) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._write([(statement, ()) for statement in (*_SCHEMA, f"PRAGMA user_version = {VERSION}")])
        elif version != VERSION:
            raise Error(
                "unsupported", f"was written by a later ocirt-csi (version {version})", subject=path, hint="start that one"
            )
        for kind, body in self._connection.execute("SELECT kind, body FROM objects"):
            try:
                self._keep(model.read(kind, body))
            except (KeyError, TypeError, ValueError) as err:
                raise Error("corrupt", "has a row that means nothing", subject=path, cause=str(err)) from None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def meta(self, name: str) -> str:
        """A word that is kept; "" if there is none."""
        with self._lock:
            found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word."""
        with self._lock:
            self._write([("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))])

    def put(self, *objects: T) -> T:
        """Write what these are now; they are on disk when it returns. Returns the first, with the place in lists that it got."""
        with self._lock:
            kept = [
                one if one.sequence else replace(one, sequence=self._sequence + place + 1) for place, one in enumerate(objects)
            ]
            self._write([("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (one.kind, one.id, one.body())) for one in kept])
            for one in kept:
                self._keep(one)
        return kept[0]

    def delete(self, *objects: Record) -> None:
        """Forget them."""
        with self._lock:
            self._write([("DELETE FROM objects WHERE kind = ? AND id = ?", (one.kind, one.id)) for one in objects])
            for one in objects:
                self._objects[one.kind].pop(one.id, None)
                self._names.pop((one.kind, one.name), None)

    def get(self, kind: type[T], identifier: str) -> T | None:
        """The object with an id."""
        return cast("T | None", self._objects[kind.kind].get(identifier))

    def named(self, kind: type[T], name: str) -> T | None:
        """The object with a name."""
        with self._lock:
            return self.get(kind, self._names.get((kind.kind, name), ""))

    def all(self, kind: type[T]) -> list[T]:
        """All of a kind, in the order in which they came."""
        with self._lock:
            return sorted(cast("list[T]", list(self._objects[kind.kind].values())), key=lambda one: one.sequence)

    def things(self) -> list[Volume | Snapshot]:
        """All that lies in pools."""
        return [*self.all(Volume), *self.all(Snapshot)]

    def _keep(self, one: Record) -> None:
        self._objects[one.kind][one.id] = one
        if one.name:
            self._names[one.kind, one.name] = one.id
        self._sequence = max(self._sequence, one.sequence)

    def _write(self, statements: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        sys.audit(AUDIT)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for text, values in statements:
                self._connection.execute(text, values)
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
