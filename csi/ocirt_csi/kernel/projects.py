"""Project quotas of ext4 and xfs: a folder and all below it counts for one number (quotactl(2), Linux 5.14)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from ocirt_csi.kernel import calls

_QUOTACTL_FD = 443
_PROJECT = 2  # PRJQUOTA
_SET_LIMIT, _GET = (ord("X") << 8) + 4, (ord("X") << 8) + 3  # Q_XSETQLIM, Q_XGETQUOTA
_GET_STATE = (ord("X") << 8) + 8  # Q_XGETQSTATV
_STATE_VERSION, _STATE_SIZE = 1, 512  # struct fs_quota_statv, with room to spare
_ENFORCED = 1 << 5  # FS_QUOTA_PDQ_ENFD
_DQUOT = struct.Struct("=bbHI6Q2i2H4b3Qi2H8s")  # struct fs_disk_quota (include/uapi/linux/dqblk_xfs.h)
_VERSION, _OF_PROJECT, _BLOCKS_HARD = 1, 2, 1 << 3  # FS_DQUOT_VERSION, FS_PROJ_QUOTA, FS_DQ_BHARD
_UNIT = 512  # bytes of a basic block
_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("=5I8s")  # struct fsxattr
_INHERIT = 0x200  # FS_XFLAG_PROJINHERIT


def are_enforced(folder: str) -> bool:
    """Whether the file system that holds a folder limits projects. Raises OSError."""
    state = ctypes.create_string_buffer(struct.pack("=b", _STATE_VERSION), _STATE_SIZE)
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            calls.numbered("quotactl_fd", _QUOTACTL_FD, fd, _command(_GET_STATE), 0, state)
        except OSError as err:
            # Another file system, one without quotas, a kernel before 5.14: they all say no in their own way.
            if err.errno in (errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.ESRCH, errno.ENODEV):
                return False
            raise
    return bool(struct.unpack_from("=H", state.raw, 2)[0] & _ENFORCED)


def limit(folder: str, project: int, length: int) -> None:
    """Let a project have so many bytes and no more; 0: any number. Raises OSError."""
    _limit(folder, project, length)


def figures(folder: str, project: int) -> tuple[int, int]:
    """Bytes that a project may have (0: any number) and has. Raises OSError."""
    buffer = ctypes.create_string_buffer(_DQUOT.size)
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            calls.numbered("quotactl_fd", _QUOTACTL_FD, fd, _command(_GET), project, buffer)
        except OSError as err:
            if err.errno in (errno.ENOENT, errno.ESRCH):  # never heard of
                return 0, 0
            raise
    fields = _DQUOT.unpack(buffer.raw)
    return fields[4] * _UNIT, fields[8] * _UNIT


def assign(folder: str, project: int) -> None:
    """Let an empty folder, and what comes to be below it, count for a project. Raises OSError."""
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        flags, size, extents, _, share, rest = _ATTRIBUTES.unpack(
            calls.ioctl(fd, "FS_IOC_FSGETXATTR", _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
        )
        wanted = _ATTRIBUTES.pack(flags | _INHERIT, size, extents, project, share, rest)
        calls.ioctl(fd, "FS_IOC_FSSETXATTR", _SET_ATTRIBUTES, wanted)


def of(folder: str) -> int:
    """The project of a folder; 0 for none. Raises OSError."""
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        answer = calls.ioctl(fd, "FS_IOC_FSGETXATTR", _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size))
    return int(_ATTRIBUTES.unpack(answer)[3])


def _limit(folder: str, project: int, length: int) -> None:
    blocks = length // _UNIT
    packed = _DQUOT.pack(
        *(_VERSION, _OF_PROJECT, _BLOCKS_HARD, project, blocks, 0, 0, 0, 0, 0),
        *(0,) * 11,
        *(0, 0, 0, bytes(8)),
    )
    buffer = ctypes.create_string_buffer(packed, _DQUOT.size)
    with calls.opened(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        calls.numbered("quotactl_fd", _QUOTACTL_FD, fd, _command(_SET_LIMIT), project, buffer)


def _command(number: int) -> int:
    return number << 8 | _PROJECT
