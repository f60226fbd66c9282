"""Paths that a caller names: targets are made and taken away without following what somebody put there."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, trees


@contextmanager
def folder(path: str, field: str) -> Iterator[int]:
    """A descriptor of a folder that is there. Raises Error("invalid") for a link or a file, Error("not-found")."""
    with _opened(path, field) as fd:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise Error("invalid", "is not a folder", subject=f"{field} {path}")
        yield fd


@contextmanager
def target(path: str, field: str, *, block: bool) -> Iterator[int]:
    """A descriptor of a target, which is made if it is missing: a folder, or a file for a block device. Its parent is there."""
    sys.audit(calls.AUDIT, "target")
    try:
        if block:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        else:
            os.mkdir(path, 0o750)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise Error("not-found", "the folder above it is not there", subject=f"{field} {path}") from None
    with _opened(path, field) as fd:
        mode = os.fstat(fd).st_mode
        if block != stat.S_ISREG(mode) or (not block and not stat.S_ISDIR(mode)):
            raise Error("invalid", f"is not a {'file' if block else 'folder'}", subject=f"{field} {path}")
        yield fd


def forget(path: str, field: str) -> None:
    """Take an empty target away; a link is taken away itself. Raises Error("in-use") for a folder with something in it."""
    sys.audit(calls.AUDIT, "forget")
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISDIR(mode):
            os.rmdir(path)
        elif stat.S_ISLNK(mode) or not os.lstat(path).st_size:
            os.unlink(path)
        else:
            raise Error("in-use", "is a file with something in it, which is not ours", subject=f"{field} {path}")
    except FileNotFoundError:
        return
    except OSError as err:
        raise Error("in-use", "cannot be taken away", subject=f"{field} {path}", cause=err.strerror or "") from None


def give_to_group(root: int, group: int) -> None:
    """Let a group own and use all below a folder, as a kubelet does with `fsGroup`, unless the folder is the group's already."""
    there = os.fstat(root)
    if there.st_gid == group and there.st_mode & stat.S_ISGID:
        return
    for fd, name, _ in trees.walk(root):
        _give(name, fd, group)
    _give(".", root, group)


def _give(name: str, folder: int, group: int) -> None:
    """Give one entry. Whoever uses the volume may put a link in its place meanwhile, so only what was opened is changed."""
    try:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:  # it went meanwhile
        return
    try:
        mode = os.fstat(fd).st_mode
        opened = f"/proc/self/fd/{fd}"  # leads to the very file, and if that is a link no further
        os.chown(opened, -1, group)
        if stat.S_ISDIR(mode):
            os.chmod(opened, stat.S_IMODE(mode) | stat.S_ISGID | 0o770)
        elif stat.S_ISREG(mode):
            os.chmod(opened, stat.S_IMODE(mode) | (0o070 & (mode >> 3)) | 0o060)
    finally:
        os.close(fd)


@contextmanager
def _opened(path: str, field: str) -> Iterator[int]:
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Error("not-found", "is not there", subject=f"{field} {path}") from None
    except OSError as err:
        raise Error("invalid", "cannot be used", subject=f"{field} {path}", cause=err.strerror or "") from None
    try:
        if stat.S_ISLNK(os.fstat(fd).st_mode):
            raise Error("invalid", "is a link", subject=f"{field} {path}")
        yield fd
    finally:
        os.close(fd)
