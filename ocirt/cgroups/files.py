"""Reading and writing cgroup files: small, in one call, never through a link."""

from __future__ import annotations

import posix
from errno import ENODEV, ENOENT


def read(path: str) -> str:
    """The whole of a cgroup file. Raises OSError: ENODEV when the cgroup was removed since it was opened."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = posix.read(fd, 65536)
        # The kernel hands out long lists of processes in parts.
        while more := posix.read(fd, 65536):
            text += more
    finally:
        posix.close(fd)
    return text.decode("utf-8", "surrogateescape")


def write(path: str, text: bytes) -> None:
    """Put `text` into the file by one write(2). Raises OSError with `path` as its file name."""
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    try:
        posix.write(fd, text)
    except OSError as error:
        error.filename = path
        raise
    finally:
        posix.close(fd)


def gone(error: OSError) -> bool:
    """Whether `error` says that the cgroup was removed: before its file was opened, or after."""
    return error.errno in (ENOENT, ENODEV)


def or_unknown(path: str) -> str:
    """A file's contents for an error text."""
    try:
        return read(path).strip()
    except OSError:
        return "unknown"


def join_files(paths: dict[str, str]) -> list[str]:
    """The files into which a process with one thread writes "0" to join `paths`, each opened before it enters the container.

    In version 1, `tasks` moves the writing thread alone, for which the kernel takes no lock against forks and execs: a third of
    what `attach` costs, and no wait for an RCU grace period where that lock has one.
    """
    unified = paths.get("")
    return [directory + ("/cgroup.procs" if directory == unified else "/tasks") for directory in dict.fromkeys(paths.values())]
