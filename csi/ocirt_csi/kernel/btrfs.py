"""btrfs: subvolumes, snapshots and their quotas, by ioctl (include/uapi/linux/btrfs.h) and sysfs."""

from __future__ import annotations

import errno
import os
import struct
import uuid
from collections.abc import Iterator

from ocirt_csi.kernel import calls

_CREATE, _SNAPSHOT, _DESTROY = 0x50009418, 0x50009417, 0x5000943F  # SUBVOL_CREATE_V2, SNAP_CREATE_V2, SNAP_DESTROY_V2
_INO_LOOKUP, _FS_INFO, _SYNC, _CLEANED = 0xD0009412, 0x8400941F, 0x9408, 0x40109441  # the last: SUBVOL_SYNC_WAIT
_QUOTA_CTL, _QGROUP_CREATE, _QGROUP_LIMIT = 0xC0109428, 0x4010942A, 0x8030942B
_RESCAN, _RESCAN_WAIT = 0x4040942C, 0x942E
_READ_ONLY = 1 << 1
_ENABLE = 1
_MAX_REFERENCED = 1
_FIRST = 256  # the inode of a subvolume's root, BTRFS_FIRST_FREE_OBJECTID
_LEVELS = 8  # of a tree, at most
_ALL_QUEUED = 1
_BY_NUMBER = 1 << 4  # BTRFS_SUBVOL_SPEC_BY_ID
# BTRFS_IOC_TREE_SEARCH: items of the tree of trees, by subvolume, kind and the number of the one in it.
_TREE_SEARCH, _ROOT_TREE, _ROOT_REF = 0xD0009411, 1, 156
_ITEM = struct.Struct("=3Q2I")  # struct btrfs_ioctl_search_header, before each item
_COUNT_AT, _ITEMS_AT = 64, 104  # where the answer has the number of items, and the first
_AT_ONCE = 4096
_MOST = (1 << 64) - 1


def create(folder: str, name: str) -> None:
    """Make a subvolume. Raises OSError."""
    _in(folder, "BTRFS_IOC_SUBVOL_CREATE_V2", _CREATE, _arguments(0, 0, name))


def snapshot(source: str, folder: str, name: str, *, read_only: bool) -> None:
    """Make a subvolume that shares all that another holds. Raises OSError."""
    with calls.opened(source, os.O_RDONLY | os.O_DIRECTORY) as fd:
        flags = _READ_ONLY if read_only else 0
        _in(folder, "BTRFS_IOC_SNAP_CREATE_V2", _SNAPSHOT, _arguments(fd, flags, name))


def destroy(folder: str, name: str) -> None:
    """Take a subvolume away; the kernel frees its blocks behind. Raises OSError."""
    _in(folder, "BTRFS_IOC_SNAP_DESTROY_V2", _DESTROY, _arguments(0, 0, name))


def destroy_numbered(path: str, subvolume: int) -> None:
    """The same for any subvolume of the file system that holds a path, by its number (Linux 5.7). Raises OSError."""
    arguments = struct.pack("=qQQ", 0, 0, _BY_NUMBER) + bytes(32) + struct.pack("=Q", subvolume)
    _in(path, "BTRFS_IOC_SNAP_DESTROY_V2", _DESTROY, arguments.ljust(4096, b"\0"))


def nested(path: str) -> list[int]:
    """Numbers of the subvolumes within the one that holds a path, each behind the one that it is in. Raises OSError.

    The file system's own list of them is read, and no folder: it takes no time, and no names or links are in its way.
    """
    with calls.opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
        found = [number(path)]
        for one in found:  # which grows meanwhile
            found += _children(fd, one)
    return found[1:]


def is_subvolume(path: str) -> bool:
    """Whether a path is the root of a subvolume."""
    try:
        return os.lstat(path).st_ino == _FIRST
    except FileNotFoundError:
        return False


def number(path: str) -> int:
    """The number of the subvolume that holds a path. Raises OSError."""
    answer = _in(path, "BTRFS_IOC_INO_LOOKUP", _INO_LOOKUP, struct.pack("=QQ", 0, _FIRST) + bytes(4080))
    return int(struct.unpack_from("=Q", answer)[0])


def identity(path: str) -> str:
    """The UUID of the file system. Raises OSError."""
    return str(uuid.UUID(bytes=_in(path, "BTRFS_IOC_FS_INFO", _FS_INFO, bytes(1024))[16:32]))


def commit(path: str) -> None:
    """Write what is on its way, and count it. Raises OSError."""
    _in(path, "BTRFS_IOC_SYNC", _SYNC, 0)


def settle(path: str) -> None:
    """Wait until what was written is counted and what was taken away is freed. Raises OSError."""
    commit(path)
    try:
        _in(path, "BTRFS_IOC_SUBVOL_SYNC_WAIT", _CLEANED, struct.pack("=QII", 0, _ALL_QUEUED, 0))
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENOTTY):  # nothing is on its way out; before Linux 6.13
            raise
    commit(path)  # what was freed can be used once that is on disk


class Quotas:
    """The quotas of the file system that holds a path, which are switched on. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._groups = f"/sys/fs/btrfs/{identity(path)}/qgroups"
        if not os.path.isdir(self._groups):
            self._call("BTRFS_IOC_QUOTA_CTL", _QUOTA_CTL, struct.pack("=QQ", _ENABLE, 0))
            self._call("BTRFS_IOC_QUOTA_RESCAN_WAIT", _RESCAN_WAIT, 0)
        # A tree that is dropped whole is not counted any more above this level, and all numbers are off from then on.
        try:
            with open(f"{self._groups}/drop_subtree_threshold", "w", encoding="ascii") as file:
                file.write(str(_LEVELS))
        except OSError:  # before Linux 6.1, which always counts; or /sys cannot be written
            pass

    @property
    def mode(self) -> str:
        """How it counts: "qgroup", or "squota", which counts for whoever wrote first."""
        return self._word("mode") or "qgroup"

    def repair(self) -> bool:
        """Count anew if the numbers are off, and wait for it. Returns whether they were. Raises OSError."""
        if self._word("inconsistent") != "1":
            return False
        try:
            self._call("BTRFS_IOC_QUOTA_RESCAN", _RESCAN, bytes(64))
        except OSError as err:
            if err.errno != errno.EINPROGRESS:
                raise
        self._call("BTRFS_IOC_QUOTA_RESCAN_WAIT", _RESCAN_WAIT, 0)
        return True

    def limit(self, subvolume: int, length: int) -> None:
        """Let a subvolume refer to so many bytes and no more. Raises OSError."""
        self._call("BTRFS_IOC_QGROUP_LIMIT", _QGROUP_LIMIT, struct.pack("=6Q", subvolume, _MAX_REFERENCED, length, 0, 0, 0))

    def limit_of(self, subvolume: int) -> int:
        """What `limit` set; 0 for none."""
        return int(self._word(f"0_{subvolume}/max_referenced") or 0) if self._is_limited(subvolume) else 0

    def referenced(self, subvolume: int) -> int:
        """Bytes that it refers to, with those that are on their way to the disk; 0 for one that is not known."""
        return self._sum(subvolume, "referenced", "rsv_data")

    def exclusive(self, subvolume: int) -> int:
        """Bytes that it alone refers to."""
        return self._sum(subvolume, "exclusive")

    def forget(self, subvolume: int) -> None:
        """Drop the counter of a subvolume that is gone; while the kernel frees it, that is the kernel's. Raises OSError."""
        try:
            self._call("BTRFS_IOC_QGROUP_CREATE", _QGROUP_CREATE, struct.pack("=QQ", 0, subvolume))
        except OSError as err:
            if err.errno not in (errno.EBUSY, errno.ENOENT):
                raise

    def _is_limited(self, subvolume: int) -> bool:
        return bool(int(self._word(f"0_{subvolume}/limit_flags") or "0", 0) & _MAX_REFERENCED)

    def _sum(self, subvolume: int, *names: str) -> int:
        return sum(int(self._word(f"0_{subvolume}/{name}") or 0) for name in names)

    def _word(self, name: str) -> str:
        try:
            with open(f"{self._groups}/{name}", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def _call(self, name: str, number: int, argument: bytes | int) -> None:
        _in(self._path, name, number, argument)


def _children(fd: int, subvolume: int) -> Iterator[int]:
    first = 0
    while True:
        key = struct.pack("=7Q4I", _ROOT_TREE, subvolume, subvolume, first, _MOST, 0, _MOST, _ROOT_REF, _ROOT_REF, _AT_ONCE, 0)
        answer = calls.ioctl(fd, "BTRFS_IOC_TREE_SEARCH", _TREE_SEARCH, key.ljust(4096, b"\0"))
        count = struct.unpack_from("=I", answer, _COUNT_AT)[0]
        if not count:
            return
        at = _ITEMS_AT
        for _ in range(count):
            _, _, child, _, length = _ITEM.unpack_from(answer, at)
            yield child
            first = child + 1
            at += _ITEM.size + length


def _in(folder: str, name: str, number: int, argument: bytes | int) -> bytes:
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        return calls.ioctl(fd, name, number, argument)


def _arguments(fd: int, flags: int, name: str) -> bytes:
    """struct btrfs_ioctl_vol_args_v2."""
    return (struct.pack("=qQQ", fd, 0, flags) + bytes(32) + os.fsencode(name)).ljust(4096, b"\0")
