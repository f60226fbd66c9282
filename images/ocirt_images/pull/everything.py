"""All that an index has, for every platform and its attestations too: into the store, not unpacked."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ocirt_images import events, held, mediatypes
from ocirt_images import manifest as manifests
from ocirt_images.errors import Error
from ocirt_images.manifest import Index, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.pull.download import Downloads
    from ocirt_images.store import Lease, Store

_AT_ONCE = 4  # blobs; each may have several connections


def is_here(store: Store, target: Descriptor) -> bool:
    """Whether all that `target` names is in the store. Raises Error("corrupt", "invalid") for what cannot be read."""

    def read(one: Descriptor) -> bytes:
        return store.content.read(one.digest)

    try:
        return not store.content.missing(_walk(target, read))
    except Error as err:
        if err.code == "not-found":
            return False
        raise


def bring(store: Store, downloads: Downloads, target: Descriptor, lease: Lease, on_event: events.OnEvent) -> None:
    """Fetch all manifests below `target`, which is in the store, and what they consist of, as far as it is not there.

    Raises what the registry client raises, Error("invalid") for indexes that are too deep, OSError.
    """

    def read(one: Descriptor) -> bytes:
        if store.content.has(one.digest):
            return store.content.read(one.digest)
        data = downloads.registry.manifest(downloads.reference, one)
        store.content.put(data, one.digest, lease)
        return data

    blobs = _walk(target, read)
    lease.pin(blobs)
    missing = [blobs[digest] for digest in store.content.missing(blobs)]
    for blob in missing:
        on_event(events.LayerKnown(blob.digest, blob.size))
    with ThreadPoolExecutor(_AT_ONCE, "everything") as threads:
        waiting = [threads.submit(fetch, store, downloads, blob, lease, on_event) for blob in missing]
        try:
            for one in wait(waiting, return_when=FIRST_EXCEPTION).done:
                one.result()
        except BaseException:
            downloads.cancel.set()
            for one in waiting:
                one.cancel()
            raise


def fetch(store: Store, downloads: Downloads, blob: Descriptor, lease: Lease, on_event: events.OnEvent = events.ignore) -> None:
    """One blob, if it is not there. Raises what the registry client raises."""

    def waiting(moved: int) -> None:
        downloads.cancel.check()
        on_event(events.LayerWaiting(blob.digest, moved))

    def attempt(avoid: Collection[str]) -> None:
        ingest = store.content.ingest(blob, lease, waiting=waiting)
        if ingest is None:
            on_event(events.LayerDone(blob.digest, "exists"))
            return
        with ingest:
            downloads.bring(blob, ingest, lambda: on_event(events.LayerProgress(blob.digest, ingest.received)), avoid)
        on_event(events.LayerDone(blob.digest))

    downloads.persist(attempt, lambda err: on_event(events.Retrying(blob.digest, str(err), 0)))


def _walk(target: Descriptor, read: Callable[[Descriptor], bytes]) -> dict[Digest, Descriptor]:
    """The configurations and layers of all manifests below `target`, each of which is asked for by `read`."""
    blobs: dict[Digest, Descriptor] = {}
    seen: set[Digest] = set()
    queue = [(target, 0)]
    while queue:
        described, depth = queue.pop(0)
        if described.digest in seen:
            continue
        seen.add(described.digest)
        found = manifests.read(read(described), described.media_type, str(described.digest))
        if isinstance(found, Manifest):
            blobs |= {one.digest: one for one in (found.config, *found.layers)}
        elif depth == held.DEEPEST:
            raise Error("invalid", f"more than {held.DEEPEST} indexes in one another", subject=str(described.digest))
        else:
            queue += [(one, depth + 1) for one in _known(found)]
    return blobs


def _known(index: Index) -> list[Descriptor]:
    return [one for one in index.manifests if one.media_type in mediatypes.KNOWN]
