"""Trees of folders that somebody else made: walked by descriptors, however deep they are, and without following anything.

A path to the bottom may be longer than the system takes, and a descriptor or a call's frame for each level more than there are.
So there is one descriptor at a time: the way up is "..", which has to be the folder that we came from.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator

from ocirt_csi.kernel import calls

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def walk(root: int) -> Iterator[tuple[int, str, bool]]:
    """All below a folder: a descriptor of the folder that an entry is in, its name, whether it is a folder; what is in it first.

    An entry may be taken away by whoever gets it. Raises OSError; ESTALE if somebody moves folders meanwhile.
    """
    fd = os.open(".", _FLAGS, dir_fd=root)
    ways: list[tuple[str, tuple[int, int], Iterator[str]]] = []  # down to here: name, the folder above, what is left of that
    try:
        left = iter(os.listdir(fd))
        while True:
            name = next(left, None)
            if name is None:
                if not ways:
                    return
                name, wanted, left = ways.pop()
                above = os.open("..", _FLAGS, dir_fd=fd)
                os.close(fd)
                fd = above
                if _identity(fd) != wanted:
                    raise OSError(errno.ESTALE, "somebody moves folders in it", name)
                yield fd, name, True
                continue
            try:
                if not stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                    yield fd, name, False
                    continue
                below = os.open(name, _FLAGS, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):  # it went meanwhile
                continue
            ways.append((name, _identity(fd), left))
            os.close(fd)
            fd = below
            left = iter(os.listdir(fd))
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Take a folder away with all that is in it. Raises OSError."""
    sys.audit(calls.AUDIT, "remove")
    with calls.opened(path, _FLAGS) as root:
        for fd, name, is_folder in walk(root):
            if is_folder:
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
    os.rmdir(path)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino
