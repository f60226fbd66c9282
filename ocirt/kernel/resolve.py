"""Paths inside a container's root: always resolved by openat2(2) with RESOLVE_IN_ROOT, always used by descriptor.

A symlink of the image, however made, leads inside the root; `..` stops at it; magic links are refused. Every function raises
CallError or OSError, and returns O_PATH descriptors unless it says otherwise.
"""

from __future__ import annotations

import posix
from _struct import pack
from errno import ENOENT

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import CallError, syscall
from ocirt.paths import encode

_O_PATH = 0o10000000
_IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS
S_IFMT = 0o170000
S_IFDIR = 0o040000
S_IFCHR = 0o020000


def open_in_root(root_fd: int, path: str, flags: int = _O_PATH, mode: int = 0, resolve: int = _IN_ROOT) -> int:
    """Open `path` as a process whose root is `root_fd` would."""
    how = pack("QQQ", flags | posix.O_CLOEXEC, mode, resolve)
    return syscall("openat2", root_fd, encode(path), how, len(how))


def open_no_links(root_fd: int, path: str, flags: int = _O_PATH) -> int:
    """Open `path` below `root_fd`; any symlink on the way is an error (ELOOP)."""
    return open_in_root(root_fd, path.lstrip("/"), flags, 0, k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS)


def is_directory(fd: int) -> bool:
    """Whether the descriptor is a directory's."""
    return posix.fstat(fd).st_mode & S_IFMT == S_IFDIR


def make_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open the directory `path`, making what of it is missing, one component after the other, each by its parent's descriptor."""
    try:
        return open_in_root(root_fd, path, _O_PATH | posix.O_DIRECTORY)
    except CallError as err:
        if err.errno != ENOENT:
            raise
    head, _, name = path.rstrip("/").rpartition("/")
    parent_fd = make_directory(root_fd, head or "/", mode)
    try:
        try:
            posix.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            pass  # someone was quicker, or a dangling symlink stands there: opening it tells which
        return open_in_root(root_fd, path, _O_PATH | posix.O_DIRECTORY)
    finally:
        posix.close(parent_fd)


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """Open the file `path`, making it (empty) and its directories when missing."""
    try:
        return open_in_root(root_fd, path)
    except CallError as err:
        if err.errno != ENOENT:
            raise
    head, _, name = path.rstrip("/").rpartition("/")
    parent_fd = make_directory(root_fd, head or "/")
    try:
        flags = posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        posix.close(posix.open(name, flags, mode, dir_fd=parent_fd))
    except FileExistsError:
        pass
    finally:
        posix.close(parent_fd)
    return open_in_root(root_fd, path)
