"""The database of a store: connections for many threads, short transactions, SQLite's errors as ours.

A connection serves one thread at a time and goes back to a pool, so there are as many as threads were busy at once. Writers of
one process queue at a lock, which is fair; SQLite's own waiting between processes is not, but writers are short: no transaction
does more than SQL.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection

from ocirt_images.errors import Error
from ocirt_images.store.changes import Changes

PATIENCE = 60.0  # seconds until a writer gives up on other processes' transactions
_DAMAGED = frozenset(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


class Database:
    """SQLite in WAL mode. Threads share it; a forked child must not."""

    def __init__(self, path: Path, changes: Changes) -> None:
        self.path = path
        self._changes = changes
        # NORMAL: synced when the journal is written into the database, so that it is never torn, but not at each commit.
        self._synchronous = {True: "FULL", False: "NORMAL"} if changes.sync else {True: "OFF", False: "OFF"}
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._writer = threading.Lock()
        self._closed = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for queries; two of them may see two states."""
        connection = self._take()
        try:
            with said(self.path):
                yield connection
        finally:
            self._give(connection)

    @contextmanager
    def writing(self, *, durable: bool = True, foreign_keys: bool = True) -> Iterator[Connection]:
        """A transaction, committed at the end of the block, rolled back by an error.

        durable: on disk when the block is left. What dies with its process need not be (a lease); it is never there without what
        was committed before it.
        foreign_keys: whether they are enforced; a repair goes without.
        """
        with self._writer:
            connection = self._take()
            try:
                with said(self.path):
                    connection.execute(f"PRAGMA synchronous = {self._synchronous[durable]}")
                    connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        yield connection
                        self._changes.commit(connection)
                    except BaseException:
                        if connection.in_transaction:
                            connection.execute("ROLLBACK")
                        raise
            finally:
                self._give(connection)

    def close(self) -> None:
        """Ends all connections. The last one of all processes writes the journal into the database."""
        self._closed = True
        self.reset()

    def reset(self) -> None:
        """Ends the connections that are idle: the next one opens the file anew."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            with said(self.path):
                connection.close()

    def _take(self) -> Connection:
        with self._lock:
            if self._closed:
                raise Error("internal", "the store is closed", subject=str(self.path))
            if self._idle:
                return self._idle.pop()
        with said(self.path):
            connection = connect(self.path)
            connection.execute(f"PRAGMA synchronous = {self._synchronous[True]}")
            return connection

    def _give(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def connect(path: Path) -> Connection:
    """A connection to a database that is there. Transactions are begun by us, not by Python's module."""
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def said(path: Path) -> Iterator[None]:
    """SQLite's errors as errors for a person: "corrupt", "exhausted", "unavailable"; what is a bug of ours stays as it is."""
    try:
        yield
    except sqlite3.Error as err:
        name = getattr(err, "sqlite_errorname", "")
        kind = "_".join(name.split("_")[:2])
        if kind in _DAMAGED or (isinstance(err, sqlite3.OperationalError) and "no such table" in str(err)):
            hint = "ocirt fsck --repair makes a new one from what is in the store"
            raise Error("corrupt", "the database is damaged", subject=str(path), cause=str(err), hint=hint) from err
        if kind == "SQLITE_FULL":
            raise Error("exhausted", "no space left", subject=str(path), hint="ocirt prune frees what nothing uses") from err
        if kind == "SQLITE_BUSY":
            hint = "another process keeps a transaction open"
            raise Error("unavailable", "the database is locked", subject=str(path), hint=hint) from err
        if kind in ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY"):
            raise Error("kernel", "the database cannot be used", subject=str(path), cause=f"{err} ({name})") from err
        raise
