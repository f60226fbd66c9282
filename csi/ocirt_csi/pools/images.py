"""The back end for any file system: a file of a fixed size on a loop device, as a block volume or with ext4 or xfs in it.

All blocks of a file are its own from the start, unless the pool promises more than it has. Snapshots and clones share blocks
where the file system can do that, and are copies without the holes elsewhere.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys

from ocirt_csi.errors import Error, RangeError
from ocirt_csi.kernel import calls, extents, filesystems, loops, mounts
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import IMAGE, Snapshot, Volume
from ocirt_csi.pools.base import DATA, GIB, KIB, MIB, BackEnd, Options, Usage

DEFAULT = "ext4"
# What makes each file system, and bytes of the smallest volume with it.
_PROGRAMS: dict[str, tuple[tuple[str, ...], int]] = {
    "ext4": (("mkfs.ext4", "-q", "-F", "-m", "0"), 16 * MIB),
    "xfs": (("mkfs.xfs", "-q", "-f", "-K"), 300 * MIB),
}
_EXT4_INODE, _EXT4_RATIO = 256, 16 * KIB  # bytes of an inode, and bytes of the volume for each
_EXT4_GROUP = 128 * MIB
_BLOCK = 4 * KIB
_NO_COW, _GET_FLAGS, _SET_FLAGS = 0x800000, 0x80086601, 0x40086602  # FS_NOCOW_FL, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS


def available() -> list[str]:
    """File systems that this machine has a program for."""
    return [name for name, (words, _) in _PROGRAMS.items() if shutil.which(words[0], path=calls.PATH)]


class Images(BackEnd):
    """Images in the pool with this mark on their loop devices. thin: they get their blocks when they are written."""

    layout = IMAGE
    least = MIB

    def __init__(self, mark: str, *, thin: bool = False, shares: bool = False, on_btrfs: bool = False) -> None:
        """shares: the file system lets files share blocks."""
        self._mark = mark
        self._shares = shares
        self._thin = thin
        self._on_btrfs = on_btrfs

    def charge(self, size: int, fs_type: str) -> int:
        """The size and what the file system needs for itself. Raises RangeError, Error("unsupported")."""
        if not fs_type:
            return _rounded(size)
        if fs_type not in _PROGRAMS:
            raise Error("invalid", f"{fs_type!r} is not a file system for images", subject="fs_type", hint=", ".join(_PROGRAMS))
        if fs_type not in available():
            hint = f"install {_PROGRAMS[fs_type][0][0]}"
            raise Error("unsupported", f"this machine cannot make {fs_type}", subject="fs_type", hint=hint)
        least = _PROGRAMS[fs_type][1]
        if size < least:
            raise RangeError(f"a volume with {fs_type} has at least {least} bytes", subject="required_bytes")
        if fs_type == "xfs":
            return _rounded(size + _xfs_log(size) + size // 64 + 16 * MIB)
        groups = size // _EXT4_GROUP + 1
        inodes = size // _EXT4_RATIO * _EXT4_INODE
        # The kernel keeps a fiftieth from all users, of 16 MiB at most: half of it, so that neither figure of `df` is far off.
        kept = min(size // 64, 12 * MIB)
        return _whole(
            size + kept + inodes + inodes // 64 + groups * 2 * _BLOCK + _ext4_growth(size, groups) + _ext4_journal(size)
        )

    def make(self, place: str, volume: Volume) -> None:
        """A file with all its blocks, and the file system in it."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd:
            self._stretch(fd, 0, volume.charge)
        if volume.fs_type:
            self._format(path, volume)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """A file that shares its blocks or has copies of them. Its file system grows when it is mounted."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd, calls.opened(os.path.join(source, DATA), os.O_RDONLY) as old:
            length = os.fstat(old).st_size
            shared = extents.clone(old, fd)
            self._stretch(fd, length if shared else 0, volume.charge)
            if not shared:
                extents.copy(old, fd, length)
            os.fsync(fd)

    def snapshot(self, source: str, place: str) -> None:
        """A file that shares its blocks, or has copies of those with data."""
        path = os.path.join(place, DATA)
        with self._new(path) as fd, calls.opened(os.path.join(source, DATA), os.O_RDONLY) as old:
            length = os.fstat(old).st_size
            os.ftruncate(fd, length)
            if not extents.clone(old, fd):
                extents.copy(old, fd, length)
            os.fsync(fd)
        os.chmod(path, 0o400)

    def grow(self, place: str, volume: Volume) -> None:
        """A longer file, and a loop device that knows it."""
        path = os.path.join(place, DATA)
        with calls.opened(path, os.O_RDWR) as fd:
            self._stretch(fd, os.fstat(fd).st_size, self.charge(volume.target, volume.fs_type))
            os.fsync(fd)
        for read_only in (False, True):
            device = loops.find(self._name(place, read_only=read_only))
            if device:
                loops.resize(device)

    def follow(self, place: str, volume: Volume, point: str) -> None:
        """The file system grows to the end of its device, while it is used."""
        filesystems.grow(point, volume.fs_type, self.device(place, volume))

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

    def mount(self, place: str, volume: Volume, options: Options) -> int:
        """Its file system. Two clones of an xfs have one identity, which is let pass."""
        words = (*options.words, "nouuid") if volume.fs_type == "xfs" else options.words
        device = self.device(place, volume)
        try:
            if not options.read_only:
                filesystems.grow_offline(volume.fs_type, device)
            return mounts.new(volume.fs_type, device, words, read_only=options.read_only, attributes=options.attributes)
        except BaseException:
            self.release(place, volume)
            raise

    def device(self, place: str, volume: Volume, *, read_only: bool = False) -> str:
        """The loop device of a place; one that cannot be written is another."""
        return loops.attach(os.path.join(place, DATA), self._name(place, read_only=read_only), read_only=read_only)

    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """A file system has its device's number, and a block volume is the node of one of its two devices."""
        found = [loops.find(self._name(place, read_only=read_only)) for read_only in (False, True)]
        if volume.block:
            return os.path.basename(mount.root) in [os.path.basename(one) for one in found if one]
        return mount.device in [os.stat(one).st_rdev for one in found if one]

    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """As its file system says; a block volume is all in use."""
        if volume.block:
            return Usage(volume.size, 0, 0)
        found = os.statvfs(point)
        size = found.f_blocks * found.f_frsize
        used, left = size - found.f_bfree * found.f_frsize, found.f_bavail * found.f_frsize
        return Usage(size, used, left, found.f_files, found.f_files - found.f_ffree)

    def flush(self, place: str, volume: Volume) -> None:
        """What the loop device's own cache holds; whose blocks are whose is sure only once all is on disk."""
        device = loops.find(self._name(place))
        if device:
            loops.flush(device)
        filesystems.sync(place)

    def release(self, place: str, volume: Volume, *, read_only: bool | None = None) -> None:
        """Detach the loop devices of a place."""
        for one in (False, True):
            device = loops.find(self._name(place, read_only=one)) if read_only in (None, one) else None
            if device:
                loops.detach(device)

    def remove(self, place: str) -> None:
        """The file, after its loop devices."""
        for read_only in (False, True):
            device = loops.find(self._name(place, read_only=read_only))
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

    def _format(self, path: str, volume: Volume) -> None:
        words, _ = _PROGRAMS[volume.fs_type]
        if volume.fs_type == "ext4":
            journal = f"size={_ext4_journal(volume.size) // MIB}"
            more = ["-b", str(_BLOCK), "-I", str(_EXT4_INODE), "-i", str(_EXT4_RATIO), "-J", journal]
            more += ["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"]
        else:
            more = ["-l", f"size={_xfs_log(volume.size)}"]
        calls.run([*words, *more, path])


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


def _rounded(size: int) -> int:
    return -(-size // MIB) * MIB


def _whole(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _ext4_growth(size: int, groups: int) -> int:
    """Bytes of group descriptors, with those for later growth, and of their copies (ext4(5), sparse_super)."""
    table = min(1024, max(1, size // (8 * MIB))) + groups // 64 + 2
    copies = sum(1 for base in (3, 5, 7) for power in range(1, 20) if base**power < groups) + min(groups, 2)
    return table * copies * _BLOCK


def _ext4_journal(size: int) -> int:
    return min(64 * MIB, max(4 * MIB, size // 64 // MIB * MIB))


def _xfs_log(size: int) -> int:
    return 64 * MIB if size < 8 * GIB else 128 * MIB
