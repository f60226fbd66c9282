"""System calls on mounts: open_tree(2), move_mount(2), mount_setattr(2), the fsopen(2) family, pivot_root(2).

Mounts are held as descriptors from the moment they are made; a path is used only to find a source on the host. Every function
raises CallError.
"""

from __future__ import annotations

import posix
from _struct import pack

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import CallError, syscall
from ocirt.paths import encode

_O_PATH = 0o10000000


def open_tree(source: str, recursive: bool, *, dir_fd: int = k.AT_FDCWD) -> int:
    """A detached copy of the mount (recursive: with all below it) at `source`, as a descriptor. `""` means `dir_fd` itself."""
    flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC
    if recursive:
        flags |= k.AT_RECURSIVE
    if not source:
        flags |= k.AT_EMPTY_PATH
    return syscall("open_tree", dir_fd, encode(source), flags)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """Attach the detached mount `mount_fd` on top of what `target_fd` refers to."""
    syscall("move_mount", mount_fd, b"", target_fd, b"", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH)


def move_mount_to(mount_fd: int, target_fd: int) -> None:
    """`move_mount`, and close `target_fd`, whatever comes of it."""
    try:
        move_mount(mount_fd, target_fd)
    finally:
        posix.close(target_fd)


def mount_setattr(
    mount_fd: int,
    attr_set: int = 0,
    attr_clear: int = 0,
    propagation: int = 0,
    *,
    recursive: bool = False,
    path: bytes = b"",
    userns_fd: int = 0,
) -> None:
    """Change MOUNT_ATTR_* and propagation of a mount; `recursive` of all mounts below it too."""
    flags = (k.AT_RECURSIVE if recursive else 0) | (0 if path else k.AT_EMPTY_PATH)
    attributes = pack("4Q", attr_set, attr_clear, propagation, userns_fd)
    syscall("mount_setattr", mount_fd, path, flags, attributes, 32)


def new_mount(fs_type: str, source: str, data: tuple[tuple[str, str | None], ...], attributes: int) -> int:
    """A detached mount of a new file system. `data`: its options, (key, value) or (flag, None).

    A failure carries in `filename` what the file system said about it, where it did (man fsopen: reading the context).
    """
    fs_fd = configure(fs_type, source, data)
    try:
        syscall("fsconfig", fs_fd, k.FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall("fsmount", fs_fd, k.FSMOUNT_CLOEXEC, attributes)
    except CallError as err:
        err.filename = _said(fs_fd)
        raise
    finally:
        posix.close(fs_fd)


def configure(fs_type: str, source: str, data: tuple[tuple[str, str | None], ...]) -> int:
    """What `new_mount` begins with: a file system that has its options, and is not made yet."""
    fs_fd = syscall("fsopen", encode(fs_type), k.FSOPEN_CLOEXEC)
    try:
        if source:
            syscall("fsconfig", fs_fd, k.FSCONFIG_SET_STRING, b"source", encode(source), 0)
        for key, value in data:
            if value is None:
                syscall("fsconfig", fs_fd, k.FSCONFIG_SET_FLAG, encode(key), None, 0)
            else:
                syscall("fsconfig", fs_fd, k.FSCONFIG_SET_STRING, encode(key), encode(value), 0)
    except CallError as err:
        err.filename = _said(fs_fd)
        posix.close(fs_fd)
        raise
    return fs_fd


def _said(fs_fd: int) -> bytes | None:
    try:
        return posix.read(fs_fd, 4096)[2:].strip()
    except OSError:
        return None


def detach(fd: int) -> None:
    """Detach what is mounted uppermost where the mount of `fd` is, with all below it; who uses it still may (MNT_DETACH)."""
    syscall("umount2", b"/proc/self/fd/%d" % fd, k.MNT_DETACH)


def pivot_root_here() -> None:
    """Make the working directory, a mount, the root; the old root is then mounted on top of it and gets detached.

    Before that it and all below it become slaves: of what is a peer of the host's, the host's own would be unmounted, too.
    """
    old = posix.open("/", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    syscall("pivot_root", b".", b".")
    mount_setattr(old, propagation=k.MS_SLAVE, recursive=True)
    posix.close(old)
    syscall("umount2", b".", k.MNT_DETACH)
    posix.chdir("/")
