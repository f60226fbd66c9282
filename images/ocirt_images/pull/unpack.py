"""The layers of an image into their trees: of one that is being pulled, or of one whose bytes are in the store already."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ocirt_images import events, held
from ocirt_images.cancel import Cancel
from ocirt_images.pull.stack import Layer, are_unpacked, stack_of

if TYPE_CHECKING:
    from ocirt_images.apply.worker import Workers
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
    # What fetches and applies layers is half of all that a pull loads: not for an image that is here.
    from ocirt_images.pull.commits import Commits  # noqa: PLC0415
    from ocirt_images.pull.layer import Fetch  # noqa: PLC0415

    with ExitStack() as stack:
        if workers is None:
            from ocirt_images.apply.worker import Workers  # noqa: PLC0415

            workers = stack.enter_context(Workers(min(len(layers), (os.cpu_count() or 1) + 1)))
            stack.callback(cancel.waker(workers.close))
        fetch = Fetch(store, downloads, workers, lease, on_event, subject, cancel)
        Commits(store, fetch, layers, AT_ONCE).run()
