"""The program's standard streams."""

from __future__ import annotations

import posix
from errno import EINVAL, EPERM, EROFS

from ocirt.kernel import constants as k
from ocirt.kernel import mount, resolve
from ocirt.kernel.run import Run
from ocirt.paths import read_bytes

_S_IFIFO = 0o010000


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
                null = resolve.open_in_root(run.root_fd, "/dev/null", posix.O_RDWR | posix.O_NOCTTY | posix.O_NONBLOCK)
                if not _null(posix.fstat(null)):
                    posix.close(null)
                    null = _own_null()
            except OSError:
                null = _own_null()
            if null < 0:
                return
        posix.dup2(null, fd, inheritable=True)
    if null >= 0:
        posix.close(null)


def _own_null() -> int:
    """A null device of nobody else's; -1 in a user namespace, to whose root the host's does not belong anyway."""
    try:
        fd = mount.new_mount("tmpfs", "tmpfs", (("nr_inodes", "3"),), k.MOUNT_ATTR_NOSUID)
    except OSError as err:
        if err.errno == EPERM:
            return -1
        raise
    try:
        posix.mknod("null", resolve.S_IFCHR | 0o666, posix.makedev(1, 3), dir_fd=fd)
        return posix.open("null", posix.O_RDWR | posix.O_CLOEXEC, dir_fd=fd)
    except PermissionError:
        return -1
    finally:
        posix.close(fd)


def give(run: Run, uid: int) -> None:
    """Give pipes to the program's user, who has the number `uid` in its user namespace: to its root they do not belong."""
    outside = -1
    for line in read_bytes(f"/proc/{run.pid}/uid_map").split(b"\n"):
        if line:
            first, mapped, size = map(int, line.split())
            if first <= uid < first + size:
                outside = mapped + uid - first
    for fd, end in enumerate(run.stdio or (-1, -1, -1)):
        stream = end if end >= 0 else fd
        status = posix.fstat(stream)
        if outside >= 0 and status.st_mode & resolve.S_IFMT == _S_IFIFO and status.st_uid != outside:
            _give(stream, outside)


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
        _give(fd, uid)


def _give(fd: int, uid: int) -> None:
    try:
        posix.fchown(fd, uid, -1)
    except OSError as err:
        if err.errno not in (EINVAL, EPERM, EROFS):
            raise  # else it is not ours to give
