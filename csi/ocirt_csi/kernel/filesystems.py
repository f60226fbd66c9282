"""File systems that are mounted: which kind is where, growing them to their device, and holding them still."""

from __future__ import annotations

import errno
import os
import struct
import sys
from ctypes import CDLL, create_string_buffer, get_errno

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, loops

# The names by f_type (include/uapi/linux/magic.h).
NAMES = {0x9123683E: "btrfs", 0x58465342: "xfs", 0xEF53: "ext4", 0x01021994: "tmpfs", 0x794C7630: "overlay", 0xF2F52010: "f2fs"}
_EXT4_RESIZE = 0x40086610  # EXT4_IOC_RESIZE_FS
_XFS_GEOMETRY, _XFS_GROW = 0x80705864, 0x4010586E  # XFS_IOC_FSGEOMETRY_V1, XFS_IOC_FSGROWFSDATA
_FREEZE, _THAW = 0xC0045877, 0xC0045878
_SUPERBLOCK = 1024  # where ext4's begins
_EXT4_BLOCKS = 4  # s_blocks_count_lo; the high half stands at 0x150
_EXT4_BLOCK = 4096  # bytes of a block, as we make it
_CAP_SYS_RESOURCE = 24
_ZEROOUT, _PIECE, _BUFFER = 0x127F, 1 << 30, 4 << 20  # BLKZEROOUT, and bytes of one call
_BTRFS_RESIZE = 0x50009403  # BTRFS_IOC_RESIZE
_libc = CDLL(None, use_errno=True)


def kind(path: str) -> str:
    """The name of the file system that holds a path; a number for one without. Raises OSError."""
    buffer = create_string_buffer(256)
    if _libc.statfs(os.fsencode(path), buffer):
        number = get_errno()
        raise OSError(number, os.strerror(number), path)
    (magic,) = struct.unpack_from("=l", buffer)
    return NAMES.get(magic & 0xFFFFFFFF, hex(magic & 0xFFFFFFFF))


def sync(path: str) -> None:
    """Write all of the file system that holds a path. Raises OSError."""
    with calls.opened(path, os.O_RDONLY) as fd:
        if _libc.syncfs(fd):
            number = get_errno()
            raise OSError(number, os.strerror(number), path)


def grow(point: str, fs_type: str, device: str) -> None:
    """Let a mounted file system have all of its device; one that has it already is left alone. Raises Error, OSError."""
    length = loops.size(device)
    with calls.opened(point, os.O_RDONLY | os.O_DIRECTORY) as fd:
        if fs_type == "ext4":
            block = os.fstatvfs(fd).f_bsize
            if _ext4_blocks(device) < length // block:
                if not _may_grow_ext4():
                    hint = "it grows when it is mounted the next time"
                    raise Error("state", "ext4 grows while it is mounted only with CAP_SYS_RESOURCE", subject=point, hint=hint)
                calls.ioctl(fd, "EXT4_IOC_RESIZE_FS", _EXT4_RESIZE, struct.pack("=Q", length // block))
        elif fs_type == "xfs":
            answer = calls.ioctl(fd, "XFS_IOC_FSGEOMETRY", _XFS_GEOMETRY, bytes(112))
            fields = struct.unpack_from("=8IQ", answer)
            block, share, blocks = fields[0], fields[7], fields[8]
            if blocks < length // block:
                calls.ioctl(fd, "XFS_IOC_FSGROWFSDATA", _XFS_GROW, struct.pack("=QI4x", length // block, share))
        elif fs_type == "btrfs":
            calls.ioctl(fd, "BTRFS_IOC_RESIZE", _BTRFS_RESIZE, (bytes(8) + b"max").ljust(4096, b"\0"))
        else:
            raise Error("unsupported", f"a file system of the kind {fs_type} cannot be grown", subject=point)


def grow_offline(fs_type: str, device: str) -> None:
    """The same for an ext4 that is not mounted, where the kernel would not let us do it afterwards. Raises Error, OSError."""
    if fs_type != "ext4" or _may_grow_ext4() or _ext4_blocks(device) >= loops.size(device) // _EXT4_BLOCK:
        return
    # A check that repairs something ends with 1.
    for words, most in ((["e2fsck", "-f", "-p", device], 1), (["resize2fs", device], 0)):
        calls.run(words, most=most)


def write_zeros(fd: int, start: int, length: int) -> None:
    """Let a part of a block device be zeros, by the device's own means where it has some. Raises OSError."""
    for at in range(start, start + length, _PIECE):  # in pieces that a signal can come between
        calls.ioctl(fd, "BLKZEROOUT", _ZEROOUT, struct.pack("=2Q", at, min(_PIECE, start + length - at)))


def copy_device(source: int, target: int, length: int) -> None:
    """Copy the first bytes of a block device onto another. Raises OSError."""
    sys.audit(calls.AUDIT, "copy_device")
    at = 0
    while at < length:
        done = os.pread(source, min(_BUFFER, length - at), at)
        if not done:
            raise OSError(errno.EIO, "ends too early", "copy_device")
        written = 0
        while written < len(done):
            written += os.pwrite(target, done[written:] if written else done, at + written)
        at += len(done)
    os.fsync(target)


def freeze(point: str) -> None:
    """Write all, and let nobody write until `thaw`. Raises Error("in-use") if somebody else holds it still, OSError."""
    with calls.opened(point, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            calls.ioctl(fd, "FIFREEZE", _FREEZE)
        except OSError as err:
            if err.errno != errno.EBUSY:
                raise
            hint = f"end that with: fsfreeze --unfreeze {point}"  # who did so may end it in the middle of a copy
            raise Error("in-use", "somebody else holds its file system still", subject=point, hint=hint) from None


def thaw(point: str) -> None:
    """End a `freeze`, if there is one. Raises OSError."""
    with calls.opened(point, os.O_RDONLY | os.O_DIRECTORY) as fd:
        try:
            calls.ioctl(fd, "FITHAW", _THAW)
        except OSError as err:
            if err.errno != errno.EINVAL:
                raise


def _may_grow_ext4() -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def _ext4_blocks(device: str) -> int:
    with calls.opened(device, os.O_RDONLY) as fd:
        block = os.pread(fd, 1024, _SUPERBLOCK)
    low, high = struct.unpack_from("<I", block, _EXT4_BLOCKS)[0], struct.unpack_from("<I", block, 0x150)[0]
    return int(low | high << 32)
