"""Nodes and links in the container's /dev, each made by the descriptor of its directory (CVE-2026-41579)."""

from __future__ import annotations

import posix
from errno import EINVAL

from ocirt.kernel import constants as k
from ocirt.kernel import mount, resolve
from ocirt.kernel.ffi import CallError
from ocirt.kernel.run import Run
from ocirt.paths import name as last
from ocirt.paths import parent

_KINDS = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


def open_directory(run: Run) -> None:
    """Open /dev, wherever in the container it lies."""
    run.dev_fd = resolve.make_directory(run.root_fd, "/dev")
    own, host = posix.fstat(run.dev_fd), posix.stat("/dev")
    if (own.st_dev, own.st_ino) == (host.st_dev, host.st_ino):
        raise CallError(EINVAL, "", "/dev is the host's own: nothing is made there")


def _directory(run: Run, path: str) -> int:
    """The directory of a device; /dev itself stays open."""
    place = parent(path)
    return run.dev_fd if place == "/dev" else resolve.make_directory(run.root_fd, place)


def make(run: Run, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
    """mknod(2), with that mode and owner."""
    directory = _directory(run, path)
    try:
        posix.mknod(last(path), _KINDS[kind] | mode, posix.makedev(major, minor), dir_fd=directory)
        if uid or gid:
            posix.chown(last(path), uid, gid, dir_fd=directory, follow_symlinks=False)
    except OSError as err:
        err.filename = path
        raise
    finally:
        if directory != run.dev_fd:
            posix.close(directory)


def bind(run: Run, path: str) -> None:
    """The host's node of the same name."""
    try:
        fd = mount.open_tree(path, False)
        mount.mount_setattr(fd, propagation=k.MS_PRIVATE)  # what is mounted over it stays in the container
        target = resolve.make_file(run.root_fd, path)
    except OSError as err:
        err.filename = path
        raise
    mount.move_mount(fd, target)
    posix.close(target)
    posix.close(fd)


def link(run: Run, name: str, target: str) -> None:
    """A symlink in /dev."""
    posix.symlink(target, name, dir_fd=run.dev_fd)


def link_core(run: Run) -> None:
    """/dev/core, where the kernel has /proc/kcore."""
    posix.stat("/proc/kcore")
    posix.symlink("/proc/kcore", "core", dir_fd=run.dev_fd)


def link_ptmx(run: Run) -> None:
    """/dev/ptmx as the one of the container's own devpts, in the place of whatever is there."""
    try:
        posix.unlink("ptmx", dir_fd=run.dev_fd)
    except FileNotFoundError:
        pass
    posix.symlink("pts/ptmx", "ptmx", dir_fd=run.dev_fd)
