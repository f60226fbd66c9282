"""A directory tree as data: everything that a layer's archive can say about it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple


class Node(NamedTuple):
    """One path. `content` is a file's digest, a symlink's target, a device's number; `same` the first path of the same inode."""

    mode: str
    owner: tuple[int, int]
    mtime: int
    content: str
    xattrs: tuple[tuple[str, bytes], ...]
    same: str


def snapshot(top: Path, *, ignore: str = "") -> dict[str, Node]:
    """Each path below `top`, and `top` itself as `.`, but for what is at or below the path `ignore`."""
    found: dict[str, Node] = {}
    inodes: dict[tuple[int, int], str] = {}
    names = [os.curdir]
    for place, directories, files in os.walk(os.fsencode(top)):
        relative = os.path.relpath(place, os.fsencode(top))
        names += [os.path.normpath(os.path.join(os.fsdecode(relative), os.fsdecode(name))) for name in directories + files]
    for name in sorted(names):
        if ignore and (name == ignore or name.startswith(ignore + "/")):
            continue
        path = os.path.join(os.fsencode(top), os.fsencode(name))
        status = os.lstat(path)
        same = inodes.setdefault((status.st_dev, status.st_ino), name)
        found[name] = Node(
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns,
            _content(path, status),
            tuple(
                (one, os.getxattr(path, one, follow_symlinks=False)) for one in sorted(os.listxattr(path, follow_symlinks=False))
            ),
            same,
        )
    return found


def _content(path: bytes, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return os.fsdecode(os.readlink(path))
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return f"{status.st_size} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        return str(status.st_rdev)
    return ""
