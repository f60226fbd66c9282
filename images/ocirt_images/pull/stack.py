"""Where the layers of an image stand in it, and whether their trees are there: all that is asked of an image that is here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.digest import Digest, chain_ids

if TYPE_CHECKING:
    from ocirt_images.config import ImageConfig
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.manifest import Manifest
    from ocirt_images.store import ImageRecord, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Where a layer stands in its image. parent: the ChainID of the layer below."""

    number: int
    blob: Descriptor
    diff_id: Digest
    chain_id: Digest
    parent: Digest | None


def stack_of(manifest: Manifest, config: ImageConfig) -> list[Layer]:
    """The layers of an image, from the lowest up. The same blob may stand there more than once."""
    chain = chain_ids(list(config.diff_ids))
    parents: list[Digest | None] = [None, *chain]
    rows = zip(manifest.layers, config.diff_ids, chain, parents, strict=False)
    return [
        Layer(number=number, blob=blob, diff_id=diff_id, chain_id=chain_id, parent=parent)
        for number, (blob, diff_id, chain_id, parent) in enumerate(rows)
    ]


def are_unpacked(store: Store, record: ImageRecord, layers: list[Layer]) -> bool:
    """Whether the trees of an image's layers are there, and the image holds them."""
    return not layers or (record.layer == layers[-1].chain_id and all(store.layers.get(one.chain_id) for one in layers))
