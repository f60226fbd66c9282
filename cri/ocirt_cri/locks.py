"""One ocirtd for each root and each state directory: a lock on both, taken before anything is looked at."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from ocirt.errors import Error

_NAME = "ocirtd.lock"
_MODES = {"root": 0o700, "state": 0o711}  # programs of pods' users have to reach files below the second


class Locks:
    """Locks that are held as long as the process lives, or until `release`. Raises Error("in-use", …), OSError."""

    def __init__(self, root: str, state: str) -> None:
        self._fds: list[int] = []
        try:
            for kind, directory in (("root", root), ("state", state)):
                if kind == "state" and os.path.realpath(directory) == os.path.realpath(root):
                    raise Error("usage", "root and state are the same directory", subject=directory, hint="state goes below /run")
                Path(directory).mkdir(_MODES[kind], parents=True, exist_ok=True)
                self._fds.append(_lock(directory))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of them. The files stay: who removed one might remove another's."""
        while self._fds:
            os.close(self._fds.pop())


def _lock(directory: str) -> int:
    place = os.path.join(directory, _NAME)
    fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            if err.errno not in (errno.EWOULDBLOCK, errno.EAGAIN):
                raise
            pid = os.pread(fd, 32, 0).decode(errors="replace").strip()
            words = f"is used by another ocirtd, process {pid}" if pid.isdecimal() else "is used by another ocirtd"
            raise Error("state", words, subject=directory, hint="end it, or give --root and --state of this one's own") from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except BaseException:
        os.close(fd)
        raise
    return fd
