"""The database as a file: whether SQLite can read it, and a new one if not.

A new one is made beside the old: with the rows that can still be read, the rest is for the checks that follow, which find blobs
and trees without rows. When it is whole and on disk it is renamed to `database.new`; from then on every opening puts it in its
place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import Connection

from ocirt_images.errors import Error
from ocirt_images.store import schema
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks.findings import Finding
from ocirt_images.store.database import connect
from ocirt_images.store.layout import Layout
from ocirt_images.store.store import migrate, take_rebuilt

# What is worth saving. References are made anew from these; leases and what was half done are of no use afterwards.
_SAVED = {
    "content": "digest, size, created",
    "layers": "id, chain_id, parent, diff_id, size, inodes, created",
    "writables": "id, key, chain_id, created",
    "images": "name, target, manifest, config, layer, pulled_by, created, updated",
}


def check(layout: Layout, changes: Changes, *, repair: bool) -> list[Finding]:
    """Whether the database can be used; if not, and with `repair`: now it can.

    Raises Error("unsupported") for one of a newer version.
    """
    found = []
    if layout.rebuilt.exists():
        found.append(Finding("database-damaged", str(layout.rebuilt), "a repair was interrupted", repair))
        if repair:
            take_rebuilt(layout, changes)
    if not layout.database.exists():
        found.append(Finding("database-missing", str(layout.database), "it is not there", repair))
    elif problem := _problem(layout.database, layout.root):
        found.append(Finding("database-damaged", str(layout.database), problem, repair))
    else:
        return found
    if repair:
        _rebuild(layout, changes)
    return found


def _problem(path: Path, root: Path) -> str:
    """What is wrong with a database; "" for nothing."""
    try:
        with closing(connect(path)) as connection:
            answer = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if answer != ("ok",):
                return str(answer[0])
            return _missing(connection, root)
    except sqlite3.DatabaseError as err:
        return str(err)


def _missing(connection: Connection, root: Path) -> str:
    """What a whole database lacks; "" for nothing."""
    version = schema.version(connection, root)
    if 0 < version < len(schema.MIGRATIONS):
        raise Error(
            "unsupported", f"the store has the older version {version}", subject=str(root), hint="ocirt images migrates it"
        )
    with closing(sqlite3.connect(":memory:")) as model:
        for number in range(len(schema.MIGRATIONS)):
            for statement in schema.statements(number):
                model.execute(statement)
        lacking = _names(model) - _names(connection)
    return f"it lacks {', '.join(sorted(lacking))}" if lacking or not version else ""


def _names(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")}


def _rebuild(layout: Layout, changes: Changes) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        changes.unlink(layout.building.with_name(layout.building.name + suffix))
    migrate(layout, layout.building, changes)
    with closing(connect(layout.building)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("BEGIN IMMEDIATE")
        for table, columns in _SAVED.items():
            marks = ", ".join("?" * len(columns.split(",")))
            statement = f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})"
            for row in _saved(layout.database, table, columns):
                connection.execute(statement, row)
        changes.commit(connection)
    # The last connection has written the journal into the database and removed it.
    descriptor = changes.create(layout.building)
    with open(descriptor, "rb") as file:
        changes.fsync(file.fileno(), layout.building)
    changes.rename(layout.building, layout.rebuilt)
    changes.fsync_directory(layout.root)
    take_rebuilt(layout, changes)


def _saved(path: Path, table: str, columns: str) -> Iterator[tuple[object, ...]]:
    """The rows of a table that can be read: from the front as far as it goes, and from the end."""
    if not path.exists():
        return
    key = columns.partition(",")[0]
    for order in ("ASC", "DESC"):
        try:
            with closing(connect(path)) as connection:
                connection.text_factory = lambda data: data.decode(errors="replace")
                yield from connection.execute(f"SELECT {columns} FROM {table} ORDER BY {key} {order}")
        except sqlite3.Error:
            continue
