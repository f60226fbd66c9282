"""What a command line hands over beside words: paths, descriptors, and a file for a pid."""

from __future__ import annotations

import posix

from ocirt.errors import Error

_MOST_DIGITS = 9


def absolute(path: str) -> str:
    """A path of the command line, before the working directory may change; "" stays."""
    if not path or path.startswith("/"):
        return path
    from ocirt import paths  # noqa: PLC0415

    return paths.absolute(path)


def descriptors(preserve: int) -> tuple[int, int]:
    """How many descriptors from 3 on are handed over: those of LISTEN_FDS (sd_listen_fds(3)), and with --preserve-fds's.

    Raises Error("usage") for one that is not open.
    """
    listen = 0
    if posix.environ.get(b"LISTEN_PID") == b"%d" % posix.getpid():
        text = posix.environ.get(b"LISTEN_FDS", b"")
        if len(text) > _MOST_DIGITS:
            raise Error("usage", "LISTEN_FDS: more descriptors than a process can have")
        listen = int(text) if text.isdigit() else 0
    if preserve < 0:
        raise Error("usage", "--preserve-fds: a negative number of descriptors")
    for fd in range(3, 3 + listen + preserve):
        try:
            inherited = posix.get_inheritable(fd)
        except OSError:
            inherited = False
        if not inherited:  # closed, or one of our own
            source = "LISTEN_FDS" if fd < 3 + listen else "--preserve-fds"
            raise Error("usage", f"{source}: descriptor {fd} is not open")
    return listen, listen + preserve


def write_pid_file(path: str, pid: int) -> None:
    """Put the pid, without a newline, into a file that appears whole. Raises OSError."""
    head, slash, name = path.rpartition("/")
    temporary = f"{head}{slash}.{name}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        fd = posix.open(temporary, flags, 0o666)
    except FileExistsError:
        posix.unlink(temporary)  # of a runtime that died here
        fd = posix.open(temporary, flags, 0o666)
    try:
        posix.write(fd, b"%d" % pid)
    finally:
        posix.close(fd)
    try:
        posix.rename(temporary, path)
    except OSError:
        posix.unlink(temporary)
        raise
