"""Paths inside a container's root: always resolved by openat2(2) with RESOLVE_IN_ROOT, always used by descriptor.

A symlink of the image, however made, leads inside the root; `..` stops at it; magic links are refused. Every function raises
CallError or OSError, and returns O_PATH descriptors unless it says otherwise.
"""

from __future__ import annotations

import posix
from _struct import pack
from errno import EINVAL, ELOOP, ENOENT

from ocirt.kernel import constants as k
from ocirt.kernel.ffi import CallError, syscall
from ocirt.kernel.process import fstatfs_type
from ocirt.paths import encode

_O_PATH = 0o10000000
_IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS
_MOST_LINKS = 40  # as many as the kernel follows (path_resolution(7))
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


def open_proc() -> int:
    """The /proc in sight, which must be a procfs: a descriptor of it, to open below."""
    fd = posix.open("/proc", _O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    if fstatfs_type(fd) != k.PROC_SUPER_MAGIC:
        raise CallError(EINVAL, "fstatfs", "/proc of the host is not a procfs")
    return fd


def open_own(name: str) -> int:
    """Open a file of this process below the host's /proc, which must be in sight, for writing."""
    proc = open_proc()
    try:
        beneath = k.RESOLVE_BENEATH | k.RESOLVE_NO_XDEV | k.RESOLVE_NO_MAGICLINKS
        return open_in_root(proc, "self/" + name, posix.O_WRONLY, 0, beneath)
    finally:
        posix.close(proc)


def is_directory(fd: int) -> bool:
    """Whether the descriptor is a directory's."""
    return posix.fstat(fd).st_mode & S_IFMT == S_IFDIR


def make_directory(root_fd: int, path: str, mode: int = 0o755, links: int = _MOST_LINKS) -> int:
    """Open the directory `path`, making what of it is missing, one component after the other, each by its parent's descriptor.

    A symlink to what is not there is followed, inside the root, at most `links` times: its target is made.
    """
    try:
        return open_in_root(root_fd, path, _O_PATH | posix.O_DIRECTORY)
    except CallError as err:
        if err.errno != ENOENT:
            raise
    head, name = _split(path)
    parent_fd = make_directory(root_fd, head, mode, links)
    try:
        try:
            posix.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            pass  # somebody was quicker, or it is a symlink
        return _open_or_follow(root_fd, parent_fd, head, name, links, mode, directory=True)
    finally:
        posix.close(parent_fd)


def make_file(root_fd: int, path: str, mode: int = 0o644, links: int = _MOST_LINKS) -> int:
    """Open the file `path`, making it (empty) and its directories when missing; symlinks as for `make_directory`."""
    try:
        return open_in_root(root_fd, path)
    except CallError as err:
        if err.errno != ENOENT:
            raise
    head, name = _split(path)
    parent_fd = make_directory(root_fd, head, 0o755, links)
    try:
        try:
            flags = posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
            posix.close(posix.open(name, flags, mode, dir_fd=parent_fd))
        except FileExistsError:
            pass
        return _open_or_follow(root_fd, parent_fd, head, name, links, mode, directory=False)
    finally:
        posix.close(parent_fd)


def _split(path: str) -> tuple[str, str]:
    head, _, name = path.rstrip("/").rpartition("/")
    return head or "/", name


def _open_or_follow(root_fd: int, parent_fd: int, head: str, name: str, links: int, mode: int, *, directory: bool) -> int:
    """Open `name` in its parent directory `parent_fd`, whose path is `head`; make what a dangling symlink there points to."""
    try:
        return open_in_root(root_fd, f"{head}/{name}", _O_PATH | (posix.O_DIRECTORY if directory else 0))
    except CallError as err:
        if err.errno != ENOENT:
            raise
    try:
        target = posix.readlink(name, dir_fd=parent_fd)
    except OSError:
        raise CallError(ENOENT, "openat2", f"{head}/{name}") from None  # it was taken away under our hands
    if links == 0:
        raise CallError(ELOOP, "openat2", f"{head}/{name}")
    if not target.startswith("/"):
        target = f"{head}/{target}"
    make = make_directory if directory else make_file
    return make(root_fd, target, mode, links - 1)
