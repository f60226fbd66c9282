"""What killed processes left, and what lies where such things are: ingest/, staging/, `removals`, `leftovers`,
`abandoned`.

An interrupted download is no damage: the next one goes on with it. A lock file that nobody holds is none either: the next opening
takes it away. Everything else here has a living owner, or is stale.
"""

from __future__ import annotations

import os
from functools import partial

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.checks.findings import Check
from ocirt_images.store.layout import LOCK, locked_writable, number, parse
from ocirt_images.store.trees import remove_tree


def check(check: Check) -> None:
    """Files and rows of what is under way."""
    _rows(check)
    _names(check)
    _contents(check)
    _layers(check)
    _writables(check)


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
        lock = name.endswith(LOCK) and (parse(name) is not None or locked_writable(name) is not None)
        if number(name) is None and not lock:
            paths.append(layout.staging / name)
    for path in sorted(paths):
        kind = "ingest-stale" if path.parent == layout.ingests else "staging-stale"
        check.found(kind, path, "nothing has this name", partial(remove_tree, path, check.store.changes))


def _contents(check: Check) -> None:
    layout = check.store.layout
    named = {digest for name in os.listdir(layout.ingests) if (digest := parse(name)) is not None}
    for digest in sorted(named | set(check.store.recovery.contents())):
        with check.owned(layout.content_lock(digest)) as owned:
            removal = check.rows("SELECT 1 FROM removals WHERE digest = ?", digest)
            stale = _stale(check, digest)
        if not owned:
            continue
        if removal:
            check.found("removal-unfinished", digest, "its row is gone, its file may be there", partial(_settle, check, digest))
        elif stale:
            text = "whoever fetched it is gone, and the next one cannot go on with it"
            check.found("ingest-stale", layout.ingest(digest), text, partial(_settle, check, digest))


def _stale(check: Check, digest: Digest) -> bool:
    """Whether a download is of no use: its bytes or its map are missing, or the content is there."""
    layout = check.store.layout
    bytes_there, map_there = layout.ingest(digest).exists(), layout.map(digest).exists()
    row = check.rows("SELECT 1 FROM content WHERE digest = ?", digest)
    return bytes_there != map_there or (bytes_there and bool(row))


def _settle(check: Check, digest: Digest) -> None:
    flight = check.store.flights.take(check.store.layout.content_lock(digest))
    try:
        check.store.recovery.settle_content(digest)
    finally:
        flight.end()


def _layers(check: Check) -> None:
    layout, references = check.store.layout, check.store.references
    for chain_id, numbers in check.store.recovery.leftovers().items():
        with check.owned(layout.layer_lock(chain_id)) as owned:
            left = [one for one in numbers if check.rows("SELECT 1 FROM leftovers WHERE id = ?", one)]
        if not owned:
            continue
        for identifier in left:
            finish = partial(references.finish_layer, identifier)
            if os.path.lexists(layout.layer(identifier)):
                check.found("removal-unfinished", layout.layer(identifier), "it is no layer, or no more", finish)
            else:
                check.found("staging-stale", layout.staged(identifier), "its maker is gone", finish)
    for identifier in check.store.recovery.lone_staging():
        path = layout.staged(identifier)
        check.found("staging-stale", path, "no row speaks of it", partial(references.finish_layer, identifier))


def _writables(check: Check) -> None:
    layout, references = check.store.layout, check.store.references
    for identifier in check.store.recovery.writables():
        with check.owned(layout.writable_lock(identifier)) as owned:
            left = check.rows("SELECT 1 FROM abandoned WHERE id = ?", identifier)
        if not owned:
            continue
        if left:
            path = layout.writable(identifier)
            check.found("removal-unfinished", path, "its row is gone", partial(references.finish_writable, identifier))
