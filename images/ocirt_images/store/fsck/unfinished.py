"""What killed processes left, and what lies where such things are: ingest/, staging/, `removals`, `leftovers`.

An interrupted download is no damage: the next one goes on with it. Everything else here has a living owner, or is stale.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.fsck.findings import Check, idle
from ocirt_images.store.layout import LOCK, number, parse
from ocirt_images.store.trees import remove_tree


def check(check: Check) -> None:
    """Files and rows of what is under way."""
    _rows(check)
    _names(check)
    _contents(check)
    _layers(check)


def _rows(check: Check) -> None:
    """Rows that name nothing that could be finished."""
    for table, column in (("removals", "digest"), ("leftovers", "chain_id")):
        for (text,) in check.rows(f"SELECT {column} FROM {table}"):
            try:
                Digest(str(text))
            except Error as err:
                drop = partial(check.execute, f"DELETE FROM {table} WHERE {column} IS ?", text)
                check.found("row-invalid", f"{table} {text!r:.80}", err.message, drop)


def _names(check: Check) -> None:
    """Files and directories that nobody here would name so."""
    layout = check.store.layout
    paths = [layout.ingests / name for name in os.listdir(layout.ingests) if parse(name) is None]
    for name in os.listdir(layout.staging):
        if number(name) is None and not (name.endswith(LOCK) and parse(name) is not None):
            paths.append(layout.staging / name)
    for path in sorted(paths):
        kind = "ingest-stale" if path.parent == layout.ingests else "staging-stale"
        check.found(kind, path, "nothing has this name", partial(remove_tree, path, check.store.changes))


def _contents(check: Check) -> None:
    layout = check.store.layout
    unfinished = set(check.store.recovery.contents())
    for name in os.listdir(layout.ingests):
        digest = parse(name)
        if digest is not None and check.rows("SELECT 1 FROM content WHERE digest = ?", digest):
            unfinished.add(digest)
    for digest in sorted(unfinished):
        if not idle(layout.content_lock(digest)):
            continue
        removal = check.rows("SELECT 1 FROM removals WHERE digest = ?", digest)
        if removal:
            check.found("removal-unfinished", digest, "its row is gone, its file may be there", partial(_settle, check, digest))
        elif any(path.exists() for path in (layout.ingest(digest), layout.map(digest), layout.content_lock(digest))):
            text = "whoever fetched it is gone, and cannot have left it so for the next one"
            check.found("ingest-stale", layout.ingest(digest), text, partial(_settle, check, digest))


def _settle(check: Check, digest: Digest) -> None:
    flight = check.store.flights.take(check.store.layout.content_lock(digest))
    try:
        check.store.recovery.settle_content(digest)
    finally:
        flight.end()


def _layers(check: Check) -> None:
    layout = check.store.layout
    for chain_id, numbers in check.store.recovery.leftovers().items():
        lock = layout.layer_lock(chain_id)
        if not idle(lock):
            continue
        for identifier in numbers:
            finish = partial(check.store.references.finish_layer, identifier)
            if os.path.lexists(layout.layer(identifier)):
                check.found("removal-unfinished", layout.layer(identifier), "it is no layer, or no more", finish)
            else:
                check.found("staging-stale", layout.staged(identifier), "its maker is gone", finish)
        if lock.exists():
            check.found("staging-stale", lock, "its owner is gone", partial(_unlock, check, lock))
    for identifier in check.store.recovery.lone_staging():
        finish = partial(check.store.references.finish_layer, identifier)
        check.found("staging-stale", layout.staged(identifier), "no row speaks of it", finish)


def _unlock(check: Check, lock: Path) -> None:
    check.store.flights.take(lock).end()
