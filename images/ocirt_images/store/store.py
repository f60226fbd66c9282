"""A store, opened: made if it is not there, brought to this version, and rid of what killed processes left."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from ocirt_images.digest import ALGORITHMS
from ocirt_images.errors import Error
from ocirt_images.store import schema
from ocirt_images.store.changes import Changes
from ocirt_images.store.content import Content
from ocirt_images.store.database import Database, connect, said
from ocirt_images.store.flights import Flights
from ocirt_images.store.images import Images
from ocirt_images.store.layers import Layers
from ocirt_images.store.layout import Layout
from ocirt_images.store.leases import Leases
from ocirt_images.store.recovery import Recovery
from ocirt_images.store.references import References
from ocirt_images.store.writables import Writables

PATIENCE = 10.0  # seconds until an opening gives up on a repair that somebody else makes
_POLL = 0.02


class Store:
    """A store that is open. Threads and processes share it; a context manager.

    content: blobs and manifests by digest. layers: unpacked ones by ChainID. images: names. writables: of containers. leases:
    what pins content that no image refers to yet.
    """

    def __init__(self, layout: Layout, lock: int, changes: Changes) -> None:
        """Use `Store.open`. lock: a descriptor of the lock file that has the shared lock; it belongs to the store."""
        self.root = layout.root
        self.layout = layout
        self.changes = changes
        self.lock = lock
        self.database = Database(layout.database, changes)
        self.flights = Flights(changes)
        self.references = References(layout, self.database, changes, self.flights)
        self.recovery = Recovery(layout, self.database, changes, self.flights, self.references)
        self.content = Content(layout, self.database, changes, self.flights, self.recovery)
        self.layers = Layers(layout, self.database, changes, self.flights, self.references)
        self.images = Images(self.database, self.references)
        self.writables = Writables(layout, self.database, changes, self.flights, self.references)
        self.leases = Leases(layout, self.database, self.references)

    @classmethod
    def open(cls, root: Path, *, sync: bool = True, recover: bool = True) -> Store:
        """Opens the store at `root`, or makes one.

        sync: False leaves out every fsync: for measurements, and for stores that may be lost with the power.
        recover: False leaves what killed processes left; only a check wants to see that.
        Raises Error("unsupported") for the store of a newer version, Error("corrupt") for a damaged database, Error("in-use")
        while it is repaired.
        """
        layout, changes = Layout(root), Changes(sync=sync)
        lock = prepare(layout, changes)
        try:
            store = cls(layout, lock, changes)
        except BaseException:
            os.close(lock)
            raise
        try:
            if recover:
                store.leases.expire()
                store.recovery.run()
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Ends the use of the store. Leases of this process end with it."""
        self.leases.close()
        self.database.close()
        if self.lock >= 0:
            lock, self.lock = self.lock, -1
            os.close(lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def prepare(layout: Layout, changes: Changes) -> int:
    """Makes what is missing of a store, and migrates it. A descriptor with the shared lock on its lock file."""
    if not layout.complete:
        for directory in layout.directories:
            _directory(directory, changes)
    lock = changes.create(layout.lock)
    try:
        while not share(lock, layout):
            # Nobody else uses it now, so it is ours to change.
            _migrate(layout, changes)
    except BaseException:
        os.close(lock)
        raise
    return lock


def share(lock: int, layout: Layout) -> bool:
    """Takes the shared lock of a store that has this version; False: it has not, and the lock is exclusive."""
    until = time.monotonic() + PATIENCE
    while True:
        if _flock(lock, fcntl.LOCK_SH) and _version(layout) == len(schema.MIGRATIONS):
            return True
        if _flock(lock, fcntl.LOCK_EX):
            return False
        if time.monotonic() > until:
            hint = "try again when fsck is done, or stop what uses an older version of the store"
            raise Error(
                "in-use", "somebody else repairs it, or keeps it from being migrated", subject=str(layout.root), hint=hint
            )
        time.sleep(_POLL)


def exclusive(lock: int) -> bool:
    """Makes the shared lock exclusive; False: others use the store, and the lock is shared as before."""
    if _flock(lock, fcntl.LOCK_EX):
        return True
    fcntl.flock(lock, fcntl.LOCK_SH)  # a conversion that fails may have dropped it: flock(2)
    return False


def _directory(path: Path, changes: Changes) -> None:
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _directory(path.parent, changes)
    try:
        changes.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    changes.fsync_directory(path.parent)


def _version(layout: Layout) -> int:
    """The version of the store: 0 if there is none, or a rebuilt database waits to take its place."""
    if layout.rebuilt.exists() or not layout.database.exists():
        return 0
    with said(layout.database):
        connection = connect(layout.database)
        try:
            return schema.version(connection, layout.root)
        finally:
            connection.close()


def _migrate(layout: Layout, changes: Changes) -> None:
    """Brings the database to this version. The caller has the exclusive lock."""
    take_rebuilt(layout, changes)
    if not _version(layout) and holds_something(layout):
        hint = "ocirt fsck --repair makes a new one from what is in the store"
        raise Error("corrupt", "the database is lost", subject=str(layout.database), hint=hint)
    migrate(layout, layout.database, changes)


def migrate(layout: Layout, path: Path, changes: Changes) -> None:
    """Brings the database at `path` to this version, or makes one."""
    os.close(changes.create(path))
    with said(path):
        connection = connect(path)
        try:
            connection.execute(f"PRAGMA synchronous = {'FULL' if changes.sync else 'OFF'}")
            connection.execute("PRAGMA journal_mode = WAL")
            for number in range(schema.version(connection, layout.root), len(schema.MIGRATIONS)):
                connection.execute("BEGIN IMMEDIATE")
                for statement in schema.statements(number):
                    connection.execute(statement)
                changes.commit(connection)
        finally:
            connection.close()
    changes.fsync_directory(layout.root)


def take_rebuilt(layout: Layout, changes: Changes) -> None:
    """Puts a rebuilt database, if there is one, in the place of the damaged one. The caller has the exclusive lock."""
    if layout.rebuilt.exists():
        # The old one's journal would be taken for the new one's.
        for suffix in ("-wal", "-shm"):
            changes.unlink(layout.database.with_name(layout.database.name + suffix))
        changes.fsync_directory(layout.root)
        changes.rename(layout.rebuilt, layout.database)
        changes.fsync_directory(layout.root)


def holds_something(layout: Layout) -> bool:
    """Whether anything is in the store, by its directories."""
    places = [*(layout.blobs / algorithm for algorithm in ALGORITHMS), layout.layers, layout.writables]
    return any(os.listdir(place) for place in places if place.is_dir())


def _flock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
