"""The interface of back ends, and what they share.

A back end keeps a volume in a folder of its own, `place`, which exists, belongs to root alone, and has nothing of another volume
in it. It keeps no state: what it has made is what it finds there. `remove` empties a place whatever is in it, so that half of a
`make` is undone by it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, mounts, trees
from ocirt_csi.kernel.mounts import Mount, origin
from ocirt_csi.model import Snapshot, Volume

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
DATA = "data"  # what a place holds, whatever the layout


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes: all, used, left for a user; inodes: all and used, 0 where they are not counted."""

    size: int
    used: int
    left: int
    inodes: int = 0
    inodes_used: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How a volume is mounted: attributes of the mount (`kernel.mounts`), and words for its file system."""

    read_only: bool = False
    attributes: int = 0
    words: tuple[str, ...] = ()


class Origin:
    """Where a pool lies in its file system, so that mounts of folders in it are known though the pool itself is away."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._device, self._inside = origin(root)

    def is_of(self, mount: Mount, path: str) -> bool:
        """Whether a mount is of a path below the root, which may have been deleted."""
        wanted = os.path.normpath(os.path.join(self._inside, os.path.relpath(path, self._root)))
        return (mount.device, mount.root.removesuffix("//deleted")) == (self._device, wanted)


class BackEnd(ABC):
    """One way to keep volumes. All of it raises OSError, and Error for what a person can do something about."""

    layout: str  # of its volumes
    least: int  # bytes of its smallest volume
    copies_in_use = True  # whether a copy is of one moment though somebody writes
    snapshots = True  # whether there can be any

    def is_copied_frozen(self, volume: Volume | Snapshot) -> bool:
        """Whether a copy is of one moment only while the volume's file system is held still (FIFREEZE)."""
        del volume
        return False

    @abstractmethod
    def charge(self, size: int, fs_type: str) -> int:
        """Bytes that a volume of a size may take of the pool, so that a user of it can fill `size`."""

    @abstractmethod
    def make(self, place: str, volume: Volume) -> None:
        """Make an empty volume."""

    @abstractmethod
    def copy(self, source: str, place: str, volume: Volume) -> None:
        """Make a volume that holds what the one in the place `source` does, or the snapshot there."""

    @abstractmethod
    def snapshot(self, source: str, place: str) -> None:
        """Keep what the volume in the place `source` holds now, in a place of its own, where nobody changes it."""

    @abstractmethod
    def grow(self, place: str, volume: Volume) -> None:
        """Give a volume its `target` for a size. What mounts it has to let its file system follow (`follow`)."""

    @abstractmethod
    def exclusive(self, place: str) -> int:
        """Bytes on disk that this place alone holds: what it does not share with snapshots and clones."""

    @abstractmethod
    def burden(self, place: str, *, snapshot: bool) -> int:
        """Bytes beside its charge that a copy of this place takes: at once, or because what is shared cannot be written over."""

    @abstractmethod
    def mount(self, place: str, volume: Volume, options: Options) -> int:
        """A mount of a volume, not in the tree yet, as a descriptor."""

    def bind(self, place: str, options: Options, why: str) -> int:
        """The same of a folder, bound, which takes no options of a file system: `why` says so. Raises Error("invalid")."""
        if options.words:
            raise Error("invalid", f"is an option of a file system, which {why}", subject=options.words[0])
        attributes = options.attributes | (mounts.READ_ONLY if options.read_only else 0)
        return mounts.clone(os.path.join(place, DATA), attributes)

    @abstractmethod
    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """Whether a mount is of this volume, by what the table of mounts says."""

    @abstractmethod
    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """What a volume that is mounted at `point` holds."""

    def follow(self, place: str, volume: Volume, point: str) -> None:  # noqa: B027  (most have nothing to do)
        """Let the file system that is mounted at `point` have all of its volume."""

    def modify(self, place: str, volume: Volume) -> None:  # noqa: B027  (most have nothing to do)
        """Let the `mutable` parameters of a volume take effect, as far as they are the back end's."""

    def device(self, place: str, volume: Volume, *, read_only: bool = False) -> str:
        """The block device of a volume."""
        raise Error("unsupported", f"a {self.layout} is no block device", subject=volume.id)

    def flush(self, place: str, volume: Volume) -> None:  # noqa: B027  (most have nothing to do)
        """Write what is on the way to the volume, before it is counted or copied."""

    def release(self, place: str, volume: Volume, *, read_only: bool | None = None) -> None:  # noqa: B027  (most have nothing to do)
        """Let go of what `mount` and `device` took; read_only: of one of the two devices only."""

    def remove(self, place: str) -> None:
        """Empty a place."""
        for name in os.listdir(place):
            path = os.path.join(place, name)
            if os.path.isdir(path) and not os.path.islink(path):
                trees.remove(path)
            else:
                sys.audit(calls.AUDIT, "remove")
                os.unlink(path)

    @contextlib.contextmanager
    def reading(self, place: str) -> Iterator[str]:
        """A path at which the bytes of a block volume or its snapshot can be read."""
        yield os.path.join(place, DATA)

    def note(self, place: str, thing: Volume | Snapshot) -> None:  # noqa: B027  (most have nothing to do)
        """Say at the data itself what it is, beside the note that its folder gets."""

    def mend(self, place: str, thing: Volume | Snapshot) -> None:  # noqa: B027  (most have nothing to do)
        """After a power cut: bring back what was done last, and may not have come to the disk."""

    def settle(self) -> None:  # noqa: B027  (most have nothing to do)
        """Wait until what was removed is free again."""

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """What is wrong with what a place holds; "" for nothing."""
        return "" if os.path.lexists(os.path.join(place, DATA)) else "its data is gone"
