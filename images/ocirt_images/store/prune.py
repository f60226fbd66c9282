"""Removing what nothing uses: content and layers that nothing refers to, and downloads that nobody goes on with."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.layout import LOCK, parse
from ocirt_images.store.references import CONTENT_UNUSED, LAYER_UNUSED, Freed

if TYPE_CHECKING:
    from ocirt_images.store.store import Store


@dataclass(slots=True)
class Pruned:
    """What went. images: their names; ingests, ingest_bytes: downloads that were never finished."""

    images: list[str] = field(default_factory=list)
    freed: Freed = field(default_factory=Freed)
    ingests: int = 0
    ingest_bytes: int = 0


def prune(store: Store, *, older: float = 0.0, images: bool = False) -> Pruned:
    """Removes what nothing refers to. Others go on using the store meanwhile; what a lease pins or somebody works on stays.

    older: only what came so many seconds ago or earlier; downloads: what nobody wrote to for so long.
    images: names too, unless a writable layer is based on the image.
    """
    pruned = Pruned()
    until = time.time() - older
    store.leases.expire()
    store.recovery.run()
    if images:
        _images(store, until, pruned)
    with store.database.reading() as connection:
        layers = connection.execute(f"SELECT chain_id FROM layers WHERE created <= ? AND {LAYER_UNUSED}", (until,)).fetchall()
        contents = connection.execute(f"SELECT digest FROM content WHERE created <= ? AND {CONTENT_UNUSED}", (until,)).fetchall()
    pruned.freed += store.references.free([Digest(one) for (one,) in contents], [Digest(one) for (one,) in layers])
    _ingests(store, until, pruned)
    return pruned


def _images(store: Store, until: float, pruned: Pruned) -> None:
    used = {writable.chain_id for writable in store.writables.list()}
    for image in store.images.list():
        if image.updated <= until and (image.layer is None or image.layer not in used):
            try:
                pruned.freed += store.images.delete(image.name)
            except Error as err:
                if err.code != "not-found":
                    raise
            else:
                pruned.images.append(image.name)


def _ingests(store: Store, until: float, pruned: Pruned) -> None:
    digests = {digest for name in os.listdir(store.layout.ingests) if not name.endswith(LOCK) and (digest := parse(name))}
    for digest in sorted(digests):
        path = store.layout.ingest(digest)
        flight = store.flights.try_take(store.layout.content_lock(digest)) if _age(path) <= until else None
        if flight is None:
            continue
        try:
            if path.exists() and _age(path) <= until:
                pruned.ingests += 1
                pruned.ingest_bytes += path.stat().st_blocks * 512
                store.changes.unlink(path)
                store.changes.unlink(store.layout.map(digest))
        finally:
            flight.end()


def _age(path: Path) -> float:
    """When it was last written to; 0 if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
