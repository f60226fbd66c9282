"""Writable layers: rows against directories. What somebody wrote is never removed: a directory with contents gets its row
back.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import limits, notes
from ocirt_images.store.checks.findings import Check
from ocirt_images.store.layout import number
from ocirt_images.store.writables import note


def check(check: Check) -> None:
    """Rows, directories and notes of writable layers."""
    layout = check.store.layout
    names = sorted(os.listdir(layout.writables))
    rows, abandoned = check.tables("SELECT id, key, chain_id, created FROM writables ORDER BY id", "SELECT id FROM abandoned")
    keys = set()
    numbers = {identifier for (identifier,) in abandoned}
    for identifier, key, chain_id, created in rows:
        if not _valid(key, chain_id):
            drop = partial(check.execute, "DELETE FROM writables WHERE id = ?", identifier)
            check.found("row-invalid", f"writable layer {identifier}", f"{key!r:.80} on {chain_id!r:.80}", drop)
            continue
        keys.add(key)
        numbers.add(identifier)
        _directory(check, identifier, key, note(key, chain_id, created))
    for name in names:
        path = layout.writables / name
        if number(name) in numbers or not os.path.lexists(path):
            continue
        value = notes.read(path / notes.WRITABLE) or {}
        key, chain_id = value.get("key"), value.get("chainId")
        if _valid(key, chain_id) and key not in keys and number(name) is not None and _written(path):
            keys.add(key)
            check.found("writable-unindexed", path, f"it is that of {key}, and has no row", partial(_adopt, check, path, value))
        else:
            check.found(
                "writable-extra", path, "it belongs to nobody", partial(limits.remove_directory, path, check.store.changes)
            )


def _valid(key: object, chain_id: object) -> bool:
    if not isinstance(key, str) or not key or not (chain_id is None or isinstance(chain_id, str)):
        return False
    try:
        return chain_id is None or bool(Digest(chain_id))
    except Error:
        return False


def _directory(check: Check, identifier: int, key: str, wanted: dict[str, object]) -> None:
    path = check.store.layout.writable(identifier)
    if not (path / "fs").is_dir():
        if check.rows("SELECT 1 FROM writables WHERE id = ?", identifier):
            check.found("writable-missing", path, f"that of {key} is not there", partial(_drop, check, identifier))
        return
    if not (path / "work").is_dir() and check.rows("SELECT 1 FROM writables WHERE id = ?", identifier):
        check.found("directory-missing", path / "work", "it is not there", partial(check.store.changes.mkdir, path / "work"))
    if notes.read(path / notes.WRITABLE) != wanted and check.rows("SELECT 1 FROM writables WHERE id = ?", identifier):
        repair = partial(notes.write, path / notes.WRITABLE, wanted, check.store.changes)
        check.found("writable-note-wrong", path / notes.WRITABLE, f"it does not say what the row of {key} says", repair)


def _drop(check: Check, identifier: int) -> None:
    limits.remove_directory(check.store.layout.writable(identifier), check.store.changes)
    check.execute("DELETE FROM writables WHERE id = ?", identifier)


def _written(path: Path) -> bool:
    """Whether there is anything in it."""
    return (path / "fs").is_dir() and any((path / "fs").iterdir())


def _adopt(check: Check, path: Path, value: dict[str, Any]) -> None:
    created = value.get("created")
    values = (int(path.name), value["key"], value["chainId"], created if isinstance(created, (int, float)) else 0.0)
    check.execute("INSERT INTO writables (id, key, chain_id, created) VALUES (?, ?, ?, ?)", *values)
