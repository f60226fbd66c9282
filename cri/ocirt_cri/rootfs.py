"""The roots of containers: an image's layers below, a layer to write to above; and images as volumes.

What a container uses of an image is held by a row of the image store's own: its layers stay when the image is removed under it,
whoever else works with the store, and whether or not ocirtd runs. Rows and directories are made without waiting for the disk:
they need not survive a power cut, as a container does not. What one brings back `reconcile` removes.

The overlay itself is the shim's to make (`Root` says of what), where nobody else sees it.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import Upper
from ocirt_images.snapshots.tree import copy_attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from ocirt_cri.images.image import Image
    from ocirt_cri.images.images import Images
    from ocirt_images.digest import Digest
    from ocirt_images.store import WritableRecord

# As config.json has them: the first in the container, the first of the host, how many.
Mapping = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Root:
    """What an overlay is made of. lowers: the topmost first, never empty; upper, work: directories beside each other."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


@dataclass(frozen=True, slots=True)
class View:
    """An image to be read only. layer: its ChainID; lowers: the topmost first; the last is empty, as overlayfs wants two."""

    layer: Digest | None
    lowers: tuple[Path, ...]


class Roots:
    """The roots of one daemon's containers. instance: a word that other daemons with the same store do not have."""

    def __init__(self, images: Images, instance: str) -> None:
        self._images = images
        self._store = images.store
        self._prefix = f"ocirtd:{instance}:"

    async def create(
        self,
        container_id: str,
        image: Image,
        *,
        uids: Sequence[Mapping] = (),
        gids: Sequence[Mapping] = (),
        size: int = 0,
    ) -> Root:
        """A new one, which stays until `remove`.

        uids, gids: of the container's user namespace; its root then owns the root directory. size: what may be written, in bytes,
        where the file system can limit that; 0: as much as there is.
        Raises Error("exists", "not-found", "exhausted", "unsupported"), OSError, with nothing left.
        """
        image = await self._images.unpacked(image)
        return await asyncio.to_thread(self._create, container_id, image.layer, uids, gids, size)

    def _create(
        self, container_id: str, layer: Digest | None, uids: Sequence[Mapping], gids: Sequence[Mapping], size: int
    ) -> Root:
        record = self._store.writables.create(self._key(container_id), layer, durable=False, size=size)
        try:
            lowers = self._lowers(layer)
            if layer is not None:
                copy_attributes(lowers[0], record.path)
            if uids or gids:
                found = os.stat(record.path)
                os.chown(record.path, outside(found.st_uid, uids), outside(found.st_gid, gids))
        except BaseException:
            self._store.writables.delete(record.key, durable=False)
            raise
        return Root(lowers, record.path, record.work)

    async def get(self, container_id: str) -> Root | None:
        """The one of a container; None if there is none. Raises Error("not-found") if a layer of it was taken away."""
        return await asyncio.to_thread(self._get, container_id)

    def _get(self, container_id: str) -> Root | None:
        record = self._store.writables.get(self._key(container_id))
        return Root(self._lowers(record.chain_id), record.path, record.work) if record is not None else None

    async def view(self, container_id: str, number: int, image: Image) -> View:
        """An image as a volume of a container: its layers stay until the container's root is removed. number: of its mounts.

        Raises as `create` does; a second time for the same mount gives the same.
        """
        image = await self._images.unpacked(image)
        return await asyncio.to_thread(self._view, container_id, number, image.layer)

    def _view(self, container_id: str, number: int, layer: Digest | None) -> View:
        key = self._key(container_id, number)
        record = self._store.writables.get(key)
        if record is not None and record.chain_id != layer:
            self._store.writables.delete(key, durable=False)
            record = None
        if record is None:
            # For its row alone: it is what holds layers without a process that lives. Nobody writes into its directory.
            self._store.writables.create(key, layer, durable=False)
        return View(layer, self._lowers(layer))

    async def remove(self, container_id: str) -> None:
        """Remove a container's root with all that was written, and its views. It is no error if there is none. Raises OSError."""
        await asyncio.to_thread(self._remove, container_id)

    def _remove(self, container_id: str) -> None:
        key = self._key(container_id)
        with self._store.database.reading() as connection:
            # `;` follows `:`. By the index: a node has hundreds of others.
            said = "SELECT key FROM writables WHERE key = ? OR key BETWEEN ? AND ?"
            found = connection.execute(said, (key, f"{key}:", f"{key};")).fetchall()
        for (one,) in found:
            self._delete(one)

    async def reconcile(self, containers: Collection[str]) -> list[str]:
        """Remove the roots of this daemon's containers that are not among these; whose they were. Raises OSError."""
        return await asyncio.to_thread(self._reconcile, containers)

    def _reconcile(self, containers: Collection[str]) -> list[str]:
        gone: dict[str, None] = {}
        for record in self._own():
            owner = self._container(record.key)
            if owner not in containers:
                gone[owner] = None
                self._delete(record.key)
        return list(gone)

    async def views(self) -> dict[str, set[str]]:
        """The containers that have a view, by the name that `Volumes` gives its image."""
        found: dict[str, set[str]] = {}
        for record in await asyncio.to_thread(self._own):
            if ":" in record.key.removeprefix(self._prefix):
                found.setdefault(volume(record.chain_id), set()).add(self._container(record.key))
        return found

    def uppers(self) -> dict[str, Upper]:
        """What containers have written, by container: for who measures that."""
        return {
            self._container(record.key): Upper(record.path.parent)
            for record in self._own()
            if ":" not in record.key.removeprefix(self._prefix)
        }

    def _own(self) -> list[WritableRecord]:
        return [record for record in self._store.writables.list() if record.key.startswith(self._prefix)]

    def _delete(self, key: str) -> None:
        try:
            self._store.writables.delete(key, durable=False)
        except Error as err:
            if err.code != "not-found":
                raise

    def _key(self, container_id: str, view: int | None = None) -> str:
        return f"{self._prefix}{container_id}" + ("" if view is None else f":{view}")

    def _container(self, key: str) -> str:
        return key.removeprefix(self._prefix).partition(":")[0]

    def _lowers(self, layer: Digest | None) -> tuple[Path, ...]:
        chain = self._store.layers.chain(layer) if layer is not None else []
        return (*(record.path for record in reversed(chain)), self._store.layout.empty)


def volume(layer: Digest | None) -> str:
    """The name of an image as a volume: the digits of its ChainID; `empty` for one without layers."""
    return layer.encoded if layer is not None else "empty"


def outside(number: int, mappings: Sequence[Mapping]) -> int:
    """The host's number for one in a user namespace. Raises Error("invalid") for one that it does not have."""
    if not mappings:
        return number
    for inner, outer, count in mappings:
        if inner <= number < inner + count:
            return outer + number - inner
    raise Error("invalid", f"the image's root belongs to {number}, for which the pod's user namespace has no id")
