"""The back end of btrfs: a subvolume for a volume, limited by its qgroup; snapshots and clones share all blocks."""

from __future__ import annotations

import os
import sys

from ocirt_csi.errors import Error
from ocirt_csi.kernel import btrfs, calls
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import SUBVOLUME, Snapshot, Volume
from ocirt_csi.parameters import COMPRESSION
from ocirt_csi.pools.base import DATA, MIB, BackEnd, Options, Origin, Usage

_MODE = 0o755  # of a volume's root, as mkfs has it


class Subvolumes(BackEnd):
    """Subvolumes of one file system. Raises Error("unsupported") for quotas that count for whoever wrote first."""

    layout = SUBVOLUME
    least = MIB

    def __init__(self, root: str) -> None:
        self._root = root
        self._origin = Origin(root)
        self._quotas = btrfs.Quotas(root)
        if self._quotas.mode == "squota":
            # A clone would be free to take its whole size again, and a volume be full of what only a snapshot holds.
            hint = "btrfs quota disable, and let ocirt-csi enable full ones"
            raise Error("unsupported", "has simple quotas, which do not limit clones", subject=root, hint=hint)
        self._quotas.repair()

    def charge(self, size: int, fs_type: str) -> int:
        """As it is: the limit counts a subvolume's own tree too."""
        return size

    def make(self, place: str, volume: Volume) -> None:
        """A subvolume under its limit before anybody sees it."""
        btrfs.create(place, DATA)
        data = os.path.join(place, DATA)
        self._quotas.limit(btrfs.number(data), volume.size)
        os.chmod(data, _MODE)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """A writable snapshot under its own limit."""
        btrfs.snapshot(os.path.join(source, DATA), place, DATA, read_only=False)
        self._quotas.limit(btrfs.number(os.path.join(place, DATA)), volume.size)

    def snapshot(self, source: str, place: str) -> None:
        """A snapshot that cannot be written. The kernel writes what is on its way first."""
        btrfs.snapshot(os.path.join(source, DATA), place, DATA, read_only=True)

    def grow(self, place: str, volume: Volume) -> None:
        """A larger limit, which counts at once. It comes to the disk some time later: `mend` sees to it."""
        self._quotas.limit(btrfs.number(os.path.join(place, DATA)), volume.target)

    def mend(self, place: str, thing: Volume | Snapshot) -> None:
        """The limit may be the one of before."""
        data = os.path.join(place, DATA)
        if isinstance(thing, Volume) and btrfs.is_subvolume(data):
            number = btrfs.number(data)
            if self._quotas.limit_of(number) != thing.size:
                self._quotas.limit(number, thing.size)

    def exclusive(self, place: str) -> int:
        """As the qgroup counts it, after a rescan if its numbers are off."""
        self._quotas.repair()
        try:
            return self._quotas.exclusive(btrfs.number(os.path.join(place, DATA)))
        except FileNotFoundError:
            return 0

    def burden(self, place: str, *, snapshot: bool) -> int:
        """All that it alone has will be shared."""
        return self.exclusive(place)

    def mount(self, place: str, volume: Volume, options: Options) -> int:
        """The subvolume itself, bound."""
        return self.bind(place, options, "volumes here share")

    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """By its place in the file system."""
        return self._origin.is_of(mount, os.path.join(place, DATA))

    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """The limit and what counts against it."""
        used = self._quotas.referenced(btrfs.number(os.path.join(place, DATA)))
        room = os.statvfs(self._root)
        return Usage(volume.size, used, max(0, min(volume.size - used, room.f_bavail * room.f_frsize)))

    def remove(self, place: str) -> None:
        """Subvolumes with those that a user made in them, their counters, and what else lies there."""
        for name in os.listdir(place):
            path = os.path.join(place, name)
            if btrfs.is_subvolume(path):
                for one in reversed(btrfs.nested(path)):
                    btrfs.destroy_numbered(place, one)
                    self._quotas.forget(one)
                number = btrfs.number(path)
                btrfs.destroy(place, name)
                self._quotas.forget(number)
        super().remove(place)

    def flush(self, place: str, volume: Volume) -> None:
        """All of it is counted only once it is on disk."""
        btrfs.commit(place)

    def settle(self) -> None:
        """Until the kernel has freed the blocks of subvolumes that are gone."""
        btrfs.settle(self._root)

    def modify(self, place: str, volume: Volume) -> None:
        """How what is written from now on is compressed."""
        wanted = volume.mutable.get(COMPRESSION)
        if wanted:
            sys.audit(calls.AUDIT, "setxattr")
            os.setxattr(os.path.join(place, DATA), "btrfs.compression", wanted.encode())

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """Whether the subvolume is there, and a volume under its limit with all that it holds."""
        data = os.path.join(place, DATA)
        if not btrfs.is_subvolume(data):
            return "its subvolume is gone"
        if isinstance(thing, Volume) and self._quotas.limit_of(btrfs.number(data)) != thing.size:
            return "its quota is not its size"
        count = len(btrfs.nested(data))
        return f"its quota does not limit the subvolumes that a user made in it: {count}" if count else ""
