"""Images as volumes: mounted read-only, once for all containers that have the same one, for binds of it or of a part of it.

    STATE/volumes/HEX       where the image whose ChainID is HEX is mounted

A mount each for an image, not for a container: what hangs in the host's mount tree is paid for by every start. It is taken away
when the last container that has a view of it is removed. Its layers are held by `Roots.view`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING

from ocirt_cri.rootfs import volume
from ocirt_images.errors import Error
from ocirt_images.snapshots import Overlay, attach, calls, detach

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ocirt_cri.images.image import Image
    from ocirt_cri.rootfs import Roots, View

FAILED = "ImageVolumeMountFailed"  # how the kubelet has such errors begin
_IN_ROOT = calls.RESOLVE_IN_ROOT | calls.RESOLVE_NO_MAGICLINKS


class Volumes:
    """The images that are mounted. directory: of their mounts; users: what containers use, by directory's name."""

    def __init__(self, roots: Roots, directory: Path, empty: Path) -> None:
        """empty: a directory with nothing in it."""
        self._roots = roots
        self._directory = directory
        self._empty = empty
        self._backend = Overlay(empty)
        self._lock = threading.Lock()
        self._users: dict[str, set[str]] = {}

    async def mount(self, container_id: str, number: int, image: Image, sub_path: str = "") -> str:
        """The path of an image, or of what `sub_path` is in it, for a read-only bind into a container.

        number: of the container's mounts. A link in the image leads to what it means inside of the image.
        Raises Error("kernel", "invalid"), whose text begins with ImageVolumeMountFailed, OSError.
        """
        try:
            view = await self._roots.view(container_id, number, image)
            return await asyncio.to_thread(self._mount, container_id, view, sub_path)
        except Error as err:
            # Of UNKNOWN the kubelet reads the first word.
            raise Error("kernel", f"{FAILED}: {err}") from None

    def _mount(self, container_id: str, view: View, sub_path: str) -> str:
        if view.layer is None:
            # Nothing to mount, and a bind of a directory on the same file system would not be seen to be one.
            return _resolved(self._empty, sub_path)
        name = volume(view.layer)
        place = self._directory / name
        with self._lock:
            if not os.path.ismount(place):
                place.mkdir(0o700, parents=True, exist_ok=True)
                mount = self._backend.mount(view.lowers[-2::-1])  # it has an empty one of its own
                try:
                    attach(mount, place)
                finally:
                    os.close(mount)
            self._users.setdefault(name, set()).add(container_id)
        return _resolved(place, sub_path)

    async def release(self, container_id: str) -> None:
        """A container is gone, and needs none any more. Before its root is removed. Raises OSError."""
        await asyncio.to_thread(self._release, container_id)

    def _release(self, container_id: str) -> None:
        with self._lock:
            for name, users in list(self._users.items()):
                users.discard(container_id)
                if not users:
                    _take_away(self._directory / name)
                    del self._users[name]

    async def reconcile(self) -> list[str]:
        """At the start, after the roots': mounts of images that no container has a view of go. Their names. Raises OSError."""
        return await asyncio.to_thread(self._reconcile, await self._roots.views())

    def _reconcile(self, users: Mapping[str, set[str]]) -> list[str]:
        with self._lock:
            self._users = {name: set(found) for name, found in users.items() if found}
            there = os.listdir(self._directory) if self._directory.is_dir() else []
            gone = [name for name in there if name not in self._users]
            for name in gone:
                _take_away(self._directory / name)
            return gone


def _resolved(place: Path, sub_path: str) -> str:
    """The real path of `sub_path`, with the mount for its root: it is read-only, so it means the same when it is bound."""
    root = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = calls.open_beneath(root, sub_path.lstrip("/") or ".", os.O_PATH, _IN_ROOT)
    except calls.CallError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise Error("invalid", "the image has no such path", subject=f"image_sub_path {sub_path[:200]}") from None
        raise
    finally:
        os.close(root)
    try:
        return os.readlink(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def _take_away(place: Path) -> None:
    if os.path.ismount(place):
        detach(place)
    os.rmdir(place)
