"""The layers of an image into their trees: of one that is being pulled, or of one whose bytes are in the store already."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ocirt_images import events, held
from ocirt_images.cancel import Cancel
from ocirt_images.digest import Digest, chain_ids
from ocirt_images.pull.commits import Commits
from ocirt_images.pull.layer import Fetch, Layer

if TYPE_CHECKING:
    from ocirt_images.apply.worker import Workers
    from ocirt_images.config import ImageConfig
    from ocirt_images.manifest import Manifest
    from ocirt_images.pull.download import Downloads
    from ocirt_images.store import ImageRecord, Lease, Store

AT_ONCE = 4  # layers that are fetched or wait for a worker


def is_unpacked(store: Store, record: ImageRecord) -> bool:
    """Whether all trees of an image are there. Raises as `unpack` does for what is no image."""
    return are_unpacked(store, record, _layers(store, record))


def unpack(
    store: Store, record: ImageRecord, on_event: events.OnEvent = events.ignore, cancel: Cancel | None = None
) -> ImageRecord:
    """Have an image unpacked that was loaded, or whose trees are gone. Does nothing for one that is.

    Raises Error("not-found") if bytes of a layer are missing, Error("unsupported") for an artifact, what the applier raises,
    OSError.
    """
    layers = _layers(store, record)
    if are_unpacked(store, record, layers):
        return record
    with (cancel or Cancel()).within() as ends, store.leases.lease(f"unpack {record.name}") as lease:
        unpack_all(store, None, layers, lease, on_event, record.name, ends)
        ends.check()
        return store.images.put(
            record.name,
            record.target,
            manifest=record.manifest,
            config=record.config,
            lease=lease,
            layer=layers[-1].chain_id,
            pulled_by=record.pulled_by,
        )


def _layers(store: Store, record: ImageRecord) -> list[Layer]:
    manifest, config = held.image(store, record)
    manifest.check_runnable(record.name)
    config.check_layers(manifest, record.name)
    return stack_of(manifest, config)


def are_unpacked(store: Store, record: ImageRecord, layers: list[Layer]) -> bool:
    """Whether the trees of an image's layers are there, and the image holds them."""
    return not layers or (record.layer == layers[-1].chain_id and all(store.layers.get(one.chain_id) for one in layers))


def stack_of(manifest: Manifest, config: ImageConfig) -> list[Layer]:
    """The layers of an image, from the lowest up. The same blob may stand there more than once."""
    chain = chain_ids(list(config.diff_ids))
    parents: list[Digest | None] = [None, *chain]
    rows = zip(manifest.layers, config.diff_ids, chain, parents, strict=False)
    return [
        Layer(number=number, blob=blob, diff_id=diff_id, chain_id=chain_id, parent=parent)
        for number, (blob, diff_id, chain_id, parent) in enumerate(rows)
    ]


def unpack_all(
    store: Store,
    downloads: Downloads | None,
    layers: list[Layer],
    lease: Lease,
    on_event: events.OnEvent,
    subject: str,
    cancel: Cancel,
    workers: Workers | None = None,
) -> None:
    """Bring the bytes of all layers into the store, if `downloads` is there to fetch them, and commit their trees.

    cancel: is set by a failure, too. workers: default: some of its own, which end with `cancel`; others finish what they began.
    """
    lease.pin([layer.blob.digest for layer in layers], [layer.chain_id for layer in layers])
    for layer in layers:
        on_event(events.LayerKnown(layer.blob.digest, layer.blob.size))
    if not layers:
        return
    with ExitStack() as stack:
        if workers is None:
            from ocirt_images.apply.worker import Workers  # noqa: PLC0415  (with what reads layers: not for an image that is here)

            workers = stack.enter_context(Workers(min(len(layers), (os.cpu_count() or 1) + 1)))
            stack.callback(cancel.waker(workers.close))
        fetch = Fetch(store, downloads, workers, lease, on_event, subject, cancel)
        Commits(store, fetch, layers, AT_ONCE).run()
