"""What a snapshot backend does, and the values that go in and out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Usage:
    """What a tree takes of its file system: bytes on disk (blocks, not lengths) and inodes, directories among them.

    inodes: None where the file system counts the bytes and not the inodes (btrfs)
    """

    size: int
    inodes: int | None


@dataclass(frozen=True, slots=True)
class Upper:
    """Where a backend keeps what a container writes: `fs`, and `work` for its own use, both in `path` and on one file system."""

    path: Path

    @property
    def fs(self) -> Path:
        """What was written, as the backend keeps it."""
        return self.path / "fs"

    @property
    def work(self) -> Path:
        """overlayfs' own (and nobody else's)."""
        return self.path / "work"


class Backend(Protocol):
    """Layers as one tree. A layer is a directory; `layers` go from the lowest up, as in an image's configuration.

    overlayfs is the first. One of erofs would take images of layers for directories, one of btrfs would make a subvolume of the
    layers once, and a snapshot of it for each `Upper`.
    """

    name: str

    def prepare(self, upper: Upper, layers: Sequence[Path]) -> None:
        """Make ready the directories of `upper`, which are there and empty: the image's root has attributes. Raises OSError."""

    def mount(self, layers: Sequence[Path], upper: Upper | None = None, *, volatile: bool = False) -> int:
        """A detached mount of the tree, as a descriptor; read-only without `upper`.

        The descriptor is an O_PATH one: open "." below it to list it, give it to a container's init, or to `attach`. Nothing
        hangs in any mount tree, and when the last descriptor is closed the mount is gone.
        volatile: never sync what is written. The upper directory can then not be mounted again.
        Raises Error("unsupported") where the kernel or the caller's rights do not allow it, Error("not-found") for a layer that
        is not there, Error("invalid"), OSError.
        """

    def usage(self, upper: Upper) -> Usage:
        """What was written; of an upper directory with a limit, as its file system counts it. Raises OSError."""
