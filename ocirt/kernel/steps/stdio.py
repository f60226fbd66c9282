"""The program's standard streams."""

from __future__ import annotations

import posix
from errno import EINVAL, EPERM, EROFS

from ocirt.kernel import resolve
from ocirt.kernel.run import Run


def take(run: Run) -> None:
    """Put the pipes of an attached run in the place of the caller's streams."""
    for fd, end in enumerate(run.stdio or ()):
        if end >= 0:
            posix.dup2(end, fd, inheritable=True)


def _null(status: posix.stat_result) -> bool:
    return status.st_mode & resolve.S_IFMT == resolve.S_IFCHR and status.st_rdev == posix.makedev(1, 3)


def reopen_null(run: Run) -> None:
    """Where a stream is the host's /dev/null, take the container's: a link to the host's files has no place inside."""
    null = -1
    for fd in range(3):
        if not _null(posix.fstat(fd)):
            continue
        if null < 0:
            try:
                null = resolve.open_in_root(run.root_fd, "/dev/null", posix.O_RDWR | posix.O_NOCTTY)
            except OSError:
                return  # there is none
            if not _null(posix.fstat(null)):
                break
        posix.dup2(null, fd, inheritable=True)
    if null >= 0:
        posix.close(null)


def own(run: Run, uid: int) -> None:
    """Give the streams to the program's user, so that it can open /dev/stdout; what is not ours to give stays."""
    del run
    seen: list[tuple[int, int]] = []
    for fd in range(3):
        status = posix.fstat(fd)
        place = (status.st_dev, status.st_ino)
        if status.st_uid == uid or _null(status) or place in seen:
            continue
        seen.append(place)
        try:
            posix.fchown(fd, uid, -1)
        except OSError as err:
            if err.errno not in (EINVAL, EPERM, EROFS):
                raise
