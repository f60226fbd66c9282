"""Layers as one tree, looked at as overlayfs would show them: whiteouts, opaque directories and symlinks included.

Nothing is mounted, and no system call follows a symlink: a path is looked up name by name in the directories of all layers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt_images.apply import libc
from ocirt_images.apply.names import Malformed, shown
from ocirt_images.apply.owners import opaque_name
from ocirt_images.apply.tree import is_whiteout

_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Found:
    """Something in the merged tree: its path without symlinks, the layer that it is in (0 is the uppermost), its status.

    For a directory `layers` are all that it comes from, and its attributes are those of the first.
    """

    path: bytes
    layer: int
    status: os.stat_result
    layers: tuple[int, ...]


class Merged:
    """`roots` are descriptors of the layers' directories, from the uppermost down; `xattrs` is "trusted" or "user"."""

    def __init__(self, roots: list[int], xattrs: str) -> None:
        self._roots = roots
        self._opaque = opaque_name(xattrs)
        self.top = Found(b"", 0, os.fstat(roots[0]), tuple(self._visible(b"", range(len(roots)))))

    def child(self, directory: Found, name: bytes) -> Found | None:
        """What a directory has under a name."""
        path = directory.path + b"/" + name if directory.path else name
        found: Found | None = None
        layers = []
        for layer in directory.layers:
            with self.opened(layer, directory.path) as fd:
                try:
                    status = os.lstat(name, dir_fd=fd)
                except FileNotFoundError:
                    continue
            is_directory = stat.S_ISDIR(status.st_mode)
            if found is None:
                if is_whiteout(status):
                    return None
                found = Found(path, layer, status, (layer,))
                if not is_directory:
                    return found
            elif not is_directory:
                break  # whatever it is, it ends what the directory shows
            layers.append(layer)
        if found is None:
            return None
        return Found(path, found.layer, found.status, tuple(self._visible(path, layers)))

    def walk(self, path: bytes, *, follow: bool) -> Found | None:
        """What is at a path, as a process whose root this is would find it; None for nothing.

        Symlinks on the way are followed, and the last name's with `follow`. Raises Malformed for a loop.
        """
        todo = [part for part in reversed(path.split(b"/")) if part]
        trail = [self.top]
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            if not stat.S_ISDIR(trail[-1].status.st_mode):
                return None
            found = self.child(trail[-1], name)
            if found is None:
                return None
            if stat.S_ISLNK(found.status.st_mode) and (todo or follow):
                links += 1
                if links > _MOST_LINKS:
                    raise Malformed(f"{shown(path)}: too many symlinks on the way")
                target = self.readlink(found)
                if target.startswith(b"/"):
                    del trail[1:]
                todo += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
                continue
            trail.append(found)
        return trail[-1]

    def below(self, path: bytes) -> Found | None:
        """What the layers below the uppermost show at a path, whose parents are directories of the uppermost."""
        if not path:
            return Found(b"", 1, os.fstat(self._roots[1]), (1,)) if len(self._roots) > 1 else None
        parent, _, name = path.rpartition(b"/")
        directory = self.walk(parent, follow=False)
        if directory is None or len(directory.layers) < 2 or directory.layer:
            return None
        layers = directory.layers[1:]
        with self.opened(layers[0], parent) as fd:
            lower = Found(parent, layers[0], os.fstat(fd), layers)
        return self.child(lower, name)

    def readlink(self, found: Found) -> bytes:
        """The target of a symlink."""
        parent, _, name = found.path.rpartition(b"/")
        with self.opened(found.layer, parent) as fd:
            return os.readlink(name, dir_fd=fd)

    @contextmanager
    def opened(self, layer: int, path: bytes) -> Iterator[int]:
        """A descriptor of a layer's directory."""
        fd = libc.open_directory(self._roots[layer], path)
        try:
            yield fd
        finally:
            os.close(fd)

    def _visible(self, path: bytes, layers: list[int] | range) -> Iterator[int]:
        """The layers down to the first in which the directory is opaque."""
        for layer in layers:
            yield layer
            with self.opened(layer, path) as fd:
                if _is_opaque(fd, self._opaque):
                    return


def _is_opaque(fd: int, name: str) -> bool:
    try:
        return os.getxattr(fd, name) == b"y"
    except OSError as err:
        if err.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
