"""Thin wrappers of the system calls on mounts: fsopen(2) and its family, open_tree(2), move_mount(2), mount(2), openat2(2).

Mounts are held as descriptors from the moment they are made. Every function raises CallError: an OSError that names the call.
"""

from __future__ import annotations

import ctypes
import os
from struct import pack

# From 424 on all architectures have the same numbers (include/uapi/asm-generic/unistd.h).
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_OPENAT2 = 437
_MOUNT_SETATTR = 442

# linux/fcntl.h
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
# linux/mount.h
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x04
# linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
# linux/fs.h
FICLONE = 0x40049409

STRING_LIMIT = 255  # characters of a value that fsconfig(2) takes
PAGE_LIMIT = 4095  # bytes of options that mount(2) takes

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class CallError(OSError):
    """A system call failed. `call`: its name; `said`: what the file system wrote about it, or ""."""

    def __init__(self, errno: int, call: str, path: str | None = None, said: str = "") -> None:
        super().__init__(errno, f"{call}: {os.strerror(errno)}", path)
        self.call = call
        self.said = said


def _call(number: int, name: str, *args: int | bytes | None, path: str | None = None) -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else ctypes.c_char_p(arg) for arg in args]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise CallError(ctypes.get_errno(), name, path)
    return result


def new_mount(kind: str, options: list[tuple[str, str | None]], attributes: int = 0) -> int:
    """A detached mount of a new file system. `options`: (name, value), or (name, None) for a flag.

    The error carries in `said` what the file system wrote into its context, and in `filename` the option that was refused.
    """
    context = _call(_FSOPEN, "fsopen", kind.encode(), _FSOPEN_CLOEXEC, path=kind)
    at = None
    try:
        for name, value in options:
            at = name if value is None else f"{name}={value}"
            if value is None:
                _call(_FSCONFIG, "fsconfig", context, _FSCONFIG_SET_FLAG, name.encode(), None, 0)
            else:
                _call(_FSCONFIG, "fsconfig", context, _FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)
        at = None
        _call(_FSCONFIG, "fsconfig", context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_FSMOUNT, "fsmount", context, _FSMOUNT_CLOEXEC, attributes)
    except CallError as err:
        raise CallError(err.errno or 0, err.call, at or kind, _said(context)) from None
    finally:
        os.close(context)


def takes(kind: str, name: str, value: str) -> bool:
    """Whether a file system takes an option, as far as it says so at once. Raises CallError without the right to ask."""
    context = _call(_FSOPEN, "fsopen", kind.encode(), _FSOPEN_CLOEXEC, path=kind)
    try:
        _call(_FSCONFIG, "fsconfig", context, _FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)
    except CallError:
        return False
    finally:
        os.close(context)
    return True


def _said(context: int) -> str:
    """The messages of a file system context: one for each read(2), `e ` or `w ` or `i ` before it."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context, 4096)
        except OSError:
            return "; ".join(lines)
        lines.append(os.fsdecode(line[2:]).strip())


def open_tree(path: str | os.PathLike[str], *, dir_fd: int = _AT_FDCWD, recursive: bool = False) -> int:
    """A detached copy of what is mounted at `path` (a directory of it will do). "" means `dir_fd` itself."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    name = os.fspath(path)
    return _call(_OPEN_TREE, "open_tree", dir_fd, os.fsencode(name), flags | (0 if name else _AT_EMPTY_PATH), path=name or None)


def move_mount(mount: int, path: str | os.PathLike[str]) -> None:
    """Attach the detached mount on top of `path`."""
    name = os.fspath(path)
    _call(_MOVE_MOUNT, "move_mount", mount, b"", _AT_FDCWD, os.fsencode(name), _MOVE_MOUNT_F_EMPTY_PATH, path=name)


def set_attributes(mount: int, attributes: int) -> None:
    """Add MOUNT_ATTR_* to a mount."""
    _call(_MOUNT_SETATTR, "mount_setattr", mount, b"", _AT_EMPTY_PATH, pack("4Q", attributes, 0, 0, 0), 32)


def open_beneath(root: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2): `path` below the directory `root`, with RESOLVE_* as asked."""
    how = pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _call(_OPENAT2, "openat2", root, os.fsencode(path), how, len(how), path=path)


def mount(kind: str, target: str, flags: int = 0, data: str = "") -> None:
    """mount(2), whose data may be a page long where fsconfig(2) takes 255 characters a value."""
    if _libc.mount(kind.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), os.fsencode(data)) < 0:
        raise CallError(ctypes.get_errno(), "mount", target)


def unmount(target: str | os.PathLike[str]) -> None:
    """Detach what is mounted at `target` (not what a symbolic link there leads to)."""
    umount_nofollow = 8
    if _libc.umount2(os.fsencode(target), MNT_DETACH | umount_nofollow) < 0:
        raise CallError(ctypes.get_errno(), "umount2", os.fspath(target))


def unshare(flags: int) -> None:
    """Leave namespaces: the calling thread alone, for CLONE_NEWNS."""
    if _libc.unshare(flags) < 0:
        raise CallError(ctypes.get_errno(), "unshare")
