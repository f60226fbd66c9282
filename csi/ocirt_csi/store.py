"""What the driver must not forget, in SQLite (WAL): a row for each object, all of them in memory too.

A row is its own journal: its phase says `making` before anything is made, `removing` before anything is taken away, and it is
gone when nothing is left. What `put` and `delete` are given at once is written at once, or not at all.

What was written is there whenever the process ends. It outlives a power cut too once it is on disk: callers wait for that, and
those that wait at one moment do so together; but for rows that may be lost, each of which says why where it is written. A row is
on disk only if all that were written before it are.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import TypeVar, cast

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls
from ocirt_csi.model import Record, Snapshot, Volume

VERSION = 1
AUDIT = "ocirt_csi.commit"  # the audit event before each write
_SCHEMA = (
    "CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)
_in_order, _outlasts = attrgetter("sequence"), attrgetter("outlasts_power")
_INSERT = "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)"
_DELETE = "DELETE FROM objects WHERE kind = ? AND id = ?"
_OF_DISKS = {sqlite3.SQLITE_FULL: "exhausted", sqlite3.SQLITE_IOERR: "kernel", sqlite3.SQLITE_READONLY: "kernel"}
T = TypeVar("T", bound=Record)


class Store:
    """The database at a path, which is made if it is missing. Any thread may use it.

    Raises Error("corrupt" …), what its disk says as Error("exhausted", "kernel"), sqlite3.Error, OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._objects: dict[str, dict[str, Record]] = {kind: {} for kind in model.KINDS}
        self._names: dict[tuple[str, str], str] = {}
        self._gone: dict[tuple[str, str], Record] = {}
        self._of_volumes: dict[tuple[str, str], dict[str, Record]] = {}
        self._sequence = 0
        self._syncing = threading.Lock()
        self._written = self._synced = 0  # counts of writes
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(path)
                self._log = _log(path)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as err:
            hint = "move it away: `ocirt-csi fsck` makes a new one of what the pools hold"
            raise Error("corrupt", "cannot be read as the driver's state", subject=path, cause=str(err), hint=hint) from None

    def _prepare(self, path: str) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._write([(statement, ()) for statement in (*_SCHEMA, f"PRAGMA user_version = {VERSION}")], lasting=False)
        elif version != VERSION:
            raise Error(
                "unsupported", f"was written by a later ocirt-csi (version {version})", subject=path, hint="start that one"
            )
        try:
            found = [model.read(*row) for row in self._connection.execute("SELECT kind, body FROM objects")]
        except (KeyError, TypeError, ValueError) as err:
            raise Error("corrupt", "has a row that means nothing", subject=path, cause=str(err)) from None
        self._gone = {(one.kind, one.id): one for one in found if one.phase == model.GONE}
        self._keep(*sorted((one for one in found if one.phase != model.GONE), key=_in_order))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()
            os.close(self._log)

    def meta(self, name: str) -> str:
        """A word that is kept; "" if there is none."""
        with self._lock:
            found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else ""

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word."""
        self._write([("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))], lasting=True)

    def put(self, *objects: T, lasting: bool = True) -> T:
        """Write what these are now. Returns the first, with the place in lists that it got.

        lasting: they are on disk when it returns; not for those that a power cut ends anyway.
        """
        with self._lock:
            kept = [
                one if one.sequence else replace(one, sequence=self._sequence + place + 1) for place, one in enumerate(objects)
            ]
            self._sequence = max(self._sequence, *(one.sequence for one in kept))
            for one in kept:
                self._gone.pop((one.kind, one.id), None)
        self._write([(_INSERT, (one.kind, one.id, one.body())) for one in kept], lasting=lasting and any(map(_outlasts, kept)))
        with self._lock:
            self._keep(*kept)
        return kept[0]

    def delete(self, *objects: Record, lasting: bool = True) -> None:
        """Forget them. lasting: for good when it returns."""
        lasting = lasting and any(map(_outlasts, objects))
        self._write([(_DELETE, (one.kind, one.id)) for one in objects], lasting=lasting)
        with self._lock:
            self._drop(*objects)

    def retire(self, one: Record) -> None:
        """Forget something that was taken away; its row says so until `purge`."""
        one = replace(one, phase=model.GONE)
        self._write([(_INSERT, (one.kind, one.id, one.body()))], lasting=False)
        with self._lock:
            self._drop(one)
            self._gone[one.kind, one.id] = one

    @property
    def gone(self) -> list[Record]:
        """What was retired."""
        with self._lock:
            return list(self._gone.values())

    def purge(self, objects: Iterable[Record]) -> None:
        """Forget of the retired those that no power cut brings back."""
        with self._lock:
            found = [one for one in objects if self._gone.get((one.kind, one.id)) is one]
            self._write([(_DELETE, (one.kind, one.id)) for one in found], lasting=False)
            for one in found:
                del self._gone[one.kind, one.id]

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
            return sorted(cast("list[T]", list(self._objects[kind.kind].values())), key=_in_order)

    def of(self, kind: type[T], volume: str) -> list[T]:
        """Those of a kind that are of one volume, in the same order."""
        with self._lock:
            return sorted(cast("list[T]", list(self._of_volumes.get((kind.kind, volume), {}).values())), key=_in_order)

    def things(self) -> list[Volume | Snapshot]:
        """All that lies in pools."""
        return [*self.all(Volume), *self.all(Snapshot)]

    def _keep(self, *objects: Record) -> None:
        for one in objects:
            self._objects[one.kind][one.id] = one
            if one.name:
                self._names[one.kind, one.name] = one.id
            if _owner(one)[1]:
                self._of_volumes.setdefault(_owner(one), {})[one.id] = one
            self._sequence = max(self._sequence, one.sequence)

    def _drop(self, *objects: Record) -> None:
        for one in objects:
            self._objects[one.kind].pop(one.id, None)
            self._names.pop((one.kind, one.name), None)
            self._of_volumes.get(_owner(one), {}).pop(one.id, None)

    def _write(self, statements: Sequence[tuple[str, tuple[str, ...]]], *, lasting: bool) -> None:
        with self._lock:
            sys.audit(AUDIT)
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for text, values in statements:
                    self._connection.execute(text, values)
                self._connection.execute("COMMIT")
            except BaseException as err:
                if self._connection.in_transaction:  # some failures have ended it
                    self._connection.execute("ROLLBACK")
                if isinstance(err, sqlite3.Error) and (code := _OF_DISKS.get(err.sqlite_errorcode & 0xFF)):
                    words, hint = "the driver's state cannot be written", "is its disk full?"
                    raise Error(code, words, subject=self._path, cause=str(err), hint=hint) from None
                raise
            self._written += 1
            mine = self._written
        if lasting:
            self._sync(mine)

    def _sync(self, mine: int) -> None:
        """Wait until a write is on disk. Who comes first waits for all that were written by then, and others wait for it."""
        with self._syncing:
            if self._synced < mine:
                written = self._written
                sys.audit(calls.AUDIT, "fdatasync")
                os.fdatasync(self._log)
                self._synced = written


def _owner(one: Record) -> tuple[str, str]:
    """Its kind, and the volume that it is of; "" for what is of none."""
    return one.kind, getattr(one, "volume", "")


def _log(path: str) -> int:
    """A descriptor of SQLite's log, which stays the same file as long as the database is open, and its name is on disk."""
    with calls.opened(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY) as folder:
        os.fsync(folder)
    return os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
