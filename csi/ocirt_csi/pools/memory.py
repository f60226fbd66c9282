"""The back end of tmpfs: for a volume a tmpfs of its own, mounted in the pool, which is in memory too. A reboot ends them.

Snapshots are copies in the pool, of volumes that are not in use, as what is written meanwhile cannot be held.
"""

from __future__ import annotations

import os

from ocirt_csi.errors import Error
from ocirt_csi.kernel import mounts
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import MEMORY, Snapshot, Volume
from ocirt_csi.pools import copies
from ocirt_csi.pools.base import DATA, MIB, BackEnd, Options, Usage

_SOURCE = "ocirt-csi"  # what /proc/mounts says of them
_MODE = "0755"


class Memory(BackEnd):
    """Volumes in memory. What the pool's own tmpfs may hold is what they may have in all."""

    layout = MEMORY
    least = MIB
    copies_in_use = False

    def charge(self, size: int, fs_type: str) -> int:
        """As it is."""
        return size

    def make(self, place: str, volume: Volume) -> None:
        """A tmpfs of that size."""
        data = os.path.join(place, DATA)
        os.mkdir(data, 0o700)
        mount = mounts.new("tmpfs", _SOURCE, [f"size={volume.size}", f"mode={_MODE}"])
        try:
            target = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                mounts.put(mount, target)
            finally:
                os.close(target)
        finally:
            os.close(mount)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """The same, with copies of all files."""
        self.make(place, volume)
        copies.copy(source, place)

    def snapshot(self, source: str, place: str) -> None:
        """A folder of the pool."""
        os.mkdir(os.path.join(place, DATA), 0o700)
        copies.copy(source, place)

    def grow(self, place: str, volume: Volume) -> None:
        """A larger tmpfs, at once."""
        mounts.change(os.path.join(place, DATA), [f"size={volume.target}"])

    def exclusive(self, place: str) -> int:
        """Nothing of the pool's own."""
        return 0

    def burden(self, place: str, *, snapshot: bool) -> int:
        """What the volume holds is what a snapshot takes of the pool."""
        if not snapshot:
            return 0
        found = os.statvfs(os.path.join(place, DATA))
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def mount(self, place: str, volume: Volume, options: Options) -> int:
        """Its tmpfs once more."""
        if options.words:
            raise Error("invalid", "is an option of a file system, which a volume in memory has not", subject=options.words[0])
        if not mounts.at(os.path.join(place, DATA)):
            raise Error("corrupt", "its memory is gone", subject=volume.id, hint="a reboot ends volumes in memory")
        attributes = options.attributes | (mounts.READ_ONLY if options.read_only else 0)
        return mounts.clone(os.path.join(place, DATA), attributes)

    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """Each tmpfs has a device number of its own."""
        return any((one.device, one.root) == (mount.device, mount.root) for one in mounts.at(os.path.join(place, DATA)))

    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """As the tmpfs says."""
        found = os.statvfs(point)
        size, left = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        return Usage(size, size - left, left, found.f_files, found.f_files - found.f_ffree)

    def remove(self, place: str) -> None:
        """The tmpfs, then what lies below it."""
        while mounts.take_away(os.path.join(place, DATA)):
            continue
        super().remove(place)

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """Whether the tmpfs is there."""
        if isinstance(thing, Volume) and not mounts.at(os.path.join(place, DATA)):
            return "its memory is gone"
        return super().damage(place, thing)
