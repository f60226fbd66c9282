"""The store: content by digest, images by name, layers by ChainID, leases.

Nothing gets a row before its data is on disk, and nothing on disk counts without a row; docs/store.md has the order of writes.
"""

from __future__ import annotations

from ocirt_images.store.content import Content
from ocirt_images.store.images import ImageRecord, Images
from ocirt_images.store.ingest import Ingest
from ocirt_images.store.layers import LayerRecord, Layers, Staged
from ocirt_images.store.leases import Lease, Leases
from ocirt_images.store.prune import Pruned, prune
from ocirt_images.store.references import Freed
from ocirt_images.store.store import Store
from ocirt_images.store.writables import WritableRecord, Writables

__all__ = (
    "Content",
    "Freed",
    "ImageRecord",
    "Images",
    "Ingest",
    "LayerRecord",
    "Layers",
    "Lease",
    "Leases",
    "Pruned",
    "Staged",
    "Store",
    "WritableRecord",
    "Writables",
    "prune",
)
