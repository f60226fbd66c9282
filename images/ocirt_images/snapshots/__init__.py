"""Layers as root file systems: mounted by a backend, with or without a layer on top that can be written to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls
from ocirt_images.snapshots.backend import Backend, Upper, Usage
from ocirt_images.snapshots.copy import copy_layers
from ocirt_images.snapshots.overlay import Overlay
from ocirt_images.snapshots.writable import ANNOTATION, Owner, Writable, Writables

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["ANNOTATION", "Backend", "Overlay", "Owner", "Snapshots", "Upper", "Usage", "Writable", "Writables", "copy_layers"]


class Snapshots:
    """The snapshots of an image root. `layers` are directories, from the lowest up, as an image's configuration has them.

    root: the image root; backend: what mounts (default: overlayfs)
    """

    def __init__(self, root: Path, backend: Backend | None = None) -> None:
        self.writables = Writables(root / "writable")
        self.backend = backend or Overlay(root / "writable" / "empty")

    def create(self, owner: Owner, layers: Sequence[Path]) -> Writable:
        """A new writable layer for a mount of `layers`. Raises Error("exhausted"), OSError, with nothing left."""
        writable = self.writables.create(owner)
        try:
            self.backend.make(writable.upper, layers)
        except BaseException:
            writable.remove()
            raise
        return writable

    def mount(self, layers: Sequence[Path], writable: Writable | None = None, *, volatile: bool = False) -> int:
        """The layers as one tree, a detached mount's descriptor; read-only without `writable`. See Backend.mount."""
        return self.backend.mount(layers, writable.upper if writable else None, volatile=volatile)

    def usage(self, writable: Writable) -> Usage:
        """What was written to it so far."""
        return self.backend.usage(writable.upper)


def attach(mount: int, path: str | os.PathLike[str]) -> None:
    """Hang a detached mount over the directory `path`, in this process's mount namespace. Raises Error that names it."""
    try:
        calls.move_mount(mount, path)
    except calls.CallError as err:
        code = "not-found" if err.errno == errno.ENOENT else "kernel"
        raise Error(code, "nothing can be mounted there", subject=str(path), cause=err.strerror or "") from None


def detach(path: str | os.PathLike[str]) -> None:
    """Take away what is mounted at `path`. What uses it still has it. Raises OSError."""
    calls.unmount(path)
