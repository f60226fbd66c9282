"""The directories and modes of a store. Layers hold set-user-ID programs, so nobody but the owner may come near them."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ocirt_images.store.changes import Changes
from ocirt_images.store.checks.findings import Check, Finding
from ocirt_images.store.ingest import MODE
from ocirt_images.store.layout import Layout


def check_directories(layout: Layout, changes: Changes, found: list[Finding], *, repair: bool) -> None:
    """Whether the directories that every store has are there."""
    for directory in layout.directories:
        if not directory.is_dir():
            found.append(Finding("directory-missing", str(directory), "it is not there", repair))
            if repair:
                changes.unlink(directory)
                changes.mkdir(directory)
                changes.fsync_directory(directory.parent)


def check(check: Check) -> None:
    """The modes of all that is ours. The root's own is left to who made it."""
    known = {finding.subject for finding in check.findings}
    for path, wanted in _wanted(check.store.layout):
        if str(path) in known:
            continue
        try:
            there = path.lstat().st_mode
        except FileNotFoundError:
            continue  # removed meanwhile, or found by another check
        if stat.S_IMODE(there) == wanted or stat.S_ISLNK(there):
            continue
        repair = partial(check.store.changes.chmod, path, wanted)
        check.found("mode-wrong", path, f"mode {stat.S_IMODE(there):04o} and not {wanted:04o}", repair)


def _wanted(layout: Layout) -> Iterator[tuple[Path, int]]:
    for directory in layout.directories[1:]:
        yield directory, 0o700
    for place in (layout.layers, layout.staging, layout.writables):
        for path in place.iterdir():
            if path.is_dir():
                yield path, 0o700
    for path in (layout.lock, layout.database):
        yield path, 0o600
    for place in layout.blobs.iterdir():
        for path in place.iterdir() if place.is_dir() else ():
            yield path, MODE
