"""Pull: what a name stands for, its manifests and configuration, then all layers at once, committed from the lowest up.

A layer's bytes go one way and are never all in memory: some connections write ranges of it into the store's ingest, a worker
process follows the file as it grows, inflates, and fills the layer's tree. A layer that somebody else fetches or unpacks at the
moment, in this process or another, is waited for, not made twice.

Nobody waits for somebody who may be waiting for him: a layer's bytes are asked for before its tree, and only `Commits` waits for
lower layers, of which it commits the lowest first.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ocirt_images import events, held, platforms
from ocirt_images.cancel import Cancel
from ocirt_images.pull.stack import are_unpacked, stack_of
from ocirt_images.pull.unpack import unpack, unpack_all

if TYPE_CHECKING:
    from ocirt_images.apply.worker import Workers
    from ocirt_images.digest import Digest
    from ocirt_images.platforms import Platform
    from ocirt_images.reference import Reference
    from ocirt_images.registry.client import Registry
    from ocirt_images.store import ImageRecord, Store
    from ocirt_images.trust.policy import Policy

__all__ = ("CONNECTIONS", "pull", "unpack")

CONNECTIONS = 3  # at once to one registry, as containerd and the CRI have it


def pull(
    store: Store,
    registry: Registry,
    reference: Reference,
    platform: Platform | None = None,
    on_event: events.OnEvent = events.ignore,
    *,
    workers: Workers | None = None,
    connections: int = CONNECTIONS,
    cancel: Cancel | None = None,
    pulled_by: str = "",
    policy: Policy | None = None,
    everything: bool = False,
) -> ImageRecord:
    """Bring an image into the store, unpacked, and give it the reference's name.

    platform: default: this machine's. workers: where layers are unpacked (default: some for this pull, one more than there are
    processors at most). cancel: a token that ends it from another thread, with Error("cancelled"). policy: decides
    whether the image is trusted, before anything of it comes into the store. everything: fetch what an index has for other
    platforms, too; it is not unpacked.
    What came stays for the next attempt, whatever happens. Raises Error, OSError.
    """
    platform = platform or platforms.host()
    with ExitStack() as stack:
        ends = stack.enter_context((cancel or Cancel()).within())
        client = stack.enter_context(registry.until(ends))
        resolved = client.resolve(reference, lambda digest: _held(store, digest))
        if policy is not None:
            policy.check(reference, resolved.descriptor, client)
        record = store.images.get(str(reference))
        same = record is not None and record.target.digest == resolved.descriptor.digest
        if record is not None and same and _whole(store, record, platform, everything=everything):
            on_event(events.Resolved(record.name, record.target.digest, str(platform), resolved.host))
            on_event(events.Done(record.name, record.target.digest, record.config))
            return record
        from ocirt_images.pull.download import Downloads  # noqa: PLC0415  (not for an image that is here)
        from ocirt_images.pull.manifests import choose  # noqa: PLC0415

        lease = stack.enter_context(store.leases.lease(f"pull {reference}"))
        downloads = stack.enter_context(Downloads(client, reference, connections, ends))
        lease.pin([resolved.descriptor.digest])
        chosen = choose(store, downloads, resolved, platform, lease)
        on_event(events.Resolved(str(reference), resolved.descriptor.digest, str(chosen.config.platform), resolved.host))
        layers = stack_of(chosen.manifest, chosen.config)
        unpack_all(store, downloads, layers, lease, on_event, str(reference), ends, workers)
        if everything:
            from ocirt_images.pull import everything as all_of_it  # noqa: PLC0415  (few ask for it)

            all_of_it.bring(store, downloads, resolved.descriptor, lease, on_event)
        ends.check()
        record = store.images.put(
            str(reference),
            resolved.descriptor,
            manifest=chosen.digest,
            config=chosen.manifest.config.digest,
            lease=lease,
            layer=layers[-1].chain_id if layers else None,
            pulled_by=pulled_by,
        )
    on_event(events.Done(record.name, record.target.digest, record.config))
    return record


def _held(store: Store, digest: Digest) -> bytes | None:
    """A manifest that is in the store."""
    return store.content.read(digest) if store.content.has(digest) else None


def _whole(store: Store, record: ImageRecord, platform: Platform, *, everything: bool) -> bool:
    """Whether all of an image is there, unpacked, for this platform; and the rest of its index, if that is wanted."""
    if store.content.missing((record.manifest, record.config)):
        return False
    manifest, config = held.image(store, record)
    layers = stack_of(manifest, config)
    fits = platforms.rank(config.platform, platform) is not None
    if not fits or store.content.missing(one.blob.digest for one in layers) or not are_unpacked(store, record, layers):
        return False
    if not everything:
        return True
    from ocirt_images.pull.everything import is_here  # noqa: PLC0415  (few ask for it)

    return is_here(store, record.target)
