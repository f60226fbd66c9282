"""Notes: what a row says, in a small file beside the tree that it speaks of.

They are never read while the database is whole. When it is lost, a directory with a note is a whole layer, or somebody's writable
layer, and gets its row again (rebuild.py). So a note is written last, before the directory is renamed into place, and goes first.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ocirt_images.store.changes import Changes
from ocirt_images.store.trees import remove_tree

LAYER = "layer.json"
WRITABLE = "writable.json"


def write(path: Path, value: dict[str, Any], changes: Changes) -> None:
    """Writes a note, and has it and its directory's entries on disk."""
    descriptor = changes.create(path, os.O_TRUNC)
    try:
        changes.write_at(descriptor, json.dumps(value).encode() + b"\n", 0, path)
        changes.fsync(descriptor, path)
    finally:
        os.close(descriptor)
    changes.fsync_directory(path.parent)


def read(path: Path) -> dict[str, Any] | None:
    """A note; None if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def remove(directory: Path, name: str, changes: Changes) -> None:
    """Removes a directory, its note first."""
    note = directory / name
    if note.exists():
        changes.unlink(note)
        changes.fsync_directory(directory)
    remove_tree(directory, changes)
