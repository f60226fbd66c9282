"""The size of a writable layer, limited by the file system where it can do that: btrfs, or ext4 and XFS with project quota.

On btrfs the layer's directory is a subvolume whose quota group has the limit, elsewhere its files are a project of their own.
Both are marks on the directory itself: nothing has to be remembered, and who finds the directory can remove it with its limit.

The order, and what a kill leaves: the directory; its mark; the limit. A directory without its limit is an unfinished writable
layer, which goes as every other does. When it goes: the limit of a project first (a number of nobody's would keep it else), then
the directory. A quota group goes with its subvolume.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.quota import btrfs, project
from ocirt_images.store import notes
from ocirt_images.store.trees import remove_tree

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_images.store.changes import Changes

_TRIES = 100
_SMALL = 1 << 20  # bytes
# What a file system without project quota, or a kernel without quotactl_fd(2), answers.
_NO_PROJECTS = {errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESRCH, errno.ENOTBLK}
_NEEDS = (
    "it takes btrfs with `btrfs quota enable`, or XFS or ext4 mounted with prjquota (ext4 made by `mkfs.ext4 -O quota,project`) "
    "on Linux 5.14; or leave --size out"
)


def make_directory(path: Path, size: int, changes: Changes) -> None:
    """Make the directory `path` for a writable layer. size: what it may take, in bytes; 0: no limit.

    Raises Error("unsupported") where no limit can be had, which says what the file system would need, and leaves what is made so
    far to `remove_directory`; Error("exhausted"), OSError.
    """
    if not size:
        changes.mkdir(path)
        return
    try:
        if btrfs.is_here(path.parent):
            changes.make_subvolume(path)
            changes.chmod(path, 0o700)
            changes.limit_subvolume(path, size)
        else:
            changes.mkdir(path)
            _make_project(path, size, changes)
    except OSError as err:
        raise _explain(err, path) or err from None


def _make_project(path: Path, size: int, changes: Changes) -> None:
    for _ in range(_TRIES):
        number = project.draw()
        found = project.read(path, number)
        if found.inodes or found.size or found.limit:
            continue
        changes.assign_project(path, number)
        # Two who drew the same number at once see each other's directory, and both draw again.
        if project.read(path, number).inodes <= 1:
            changes.limit_project(path, number, size)
            return
    raise Error("exhausted", "no number is free for a project", subject=str(path.parent))


def _explain(err: OSError, path: Path) -> Error | None:
    subject = str(path.parent)
    what = "the size of a writable layer cannot be limited here"
    if err.errno == errno.ENOTCONN:
        hint = f"`btrfs quota enable {subject}` switches them on, with --simple at less cost (Linux 6.7); or leave --size out"
        return Error("unsupported", what, subject=subject, cause="quotas are off for this btrfs", hint=hint)
    if err.errno in (errno.EPERM, errno.EACCES):
        hint = "leave --size out, or be root of the machine"
        return Error("unsupported", what, subject=subject, cause="only root of the machine sets limits", hint=hint)
    if err.errno in _NO_PROJECTS:
        return Error("unsupported", what, subject=subject, cause="the file system has no quota for that", hint=_NEEDS)
    return None


def remove_directory(path: Path, changes: Changes) -> None:
    """Remove the directory of a writable layer, its note first, with its limit. It is no error if it is gone. Raises OSError."""
    note = path / notes.WRITABLE
    if note.exists():
        changes.unlink(note)
        changes.fsync_directory(path)
    if path.is_dir() and not path.is_symlink():
        if btrfs.is_subvolume(path):
            _destroy(path, changes)
        elif number := project.of(path):
            _release(path, number, changes)
    remove_tree(path, changes)


def _destroy(path: Path, changes: Changes) -> None:
    """At once, where that is allowed; else the tree is emptied file by file, and rmdir(2) removes an empty subvolume."""
    try:
        changes.remove_subvolume(path)
    except OSError as err:
        if err.errno not in (errno.EPERM, errno.EACCES, errno.ENOTEMPTY, errno.EINVAL):
            raise
    else:
        changes.fsync_directory(path.parent)


def _release(path: Path, number: int, changes: Changes) -> None:
    try:
        changes.limit_project(path, number, 0)
    except OSError as err:
        if err.errno not in {*_NO_PROJECTS, errno.EPERM, errno.ENOENT}:
            raise  # quotas that were switched off meanwhile limit nothing


def has_room(path: Path) -> bool:
    """Whether a file system has space for a small file."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize > _SMALL


def usage(path: Path) -> tuple[int, int | None] | None:
    """What a limited directory takes, as its file system counts: bytes, and inodes (None: btrfs counts none). None: no limit.

    Raises OSError.
    """
    if btrfs.is_subvolume(path):
        size = btrfs.usage(path)
        return None if size is None else (size, None)
    number = project.of(path)
    if not number:
        return None
    try:
        found = project.read(path, number)
    except OSError as err:
        if err.errno in _NO_PROJECTS or err.errno == errno.EPERM:
            return None
        raise
    return found.size, found.inodes
