"""An image in memory: all names of one configuration together, as little of each as lists of images need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.images import names
from ocirt_images import held
from ocirt_images.pull.stack import stack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_images.digest import Digest
    from ocirt_images.store import ImageRecord, Store

_MOST = (1 << 32) - 2  # the largest user's number


@dataclass(frozen=True, slots=True)
class Details:
    """What is read from an image's manifest and configuration. size: on disk: blobs and unpacked layers. user: its USER."""

    size: int
    user: str
    layers: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image. id: `sha256:` and the digest of its configuration; records: its names, in order; layer: its topmost layer.

    layer is None for an image without layers, and for one that is not unpacked yet (`layers` tells)
    """

    id: str
    records: tuple[ImageRecord, ...]
    layer: Digest | None
    layers: int
    message: cri.Image

    @property
    def is_unpacked(self) -> bool:
        """Whether containers can be made of it as it is."""
        return self.layer is not None or not self.layers

    @property
    def names(self) -> list[str]:
        """The names that it is kept by."""
        return [record.name for record in self.records]


def details(store: Store, record: ImageRecord) -> Details:
    """Read an image's manifest and configuration. Raises Error("not-found", "corrupt", "invalid")."""
    manifest, config = held.image(store, record)
    content = {record.target.digest: record.target.size, record.manifest: store.content.size(record.manifest)}
    content |= {blob.digest: blob.size for blob in (manifest.config, *manifest.layers)}
    unpacked = 0
    if record.layer is not None:
        found = (store.layers.get(layer.chain_id) for layer in stack_of(manifest, config))
        unpacked = sum(one.size for one in found if one is not None)
    return Details(sum(content.values()) + unpacked, config.user, len(manifest.layers))


def build(records: Sequence[ImageRecord], found: Details, *, pinned: bool) -> Image:
    """One image of all records that have its configuration."""
    tags: list[str] = []
    digests: list[str] = []
    for record in records:
        reference = names.stored(record.name)
        if reference is not None:
            if reference.tag and reference.digest is None:
                tags.append(record.name)
            digests.append(f"{reference.name}@{record.target.digest}")
    message = cri.Image(
        id=str(records[0].config),
        repo_tags=sorted(tags),
        repo_digests=sorted(set(digests)),
        size=found.size,
        pinned=pinned,
    )
    uid, name = user(found.user)
    if uid is not None:
        message.uid.value = uid
    message.username = name
    layer = next((record.layer for record in records if record.layer is not None), None)
    return Image(message.id, tuple(records), layer, found.layers, message)


def user(text: str) -> tuple[int | None, str]:
    """Number or name in an image's USER; the group is left out. Nobody is named: it is root."""
    name = text.partition(":")[0]
    if not name:
        return 0, ""
    if name.isascii() and name.isdecimal() and len(name) <= 10 and int(name) <= _MOST:
        return int(name), ""
    return None, name
