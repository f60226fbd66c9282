"""Images as they are in the store: read from there, an index perhaps with the manifests for some platforms only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images import manifest
from ocirt_images.config import ImageConfig
from ocirt_images.errors import Error
from ocirt_images.manifest import Index, Manifest

if TYPE_CHECKING:
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.platforms import Platform
    from ocirt_images.store import ImageRecord, Store

DEEPEST = 8  # indexes in indexes


def read(store: Store, described: Descriptor) -> Manifest | Index:
    """A manifest or index from the store. Raises Error("not-found", "corrupt", "invalid")."""
    return manifest.read(store.content.read(described.digest), described.media_type, str(described.digest))


def image(store: Store, record: ImageRecord) -> tuple[Manifest, ImageConfig]:
    """The manifest that was chosen for this platform, and its configuration. Raises Error("not-found", "corrupt", "invalid")."""
    found = manifest.read(store.content.read(record.manifest), "", str(record.manifest))
    if not isinstance(found, Manifest):
        raise Error("corrupt", "an index where a manifest is wanted", subject=record.name)
    return found, ImageConfig.read(store.content.read(record.config), str(record.config))


def narrowed(store: Store, target: Descriptor, wanted: Platform) -> Descriptor:
    """The manifest for a platform. Raises Error("not-found")."""
    for _ in range(DEEPEST):
        found = read(store, target)
        if isinstance(found, Manifest):
            return target
        child = manifest.choose(found.manifests, wanted)
        if child is None or not store.content.has(child.digest):
            hint = f"pull it for that platform: ocirt pull --platform {wanted}"
            raise Error("not-found", f"nothing for {wanted} is here", subject=str(target.digest), hint=hint)
        target = child
    raise Error("invalid", f"more than {DEEPEST} indexes in one another", subject=str(target.digest))
