"""fsck: does the store hold what its rows say, and nothing else? With `repair`: now it does.

All content is read and hashed. On a healthy store nothing is changed, not even with `repair`. What cannot be had back (a blob
whose bytes are wrong) is removed together with its row, so that the next pull fetches it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from ocirt_images.errors import Error
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks import contents, database, images, layers, places, unfinished, writables
from ocirt_images.store.checks.findings import KINDS, Check, Finding
from ocirt_images.store.layout import Layout
from ocirt_images.store.store import Store, exclusive

__all__ = ("KINDS", "Finding", "fsck")

Progress = Callable[[int, int], None]


def fsck(where: Store | Path, *, repair: bool = False, sync: bool = True, progress: Progress | None = None) -> list[Finding]:
    """Checks the store at a path, or an open one (its opening has finished already what killed processes left half done).

    repair: needs the store for itself. progress: called with how many bytes of content were read, of how many.
    What it found, in the order in which it was found; empty: all is well. Raises Error("not-found") if there is no store,
    Error("in-use") if others use what is to be repaired, Error("unsupported") for the store of a newer version.
    """
    if isinstance(where, Store):
        _alone(where.lock, where.root, repair=repair)
        try:
            where.database.reset()
            found = database.check(where.layout, where.changes, repair=repair)
            return found if found and not repair else found + _run(where, repair, progress)
        finally:
            fcntl.flock(where.lock, fcntl.LOCK_SH)
    layout, changes = Layout(where), Changes(sync=sync)
    if not where.is_dir():
        raise Error("not-found", "no store", subject=str(where), hint="the first pull makes one")
    lock = changes.create(layout.lock)
    try:
        _alone(lock, where, repair=repair)
        found = database.check(layout, changes, repair=repair)
        if found and not repair:
            return found
        places.check_directories(layout, changes, found, repair=repair)
        if not layout.complete and not repair:
            return found
        store = Store(layout, os.dup(lock), changes)
    finally:
        os.close(lock)
    with store:
        return found + _run(store, repair, progress)


def _run(store: Store, repair: bool, progress: Progress | None) -> list[Finding]:
    """All checks but those of the database itself. Each relies on those before it."""
    check = Check(store, repair=repair, progress=progress or (lambda done, size: None))
    unfinished.check(check)
    contents.check(check)
    layers.check(check)
    writables.check(check)
    images.check(check)
    places.check(check)
    return check.findings


def _alone(lock: int, root: Path, *, repair: bool) -> None:
    """The lock that a run needs."""
    if not repair:
        fcntl.flock(lock, fcntl.LOCK_SH)
    elif not exclusive(lock):
        hint = "a repair needs it alone: wait for pulls, and stop ocirtd"
        raise Error("in-use", "other processes use the store", subject=str(root), hint=hint)
