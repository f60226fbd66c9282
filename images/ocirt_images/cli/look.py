"""What the store knows of an image, read together: for lists, `inspect` and `history`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images import held
from ocirt_images.digest import chain_ids
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from ocirt_images.config import ImageConfig
    from ocirt_images.digest import Digest
    from ocirt_images.manifest import Manifest
    from ocirt_images.store import ImageRecord, Store


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
