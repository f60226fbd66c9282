"""What the store knows of an image, read together: for lists, `inspect` and `history`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images import held, mediatypes
from ocirt_images.digest import chain_ids
from ocirt_images.errors import Error
from ocirt_images.manifest import Index

if TYPE_CHECKING:
    from ocirt_images.config import ImageConfig
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.manifest import Manifest
    from ocirt_images.store import ImageRecord, Store

_ATTESTATION = "vnd.docker.reference.digest"  # the annotation by which buildkit says what an attestation is for


@dataclass(frozen=True, slots=True)
class Image:
    """An image with its manifest and configuration.

    size: bytes of its content, layers as they are transferred; unpacked: bytes of its layers on disk, None if they are not there
    """

    record: ImageRecord
    manifest: Manifest
    config: ImageConfig
    size: int
    unpacked: int | None

    @property
    def chain(self) -> list[Digest]:
        """The ChainIDs of its layers, from the lowest up."""
        return chain_ids(list(self.config.diff_ids))


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest below an index. here: whether all that it consists of is in the store; size: of that, in bytes."""

    descriptor: Descriptor
    here: bool
    size: int

    @property
    def kind(self) -> str:
        """In docker's words. An attestation is for no platform, and says which image it speaks of."""
        platform = self.descriptor.platform
        if platform is not None and not platform.nobody:
            return "image"
        return "attestation" if _ATTESTATION in self.descriptor.annotations else "unknown"


def parts(store: Store, target: Descriptor) -> list[Part]:
    """The manifests below an index, those of indexes in it among them; none for an image that has no index.

    Raises Error("corrupt", "invalid").
    """
    found: list[Part] = []
    queue = [(target, 0)]
    while queue:
        one, depth = queue.pop(0)
        content = held.read(store, one) if store.content.has(one.digest) else None
        if isinstance(content, Index):
            below = [child for child in content.manifests if child.media_type in mediatypes.KNOWN]
            queue += [(child, depth + 1) for child in below if depth < held.DEEPEST]
        elif depth and content is None:
            found.append(Part(one, False, one.size))
        elif depth and content is not None:
            blobs = (content.config, *content.layers)
            here = not store.content.missing(blob.digest for blob in blobs)
            found.append(Part(one, here, one.size + sum(blob.size for blob in blobs)))
    return found


def image(store: Store, record: ImageRecord) -> Image:
    """All of an image. Raises Error("not-found"), Error("corrupt") if content of it is missing or damaged."""
    found, config = held.image(store, record)
    size = store.content.size(record.manifest) + found.config.size + sum(layer.size for layer in found.layers)
    return Image(record, found, config, size, _unpacked(store, record))


def _unpacked(store: Store, record: ImageRecord) -> int | None:
    if record.layer is None:
        return None
    try:
        return sum(layer.size for layer in store.layers.chain(record.layer))
    except Error:
        return None
