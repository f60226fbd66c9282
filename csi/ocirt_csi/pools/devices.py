"""What back ends share whose volumes are block devices: file systems in them, and what those need beside a user's bytes."""

from __future__ import annotations

import functools
import os
from abc import abstractmethod

from ocirt_csi.errors import Error, RangeError
from ocirt_csi.kernel import calls, extents, filesystems, mounts
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import Volume
from ocirt_csi.pools.base import GIB, KIB, MIB, BackEnd, Options, Usage

DEFAULT = "ext4"
# What makes each file system, and bytes of the smallest volume with it.
_PROGRAMS: dict[str, tuple[tuple[str, ...], int]] = {
    "btrfs": (("mkfs.btrfs", "-q", "-f", "-K", "-m", "single", "-d", "single"), 256 * MIB),  # the kernel lets no smaller one grow
    "ext4": (("mkfs.ext4", "-q", "-F", "-m", "0"), 16 * MIB),
    "xfs": (("mkfs.xfs", "-q", "-f", "-K"), 300 * MIB),
}
_EXT4_INODE, _EXT4_RATIO = 256, 16 * KIB  # bytes of an inode, and bytes of the volume for each
_EXT4_GROUP = 128 * MIB
_BLOCK = 4 * KIB
_PREZEROED = "assume_storage_prezeroed=1"
_IN_MEMORY = 64 * GIB  # the largest file system that is made in memory first, where it takes some MiB


def available() -> list[str]:
    """File systems that this machine has a program for."""
    return [name for name in _PROGRAMS if is_available(name)]


def is_available(fs_type: str) -> bool:
    """Whether this machine has a program for one of them."""
    return calls.is_installed(program(fs_type))


def program(fs_type: str) -> str:
    """The name of the program that makes a file system."""
    return _PROGRAMS[fs_type][0][0]


class Devices(BackEnd):
    """Volumes that are block devices, with a file system in them or without."""

    least = MIB
    unit = MIB  # bytes that a block volume's size is a multiple of

    def charge(self, size: int, fs_type: str) -> int:
        """The size and what the file system needs for itself. Raises RangeError, Error("unsupported")."""
        if not fs_type:
            return rounded(size, self.unit)
        if fs_type not in _PROGRAMS:
            raise Error("invalid", f"{fs_type!r} is not a file system for images", subject="fs_type", hint=", ".join(_PROGRAMS))
        if not is_available(fs_type):
            hint = f"install {program(fs_type)}"
            raise Error("unsupported", f"this machine cannot make {fs_type}", subject="fs_type", hint=hint)
        least = _PROGRAMS[fs_type][1]
        if size < least:
            raise RangeError(f"a volume with {fs_type} has at least {least} bytes", subject="required_bytes")
        if fs_type == "xfs":
            return rounded(size + _xfs_log(size) + size // 64 + 16 * MIB, self.unit)
        if fs_type == "btrfs":
            return rounded(size + _btrfs_own(size), self.unit)
        groups = size // _EXT4_GROUP + 1
        inodes = size // _EXT4_RATIO * _EXT4_INODE
        # The kernel keeps a fiftieth from all users, of 16 MiB at most: half of it, so that neither figure of `df` is far off.
        kept = min(size // 64, 12 * MIB)
        needed = size + kept + inodes + inodes // 64 + groups * 2 * _BLOCK + _ext4_growth(size, groups) + _ext4_journal(size)
        return rounded(needed, _BLOCK)

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

    @abstractmethod
    def device(self, place: str, volume: Volume, *, read_only: bool = False) -> str:
        """The block device of a place, which is there when it returns."""

    @abstractmethod
    def attached(self, place: str) -> list[str | None]:
        """The block devices that a place may have: to write, and to read alone. None for one that is not there."""

    def shows(self, place: str, volume: Volume, mount: Mount) -> bool:
        """A file system has its device's number, and a block volume is the node of one of its devices."""
        found = [one for one in self.attached(place) if one]
        if volume.block:
            return os.path.basename(mount.root) in [os.path.basename(one) for one in found]
        return any(mount.is_of(one) for one in found)

    def follow(self, place: str, volume: Volume, point: str) -> None:
        """The file system grows to the end of its device, while it is used."""
        filesystems.grow(point, volume.fs_type, self.device(place, volume))

    def usage(self, place: str, volume: Volume, point: str) -> Usage:
        """As its file system says; a block volume is all in use."""
        if volume.block:
            return Usage(volume.size, 0, 0)
        found = os.statvfs(point)
        size = found.f_blocks * found.f_frsize
        used, left = size - found.f_bfree * found.f_frsize, found.f_bavail * found.f_frsize
        return Usage(size, used, left, found.f_files, found.f_files - found.f_ffree)


def lay_out(fd: int, path: str, volume: Volume) -> None:
    """Make the file system of a volume in a file of zeros, on disk when it returns. Raises Error, OSError.

    What makes an ext4 waits for the disk four times. So it makes it in memory, and what it wrote there is written here at once.
    """
    if volume.fs_type != "ext4" or volume.charge > _IN_MEMORY:
        make_file_system(path, volume)
    else:
        scratch = os.memfd_create("ext4", os.MFD_CLOEXEC)
        try:
            os.ftruncate(scratch, volume.charge)
            make_file_system(f"/proc/self/fd/{scratch}", volume, keep=scratch)
            extents.fill(scratch, fd, volume.charge)
        finally:
            os.close(scratch)
    os.fsync(fd)


def make_file_system(path: str, volume: Volume, *, zeros: bool = True, keep: int = -1) -> None:
    """Make the file system of a volume in a file or a device. Raises Error.

    zeros: all of it is zeros; keep: a descriptor that `path` is of.
    """
    words, _ = _PROGRAMS[volume.fs_type]
    more: list[str] = []
    if volume.fs_type == "ext4":
        journal = f"size={_ext4_journal(volume.size) // MIB}"
        more = ["-b", str(_BLOCK), "-I", str(_EXT4_INODE), "-i", str(_EXT4_RATIO), "-J", journal]
        more += ["-E", "nodiscard,lazy_itable_init=1,root_owner=0:0" + (_of_zeros() if zeros else "")]
    elif volume.fs_type == "xfs":
        more = ["-l", f"size={_xfs_log(volume.size)}"]
    elif volume.size < _BTRFS_MIXED:
        more = ["--mixed"]
    calls.run([*words, *more, path], keep=keep)


@functools.cache
def _of_zeros() -> str:
    """Options for an ext4 on zeros: nobody needs to write zeros, neither now nor the kernel later. Since e2fsprogs 1.47."""
    scratch = os.memfd_create("ext4", os.MFD_CLOEXEC)
    try:
        os.ftruncate(scratch, 16 * MIB)
        calls.run(["mkfs.ext4", "-q", "-F", "-n", "-E", _PREZEROED, f"/proc/self/fd/{scratch}"], keep=scratch)
    except Error:
        return ",lazy_journal_init=1"
    finally:
        os.close(scratch)
    return f",lazy_journal_init=1,{_PREZEROED}"


def set_apart(path: str, fs_type: str) -> None:
    """Give the file system of a copy an identity of its own, where the kernel would take it for the one it was copied of.

    Raises Error.
    """
    if fs_type == "btrfs":
        calls.run(["btrfstune", "-f", "-m", path])


def rounded(size: int, unit: int) -> int:
    """The least multiple of a unit that is not below a size."""
    return -(-size // unit) * unit


def _ext4_growth(size: int, groups: int) -> int:
    """Bytes of group descriptors, with those for later growth, and of their copies (ext4(5), sparse_super)."""
    table = min(1024, max(1, size // (8 * MIB))) + groups // 64 + 2
    copies = sum(1 for base in (3, 5, 7) for power in range(1, 20) if base**power < groups) + min(groups, 2)
    return table * copies * _BLOCK


def _ext4_journal(size: int) -> int:
    return min(64 * MIB, max(4 * MIB, size // 64 // MIB * MIB))


def _xfs_log(size: int) -> int:
    return 64 * MIB if size < 8 * GIB else 128 * MIB


_BTRFS_MIXED = 5 * GIB  # below that data and its tree share their room, so that neither is full before the other


def _btrfs_own(size: int) -> int:
    """Bytes of its trees, and of what it keeps of them for times when it is full."""
    return size // 256 + 8 * MIB
