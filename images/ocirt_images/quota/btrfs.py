"""Subvolumes of btrfs and their quota groups, by ioctl(2) (linux/btrfs.h); no program of btrfs-progs is needed.

A subvolume is a directory that is a tree of its own. With quotas switched on for the file system each has a quota group, 0/ID.
Any directory's owner may make and empty one; a limit is root's of the machine to set. All functions raise OSError.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from struct import Struct

# linux/btrfs.h, with asm-generic/ioctl.h: direction << 30 | size << 16 | magic << 8 | number
_MAGIC = 0x94
_SUBVOL_CREATE = 1 << 30 | 4096 << 16 | _MAGIC << 8 | 14
_SNAP_DESTROY = 1 << 30 | 4096 << 16 | _MAGIC << 8 | 15
_INO_LOOKUP = 3 << 30 | 4096 << 16 | _MAGIC << 8 | 18
_FS_INFO = 2 << 30 | 1024 << 16 | _MAGIC << 8 | 31
_QGROUP_LIMIT = 2 << 30 | 48 << 16 | _MAGIC << 8 | 43
_LIMIT_MAX_REFERENCED = 1

_VOLUME = Struct("=q4088s")  # btrfs_ioctl_vol_args: a descriptor, a name
_LOOKUP = Struct("=QQ4080s")  # btrfs_ioctl_ino_lookup_args: the tree's number, an object's, its path
_LIMIT = Struct("=6Q")  # btrfs_ioctl_qgroup_limit_args: a group (0: of the descriptor), flags, four limits
_FSID = slice(16, 32)  # of btrfs_ioctl_fs_info_args

_FIRST_OBJECT = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode number of the root of every subvolume
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Where the kernel shows quota groups (Linux 5.9), and what it counts.
_SYSFS = Path("/sys/fs/btrfs")


def is_here(directory: Path) -> bool:
    """Whether a directory lies on btrfs."""
    return _ask(directory, _FS_INFO, bytearray(1024)) is not None


def is_subvolume(directory: Path) -> bool:
    """Whether a directory is the root of a subvolume."""
    return directory.stat(follow_symlinks=False).st_ino == _FIRST_OBJECT and is_here(directory)


def create(path: Path) -> None:
    """Make the subvolume `path`, with mode 0777 less the umask."""
    _change(path, _SUBVOL_CREATE)


def destroy(path: Path) -> None:
    """Remove the subvolume `path` with all that is in it, at once; its space is freed in the background.

    From Linux 6.11 on its quota group goes then, too. EPERM for who is not root of the machine, unless the file system is mounted
    with `user_subvol_rm_allowed`; ENOTEMPTY if there is another subvolume in it.
    """
    _change(path, _SNAP_DESTROY)


def limit(path: Path, size: int) -> None:
    """What the subvolume `path` refers to may take `size` bytes, its metadata among them (16 KiB for an empty one).

    ENOTCONN: quotas are off for this file system; EPERM: not root of the machine.
    """
    fd = os.open(path, _DIRECTORY)
    try:
        fcntl.ioctl(fd, _QGROUP_LIMIT, _LIMIT.pack(0, _LIMIT_MAX_REFERENCED, size, 0, 0, 0))
    except OSError as err:
        raise OSError(err.errno, f"BTRFS_IOC_QGROUP_LIMIT: {err.strerror}", str(path)) from None
    finally:
        os.close(fd)


def usage(path: Path) -> int | None:
    """Bytes that a limited subvolume takes, with what is written and not on disk yet. None: it has no limit, or none is shown."""
    info = _ask(path, _FS_INFO, bytearray(1024))
    tree = _ask(path, _INO_LOOKUP, bytearray(_LOOKUP.pack(0, _FIRST_OBJECT, b"")))
    if info is None or tree is None:
        return None
    text = info[_FSID].hex()
    uuid = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
    group = _SYSFS / uuid / "qgroups" / f"0_{_LOOKUP.unpack(tree)[0]}"
    try:
        if not int((group / "limit_flags").read_text()) & _LIMIT_MAX_REFERENCED:
            return None
        return int((group / "referenced").read_text()) + int((group / "rsv_data").read_text())
    except (OSError, ValueError):
        return None


def _change(path: Path, request: int) -> None:
    parent = os.open(path.parent, _DIRECTORY)
    try:
        fcntl.ioctl(parent, request, bytearray(_VOLUME.pack(0, os.fsencode(path.name))))
    except OSError as err:
        raise OSError(err.errno, err.strerror, str(path)) from None
    finally:
        os.close(parent)


def _ask(directory: Path, request: int, answer: bytearray) -> bytearray | None:
    """An ioctl that fills `answer`; None: another file system does not know it."""
    fd = os.open(directory, _DIRECTORY)
    try:
        fcntl.ioctl(fd, request, answer)
    except OSError as err:
        if err.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise OSError(err.errno, err.strerror, str(directory)) from None
    finally:
        os.close(fd)
    return answer
