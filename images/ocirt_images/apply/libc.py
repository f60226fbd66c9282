"""System calls that Python has no function for, one thin wrapper each. All raise OSError, with the call's name."""

from __future__ import annotations

import ctypes
import os
import struct

AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_RECURSIVE = 0x1000, 0x100, 0x8000
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
FICLONE = 0x40049409
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
MNT_DETACH = 2
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 2, 4, 8, 1, 32, 16384, 1 << 18
OPEN_TREE_CLONE = 1
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE, PR_CAP_AMBIENT = 1, 24, 38, 4, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 2, 4, 8

_CAPABILITY_VERSION_3 = 0x20080522
# From 424 on all architectures agree on the numbers.
_NR_OPEN_TREE, _NR_OPENAT2, _NR_LANDLOCK_CREATE, _NR_LANDLOCK_ADD, _NR_LANDLOCK_RESTRICT = 428, 437, 444, 445, 446
_NR_FCHMODAT2 = 452

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_syscall = _libc.syscall


def _check(result: int, call: str, name: bytes | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}", *([os.fsdecode(name)] if name else []))
    return result


# struct open_how: flags, mode, resolve. The kernel only reads it.
_RESOLVE = RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH
_HOW_BENEATH = struct.pack("=QQQ", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _RESOLVE)
_how_size = ctypes.c_size_t(len(_HOW_BENEATH))
_nr_openat2 = ctypes.c_long(_NR_OPENAT2)


def open_directory(root: int, path: bytes) -> int:
    """openat2(2): a directory below the directory `root`, by a path in which no component is a symlink."""
    return _check(_syscall(_nr_openat2, root, path or b".", _HOW_BENEATH, _how_size), "openat2", path)


def chmod_node(directory: int, name: bytes, mode: int) -> None:
    """fchmodat2(2), Linux 6.6: the mode of something that cannot be opened, never through a symlink."""
    _check(_syscall(ctypes.c_long(_NR_FCHMODAT2), directory, name, mode, AT_SYMLINK_NOFOLLOW), "fchmodat2", name)


def clone_mount(fd: int) -> int:
    """open_tree(2): a mount of a directory alone, attached nowhere: `..` ends there."""
    flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | os.O_CLOEXEC
    return _check(_syscall(ctypes.c_long(_NR_OPEN_TREE), fd, b"", flags), "open_tree")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2)."""
    _check(_libc.setns(fd, kind), "setns")


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    """mount(2)."""
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), data), "mount", target)


def umount(target: bytes, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags), "umount2", target)


def pivot_root(new: bytes, old: bytes) -> None:
    """pivot_root(2)."""
    _check(_libc.pivot_root(new, old), "pivot_root", new)


def prctl(option: int, argument: int, second: int = 0) -> int:
    """prctl(2)."""
    return _check(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(second), 0, 0), f"prctl {option}")


def capset(permitted: int) -> None:
    """capset(2): permitted and effective are `permitted`, inheritable is empty."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    _check(_libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)), "capset")


def capget() -> int:
    """capget(2): the permitted capabilities of this thread."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    return int(low) | int(high) << 32


def landlock_version() -> int:
    """The version of landlock that the kernel has; 0 for none."""
    result: int = _syscall(ctypes.c_long(_NR_LANDLOCK_CREATE), None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    return max(result, 0)


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2)."""
    size = ctypes.c_size_t(len(attributes))
    return _check(_syscall(ctypes.c_long(_NR_LANDLOCK_CREATE), attributes, size, 0), "landlock_create_ruleset")


def landlock_allow_beneath(ruleset: int, access: int, directory: int) -> None:
    """landlock_add_rule(2)."""
    rule = struct.pack("=Qi", access, directory)
    _check(_syscall(ctypes.c_long(_NR_LANDLOCK_ADD), ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0), "landlock_add_rule")


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2): for this thread and those that it starts."""
    _check(_syscall(ctypes.c_long(_NR_LANDLOCK_RESTRICT), ruleset, 0), "landlock_restrict_self")
