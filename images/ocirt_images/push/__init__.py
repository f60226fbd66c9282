"""Push: what an image consists of, its blobs several at once, then its manifests, from the lowest up.

A registry is asked for each thing first, and only what is missing is sent; what another of its repositories has is mounted from
there. All bytes go as they are kept: digests do not change on the way.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ocirt_images import events, held
from ocirt_images.cancel import Cancel
from ocirt_images.errors import Error
from ocirt_images.manifest import Manifest
from ocirt_images.push import contents
from ocirt_images.push.blobs import Blobs
from ocirt_images.push.sources import sources
from ocirt_images.registry import fallback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.manifest import Index
    from ocirt_images.platforms import Platform
    from ocirt_images.push.contents import Contents
    from ocirt_images.reference import Reference
    from ocirt_images.registry.client import Registry
    from ocirt_images.registry.destination import Destination
    from ocirt_images.store import ImageRecord, Store

__all__ = ("CONNECTIONS", "push")

CONNECTIONS = 3  # at once to one registry


def push(
    store: Store,
    registry: Registry,
    record: ImageRecord,
    reference: Reference,
    platform: Platform | None = None,
    on_event: events.OnEvent = events.ignore,
    *,
    cancel: Cancel | None = None,
    connections: int = CONNECTIONS,
) -> Digest:
    """Send an image to where `reference` says. The digest that it has there.

    platform: send the manifest for this platform alone; else an index is sent as it is, with all manifests that are here
    cancel: a token that ends it from another thread, with Error("cancelled"). Uploads under way are given up at the registry.
    Raises Error("not-found") for an image that is not here whole, Error("invalid") if `reference` has another digest than what
    would be sent, and what the registry client raises; OSError.
    """
    target = record.target if platform is None else held.narrowed(store, record.target, platform)
    if reference.digest not in (None, target.digest):
        hint = "give the reference without a digest"
        raise Error("invalid", f"the image has the digest {target.digest}", subject=str(reference), hint=hint)
    with store.leases.lease(f"push {reference}") as lease:
        lease.pin([target.digest])
        found = contents.of(store, target)
        lease.pin([*found.blobs, *found.manifests])
        with (cancel or Cancel()).within() as ends, registry.until(ends) as client, _about(reference):
            destination = client.destination(reference, registry.session)
            shown = "" if platform is None else str(platform)
            on_event(events.Resolved(str(reference), target.digest, shown, destination.host.name))
            for layer in found.layers.values():
                on_event(events.LayerKnown(layer.digest, layer.size))
            blobs = Blobs(store, destination, sources(store, reference, found.blobs), ends, on_event)
            blobs.send(found.layers.values(), found.configs.values(), connections)
            _send_manifests(store, destination, reference, found)
    on_event(events.Done(str(reference), target.digest, _image_id(found, record)))
    return target.digest


def _send_manifests(store: Store, destination: Destination, reference: Reference, found: Contents) -> None:
    """All manifests; the last one gets the tag."""
    last = next(reversed(found.manifests))
    for digest, (described, manifest) in found.manifests.items():
        tag = reference.tag if digest == last else ""
        if manifest.subject is None:
            there = destination.before if digest == last else destination.digest_of(digest)
            if there == digest:
                continue
        data = store.content.read(digest)
        with _explained(found if digest == last else None):
            noted = destination.put_manifest(data, manifest.media_type, digest, tag)
        if manifest.subject is not None and not noted:
            fallback.note(destination, manifest.subject.digest, _referrer(described, manifest))


def _referrer(described: Descriptor, manifest: Manifest | Index) -> Descriptor:
    """What a list of referrers says of a manifest (distribution-spec, "Listing Referrers")."""
    kind = manifest.artifact_type or (manifest.config.media_type if isinstance(manifest, Manifest) else "")
    return replace(
        described,
        media_type=manifest.media_type,
        artifact_type=kind,
        annotations=manifest.annotations,
        platform=None,
        urls=(),
    )


def _image_id(found: Contents, record: ImageRecord) -> Digest:
    """The ID of what was sent: of an index that of this machine's image, if it is among it."""
    return record.config if record.config in found.configs else next(iter(found.configs), record.config)


@contextmanager
def _explained(found: Contents | None) -> Iterator[None]:
    """Most registries do not take an index of which they do not have all."""
    try:
        yield
    except Error as err:
        if found is None or not found.absent or err.code not in ("invalid", "not-found"):
            raise
        named = ", ".join(sorted({str(one.platform or one.digest.short) for one in found.absent}))
        hint = f"not here: {named}. `ocirt pull --all-platforms` brings them; --platform pushes one alone"
        raise Error(err.code, err.message, subject=err.subject, cause=err.cause, hint=hint) from None


@contextmanager
def _about(reference: Reference) -> Iterator[None]:
    """Errors name what was to be pushed."""
    try:
        yield
    except Error as err:
        if err.subject.startswith(reference.name):
            raise
        cause = err.cause
        message = f"{err.subject}: {err.message}" if err.subject else err.message
        raise Error(err.code, message, subject=str(reference), cause=cause, hint=err.hint) from err.__cause__
