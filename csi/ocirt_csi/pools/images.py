"""The back end for any file system: a file of a fixed size on a loop device, as a block volume or with a file system in it.

All blocks of a file are its own from the start, unless the pool promises more than it has. Snapshots and clones share blocks
where the file system can do that, and are copies without the holes elsewhere.
"""

from __future__ import annotations

import os
import struct
import sys

from ocirt_csi.kernel import calls, extents, filesystems, loops
from ocirt_csi.model import IMAGE, Snapshot, Volume
from ocirt_csi.pools.base import DATA
from ocirt_csi.pools.devices import Devices, lay_out, set_apart

_NO_COW, _GET_FLAGS, _SET_FLAGS = 0x800000, 0x80086601, 0x40086602  # FS_NOCOW_FL, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS

# File systems whose log has all changes in the order in which they were made: which blocks a file has is on disk with its note.
_IN_ORDER = ("ext4", "xfs")


class Images(Devices):
    """Images in the pool with this mark on their loop devices. thin: they get their blocks when they are written."""

    layout = IMAGE

    def __init__(self, mark: str, *, thin: bool = False, shares: bool = False, file_system: str = "") -> None:
        """shares: the file system lets files share blocks."""
        self._mark = mark
        self._devices = loops.Marked(mark + ":")
        self._shares = shares
        self._thin = thin
        self._on_btrfs = file_system == "btrfs"
        self._in_order = file_system in _IN_ORDER

    def is_copied_frozen(self, volume: Volume | Snapshot) -> bool:
        """A file is copied as it is."""
        return not volume.block

    def make(self, place: str, volume: Volume) -> None:
        """A file with all its blocks, and the file system in it."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd:
            self._stretch(fd, 0, volume.charge)
            if volume.fs_type:
                lay_out(fd, path, volume)
            elif not self._in_order:
                os.fsync(fd)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """A file that shares its blocks or has copies of them. Its file system grows when it is mounted."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd, calls.opened(os.path.join(source, DATA), os.O_RDONLY) as old:
            length = os.fstat(old).st_size
            shared = extents.clone(old, fd)
            self._stretch(fd, length if shared else 0, volume.charge)
            if not shared:
                extents.copy(old, fd, length)
            if not (shared and self._in_order):
                os.fsync(fd)
        set_apart(path, volume.fs_type)

    def snapshot(self, source: str, place: str) -> None:
        """A file that shares its blocks, or has copies of those with data."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd, calls.opened(os.path.join(source, DATA), os.O_RDONLY) as old:
            length = os.fstat(old).st_size
            os.ftruncate(fd, length)
            shared = extents.clone(old, fd)
            if not shared:
                extents.copy(old, fd, length)
            if not (shared and self._in_order):
                os.fsync(fd)
        os.chmod(path, 0o400)

    def grow(self, place: str, volume: Volume) -> None:
        """A longer file, and a loop device that knows it. It comes to the disk some time later: `mend` sees to it."""
        with calls.opened(os.path.join(place, DATA), os.O_RDWR) as fd:
            self._stretch(fd, os.fstat(fd).st_size, self.charge(volume.target, volume.fs_type))
        for read_only in (False, True):
            device = self._devices.find(self._name(place, read_only=read_only))
            if device:
                loops.resize(device)

    def mend(self, place: str, thing: Volume | Snapshot) -> None:
        """The file may be as long as it was before."""
        if isinstance(thing, Volume) and os.path.exists(os.path.join(place, DATA)):
            with calls.opened(os.path.join(place, DATA), os.O_RDWR) as fd:
                self._stretch(fd, os.fstat(fd).st_size, thing.charge)

    def exclusive(self, place: str) -> int:
        """As the file's extents say."""
        try:
            return extents.exclusive(os.path.join(place, DATA))
        except FileNotFoundError:
            return 0

    def burden(self, place: str, *, snapshot: bool) -> int:
        """What it alone has will be shared; or a snapshot is a copy of its data, and a clone has its charge anyway."""
        if self._shares:
            return self.exclusive(place)
        return extents.amount(os.path.join(place, DATA)) if snapshot else 0

    def device(self, place: str, volume: Volume, *, read_only: bool = False) -> str:
        """The loop device of a place; one that cannot be written is another."""
        return self._devices.attach(os.path.join(place, DATA), self._name(place, read_only=read_only), read_only=read_only)

    def attached(self, place: str) -> list[str | None]:
        """Its loop devices."""
        return [self._devices.find(self._name(place, read_only=read_only)) for read_only in (False, True)]

    def flush(self, place: str, volume: Volume) -> None:
        """What the loop device's own cache holds; whose blocks are whose is sure only once all is on disk."""
        device = self._devices.find(self._name(place))
        if device:
            loops.flush(device)
        filesystems.sync(place)

    def release(self, place: str, volume: Volume, *, read_only: bool | None = None) -> None:
        """Detach the loop devices of a place."""
        for one in (False, True):
            device = self._devices.find(self._name(place, read_only=one)) if read_only in (None, one) else None
            if device:
                loops.detach(device)

    def remove(self, place: str) -> None:
        """The file, after its loop devices."""
        for read_only in (False, True):
            device = self._devices.find(self._name(place, read_only=read_only))
            if device:
                loops.detach(device)
        super().remove(place)

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """Whether the file is there, and as long as it was made."""
        try:
            length = os.lstat(os.path.join(place, DATA)).st_size
        except FileNotFoundError:
            return "its image is gone"
        return "its image is shorter than it was made" if isinstance(thing, Volume) and length < thing.charge else ""

    def marks(self) -> dict[str, str]:
        """Places by loop devices of this pool."""
        found = loops.all_marked(self._mark + ":")
        return {device: mark.removeprefix(self._mark + ":").removesuffix(":ro") for mark, device in found.items()}

    def _name(self, place: str, *, read_only: bool = False) -> str:
        return f"{self._mark}:{os.path.basename(place)}" + (":ro" if read_only else "")

    def _new(self, path: str) -> _File:
        return _File(path, no_cow=self._on_btrfs)

    def _stretch(self, fd: int, start: int, end: int) -> None:
        if end <= start:
            return
        if self._thin:
            sys.audit(calls.AUDIT, "ftruncate")
            os.ftruncate(fd, end)
        else:
            calls.allocate(fd, start, end - start)


class _File:
    """A new file as a descriptor, which is closed at the end of a `with`."""

    def __init__(self, path: str, *, no_cow: bool) -> None:
        sys.audit(calls.AUDIT, "creat")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if no_cow:  # else each write in the image would scatter it, and need space elsewhere first
            flags = struct.unpack("=q", calls.ioctl(self._fd, "FS_IOC_GETFLAGS", _GET_FLAGS, bytes(8)))[0]
            calls.ioctl(self._fd, "FS_IOC_SETFLAGS", _SET_FLAGS, struct.pack("=q", flags | _NO_COW))

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
