"""From a name to what there is to fetch: index, manifest, configuration, of which each comes into the store on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images import manifest as manifests
from ocirt_images import mediatypes, platforms
from ocirt_images.config import ImageConfig
from ocirt_images.errors import Error
from ocirt_images.pull.everything import fetch

if TYPE_CHECKING:
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.manifest import Index, Manifest
    from ocirt_images.platforms import Platform
    from ocirt_images.pull.download import Downloads
    from ocirt_images.registry.client import Resolved
    from ocirt_images.store import Lease, Store

_DEPTH = 4  # of indexes in indexes


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is pulled. digest: the manifest's."""

    digest: Digest
    manifest: Manifest
    config: ImageConfig


def choose(store: Store, downloads: Downloads, resolved: Resolved, platform: Platform, lease: Lease) -> Chosen:
    """Walk from what a name stands for to the manifest for a platform, and to its configuration.

    Raises Error("unsupported") for an artifact, for a layer of unknown type, for an image of another architecture, and with the
    platforms that there are if none fits.
    """
    subject = str(downloads.reference)
    descriptor, data = resolved.descriptor, resolved.data
    for _ in range(_DEPTH):
        found = manifests.read(data, descriptor.media_type, subject)
        if isinstance(found, manifests.Manifest):
            found.check_runnable(subject)
        store.content.put(data, descriptor.digest, lease)
        if isinstance(found, manifests.Manifest):
            config = _config(store, downloads, found, lease)
            config.check_platform(platform, subject)
            if descriptor is resolved.descriptor:
                _check_architecture(config, platform, subject)
            config.check_layers(found, subject)
            return Chosen(descriptor.digest, found, config)
        descriptor = _entry(found, platform, subject)
        if store.content.has(descriptor.digest):
            data = store.content.read(descriptor.digest)
        else:
            data = downloads.registry.manifest(downloads.reference, descriptor)
    raise Error("unsupported", f"an index in an index, {_DEPTH} deep", subject=subject)


def _entry(index: Index, platform: Platform, subject: str) -> Descriptor:
    """The entry of an index for a platform."""
    chosen = manifests.choose(index.manifests, platform)
    if chosen is not None:
        return chosen
    if not any(one.media_type in mediatypes.KNOWN for one in index.manifests):
        kind = f" ({index.artifact_type})" if index.artifact_type else ""
        raise Error("unsupported", f"an index without images{kind}", subject=subject, hint="it has nothing to run")
    offered = manifests.offered(index.manifests)
    there = f"there are: {offered}" if offered else "it has attestations only"
    raise Error("unsupported", f"no image for {platform}", subject=subject, hint=there)


def _check_architecture(config: ImageConfig, platform: Platform, subject: str) -> None:
    """For an image that is in no index, where nobody chose it for its platform."""
    own = config.platform
    if own.architecture and platforms.rank(own, platform) is None:
        hint = f"--platform {own} pulls it all the same"
        raise Error("unsupported", f"an image for {own}, not for {platform}", subject=subject, hint=hint)


def _config(store: Store, downloads: Downloads, manifest: Manifest, lease: Lease) -> ImageConfig:
    """The configuration, fetched if it is not there."""
    blob = manifest.config
    subject = f"{downloads.reference}: configuration {blob.digest.short}"
    if blob.size > manifests.LIMIT:
        raise Error("invalid", f"{blob.size} bytes", subject=subject, hint=f"{manifests.LIMIT} at most are read")
    fetch(store, downloads, blob, lease)
    return ImageConfig.read(store.content.read(blob.digest), subject)
