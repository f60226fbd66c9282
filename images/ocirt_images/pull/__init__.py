"""Pull: what a name stands for, its manifests and configuration, then all layers at once, committed from the lowest up.

A layer's bytes go one way and are never all in memory: some connections write ranges of it into the store's ingest, a worker
process follows the file as it grows, inflates, and fills the layer's tree. A layer that somebody else fetches or unpacks at the
moment, in this process or another, is waited for, not made twice.

Nobody waits for somebody who may be waiting for him: a layer's bytes are asked for before its tree, and only `_commit` waits for
lower layers, of which it commits the lowest first.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ocirt_images import events, platforms
from ocirt_images.apply import Workers, settle
from ocirt_images.cancel import Cancel
from ocirt_images.config import ImageConfig
from ocirt_images.digest import chain_ids
from ocirt_images.errors import Error
from ocirt_images.pull.download import Downloads
from ocirt_images.pull.layer import Fetch, Layer, Unpacked
from ocirt_images.pull.manifests import Walk

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_images.digest import Digest
    from ocirt_images.platforms import Platform
    from ocirt_images.reference import Reference
    from ocirt_images.registry import Registry
    from ocirt_images.store import ImageRecord, Store
    from ocirt_images.trust import Policy

CONNECTIONS = 3  # at once to one registry, as containerd and the CRI have it
