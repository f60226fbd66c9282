"""Layers: rows against directories, each layer's parent, the notes beside the trees."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import notes
from ocirt_images.store.checks.findings import Check
from ocirt_images.store.layers import LayerRecord, insert, note, read_note
from ocirt_images.store.layout import number
from ocirt_images.store.references import drop_layer
from ocirt_images.store.trees import remove_tree

_ROWS = "SELECT id, chain_id, parent, diff_id, size, inodes, created FROM layers ORDER BY id"


def check(check: Check) -> None:
    """Rows, trees and notes of layers."""
    names = sorted(os.listdir(check.store.layout.layers))
    rows, leftovers = check.tables(_ROWS, "SELECT id FROM leftovers")
    known = {record.chain_id: record for row in rows if (record := _valid(check, row)) is not None}
    busy = {identifier for (identifier,) in leftovers}
    numbers = {record.id for record in known.values()}
    extra = [name for name in names if number(name) not in numbers | busy]
    _missing(check, known)
    extra = _adopt(check, known, extra)
    for name in extra:
        path = check.store.layout.layers / name
        if os.path.lexists(path):
            check.found("layer-extra", path, "no layer has this directory", partial(_remove, check, path))
    _orphans(check, known)
    for record in known.values():
        _note(check, record)


def _valid(check: Check, row: tuple[object, ...]) -> LayerRecord | None:
    """A layer from its row, or the row goes."""
    identifier, chain_id, parent, diff_id, size, inodes, created = row
    try:
        record = read_note(
            {"chainId": chain_id, "parent": parent, "diffId": diff_id, "size": size, "inodes": inodes, "created": created},
            identifier if isinstance(identifier, int) else -1,
            check.store.layout,
        )
    except Error as err:
        repair = partial(check.execute, "DELETE FROM layers WHERE id IS ?", identifier)
        check.found("row-invalid", f"layer {identifier!r:.40}", str(err), repair)
        return None
    return record


def _missing(check: Check, known: dict[Digest, LayerRecord]) -> None:
    """Rows without a tree."""
    for record in list(known.values()):
        if _lacks_tree(record) and _confirmed(check, record, partial(_lacks_tree, record)):
            del known[record.chain_id]
            text = f"the tree of layer {record.chain_id} is not there"
            check.found("layer-missing", record.path, text, partial(_drop, check, record))


def _lacks_tree(record: LayerRecord) -> bool:
    return not record.path.is_dir() or record.path.is_symlink()


def _orphans(check: Check, known: dict[Digest, LayerRecord]) -> None:
    """Layers whose parent is not there, and those above them."""
    while orphans := [one for one in known.values() if one.parent is not None and one.parent not in known]:
        for record in orphans:
            del known[record.chain_id]
            text = f"its parent {record.parent} is not there"
            check.found("layer-orphan", record.chain_id, text, partial(_drop, check, record))


def _drop(check: Check, record: LayerRecord) -> None:
    with check.repairing() as connection:
        connection.execute("DELETE FROM image_layers WHERE chain_id = ?", (record.chain_id,))
        connection.execute("UPDATE images SET layer = NULL WHERE layer = ?", (record.chain_id,))
        drop_layer(connection, record.id, record.chain_id)
    check.store.references.finish_layer(record.id)


def _adopt(check: Check, known: dict[Digest, LayerRecord], names: list[str]) -> list[str]:
    """Gives trees with a note their row again, parents first. The names of the others."""
    layout = check.store.layout
    waiting: dict[str, LayerRecord] = {}
    for name in names:
        identifier, value = number(name), notes.read(layout.layers / name / notes.LAYER)
        try:
            record = read_note(value or {}, identifier or -1, layout)
        except Error:
            continue
        if record.path.is_dir():
            waiting[name] = record
    while ready := [name for name, one in waiting.items() if one.parent is None or one.parent in known]:
        record = waiting.pop(ready[0])
        if record.chain_id in known:
            continue
        known[record.chain_id] = record
        names = [name for name in names if name != ready[0]]
        check.found("layer-unindexed", record.path, f"layer {record.chain_id} has no row", partial(_insert, check, record))
    return names


def _insert(check: Check, record: LayerRecord) -> None:
    with check.repairing() as connection:
        insert(connection, record)


def _remove(check: Check, path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        notes.remove(path, notes.LAYER, check.store.changes)
    else:
        remove_tree(path, check.store.changes)


def _note(check: Check, record: LayerRecord) -> None:
    path = record.path.parent / notes.LAYER

    def wrong() -> bool:
        return notes.read(path) != note(record)

    if wrong() and _confirmed(check, record, wrong):
        text = f"it does not say what the row of layer {record.chain_id} says"
        check.found("layer-note-wrong", path, text, partial(notes.write, path, note(record), check.store.changes))


def _confirmed(check: Check, record: LayerRecord, wrong: Callable[[], bool]) -> bool:
    """Whether something is wrong with a layer that still is one."""
    lock = check.store.layout.layer_lock(record.chain_id)
    return check.confirmed(lock, lambda: wrong() and check.rows("SELECT 1 FROM layers WHERE id = ?", record.id))
