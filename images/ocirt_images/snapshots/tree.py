"""Trees that a container has written: how much they take.

They are walked by descriptors, and names are never put together to paths: no symbolic link is followed, and no depth is too deep.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ocirt_images.snapshots.backend import Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512  # the unit of st_blocks, whatever the file system's own is (stat(2))

# overlayfs' marks on what it has written; nothing else's business.
OVERLAY_PREFIXES = ("trusted.overlay.", "user.overlay.")


def copy_attributes(source: Path, target: Path) -> None:
    """Give the directory `target` owner, mode and extended attributes of `source`. Raises OSError."""
    found = os.stat(source, follow_symlinks=False)
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, found.st_uid, found.st_gid)
    os.chmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        if not name.startswith(OVERLAY_PREFIXES):
            os.setxattr(target, name, os.getxattr(source, name))


def usage(path: Path, between: Callable[[], object] | None = None) -> Usage:
    """What the tree at `path` takes, itself included; a file with several links counts once.

    between: is called after each directory; it may take its time.
    It may be in use: what goes away meanwhile is left out, and so is the rest of a directory that is moved while it is being
    looked through. Raises OSError for what cannot be read.
    """
    here = os.open(path, _DIRECTORY)
    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    # One descriptor for any depth: the way back is "..", if that still is where we came from.
    above: list[tuple[int, int, list[str]]] = []
    try:
        top = os.stat(here)
        size, inodes = top.st_blocks * _BLOCK, 1
        names = []
        while True:
            for found, name in _entries(here):
                if stat.S_ISDIR(found.st_mode):
                    names.append(name)
                elif found.st_nlink > 1:
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    seen.add((found.st_dev, found.st_ino))
                size += found.st_blocks * _BLOCK
                inodes += 1
            if between is not None:
                between()
            while True:
                if names:
                    below = _enter(here, names.pop())
                    if below is None:
                        continue
                    now = os.stat(here)
                    above.append((now.st_dev, now.st_ino, names))
                    os.close(here)
                    here, names = below, []
                    break
                if not above:
                    return Usage(size, inodes)
                device, inode, names = above.pop()
                back = os.open("..", _DIRECTORY, dir_fd=here)
                os.close(here)
                here = back
                now = os.stat(here)
                if (now.st_dev, now.st_ino) != (device, inode):
                    return Usage(size, inodes)
    finally:
        os.close(here)


def _entries(directory: int) -> list[tuple[os.stat_result, str]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                found.append((entry.stat(follow_symlinks=False), entry.name))
            except FileNotFoundError:
                pass  # removed since it was listed
    return found


def _enter(directory: int, name: str) -> int | None:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None  # removed or exchanged since it was listed
        raise
