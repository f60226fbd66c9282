"""Project quotas of ext4 and XFS: directories whose files carry a number, and what the files of a number may take together.

ioctl_xfs_fsgetxattr(2) sets the number, quotactl(2) the limit; by descriptor (quotactl_fd, Linux 5.14), so that no block device
is to be looked for. All functions raise OSError.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# linux/fs.h
_GET_ATTRIBUTES = 0x801C581F  # FS_IOC_FSGETXATTR
_SET_ATTRIBUTES = 0x401C5820
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT: what is made in the directory gets its number
_ATTRIBUTES = Struct("=5I8x")  # fsxattr: flags, extent size, extents, project, extent size of copies
# linux/quota.h
_QUOTACTL_FD = 443
_PROJECT = 2  # PRJQUOTA
_GET = 0x800007 << 8 | _PROJECT  # Q_GETQUOTA
_SET = 0x800008 << 8 | _PROJECT
_BLOCK = 1024  # the unit of its limits (QIF_DQBLKSIZE)
_SPACE_LIMITS = 1  # QIF_BLIMITS
_QUOTA = Struct("=8QI4x")  # if_dqblk: hard, soft, bytes; hard, soft, inodes; two times; what of it is meant

# Ours are drawn from here: far from what people write into /etc/projid, and from what docker and kubelet count up from.
_FIRST = 1 << 30
_COUNT = 1 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True, slots=True)
class Quota:
    """What the files of a project take, and may take (0: as much as they like): bytes, and a number of inodes."""

    limit: int
    size: int
    inodes: int


def draw() -> int:
    """A number for a project, by chance: stores that share a file system know nothing of each other."""
    return _FIRST + secrets.randbelow(_COUNT)


def of(directory: Path) -> int:
    """The number of the project that is ours and that what is made in `directory` gets; 0: none, or somebody else's."""
    try:
        flags, _, _, number, _ = _attributes(directory)
    except OSError as err:
        if err.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return 0  # the file system knows nothing of this
        raise
    return number if flags & _INHERIT and _FIRST <= number < _FIRST + _COUNT else 0


def assign(directory: Path, number: int) -> None:
    """`directory`, which is empty, and what is made in it from now on belong to the project."""
    fd = os.open(directory, _DIRECTORY)
    try:
        flags, extent, extents, _, copies = _ATTRIBUTES.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))
        fcntl.ioctl(fd, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, number, copies))
    except OSError as err:
        raise OSError(err.errno, f"FS_IOC_FSSETXATTR: {err.strerror}", str(directory)) from None
    finally:
        os.close(fd)


def limit(directory: Path, number: int, size: int) -> None:
    """The project's files on the file system of `directory` may take `size` bytes; 0: no limit. It is rounded up to KiB."""
    _quotactl(directory, _SET, number, bytearray(_QUOTA.pack(-(-size // _BLOCK), 0, 0, 0, 0, 0, 0, 0, _SPACE_LIMITS)))


def read(directory: Path, number: int) -> Quota:
    """The project's quota. ESRCH: the file system is mounted without project quota."""
    answer = bytearray(_QUOTA.size)
    try:
        _quotactl(directory, _GET, number, answer)
    except OSError as err:
        if err.errno == errno.ENOENT:  # XFS: nobody has heard of it
            return Quota(0, 0, 0)
        raise
    hard, soft, size, _, _, inodes, _, _, _ = _QUOTA.unpack(answer)
    return Quota(max(hard, soft) * _BLOCK, size, inodes)


def _attributes(directory: Path) -> tuple[int, int, int, int, int]:
    fd = os.open(directory, _DIRECTORY)
    try:
        flags, extent, extents, number, copies = _ATTRIBUTES.unpack(fcntl.ioctl(fd, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))
    finally:
        os.close(fd)
    return flags, extent, extents, number, copies


def _quotactl(directory: Path, command: int, number: int, data: bytearray) -> None:
    fd = os.open(directory, _DIRECTORY)
    try:
        buffer = (ctypes.c_char * len(data)).from_buffer(data)
        words = [ctypes.c_long(word) for word in (_QUOTACTL_FD, fd, command, number)]
        if _libc.syscall(*words, buffer) < 0:
            raise OSError(ctypes.get_errno(), f"quotactl_fd: {os.strerror(ctypes.get_errno())}", str(directory))
    finally:
        os.close(fd)
