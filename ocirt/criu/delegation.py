"""The options of the machine's cgroup2, which CRIU takes away.

It mounts the file system anew to look at cgroups, and that gives its options to all mounts of it: `nsdelegate` would be gone,
without which a container may do more to its cgroup than it should (kernel, admin-guide/cgroup-v2.rst, "Mounting").
"""

from __future__ import annotations

import posix
import select

from ocirt.kernel import mount
from ocirt.kernel.process import close_all_but
from ocirt.paths import read_bytes

_OURS = "/proc/self/mountinfo"
_LIMIT = 1 << 26
_OF_ALL = (b"rw", b"ro")  # what any file system has
_PATIENCE = 10_000  # milliseconds for a CRIU whose caller was killed: it puts back what it has changed


class Kept:
    """Around what a CRIU does: afterwards the options are what they were, also if this process is killed meanwhile."""

    def __init__(self, criu: int) -> None:
        """criu: its pid, a child of this process, which has ended when this is left."""
        self._criu = criu
        self._guard = 0
        self._held = -1

    def __enter__(self) -> None:
        """Raises OSError."""
        before = options()
        if not before:
            return
        end, self._held = posix.pipe2(posix.O_CLOEXEC)
        pidfd = posix.pidfd_open(self._criu)
        try:
            self._guard = posix.fork()
            if not self._guard:
                try:
                    _watch(end, pidfd, before)
                finally:
                    posix._exit(0)
        finally:
            posix.close(end)
            posix.close(pidfd)

    def __exit__(self, *_: object) -> None:
        if self._held >= 0:
            posix.close(self._held)
            posix.waitpid(self._guard, 0)


def _watch(end: int, pidfd: int, before: tuple[str, ...]) -> None:
    """In a process of its own: wait for the end of the caller's work, and of CRIU."""
    posix.setsid()  # no signal of the caller's terminal
    close_all_but((end, pidfd), 0)  # with the caller's end of CRIU's socket open, that would wait for requests
    posix.read(end, 1)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(_PATIENCE)
    put_back(before)


def options(mountinfo: bytes | None = None) -> tuple[str, ...]:
    """Those that are in force; none without a cgroup2. Raises OSError."""
    for line in (read_bytes(_OURS, _LIMIT) if mountinfo is None else mountinfo).split(b"\n"):
        _, dash, rest = line.partition(b" - ")
        words = rest.split(b" ")
        if dash and len(words) >= 3 and words[0] == b"cgroup2":
            return tuple(one.decode() for one in words[2].split(b",") if one not in _OF_ALL)
    return ()


def put_back(before: tuple[str, ...]) -> None:
    """Have these in force again, if they are not. Whoever may not do that could not take them away either."""
    if before and options() != before:
        try:
            posix.close(mount.new_mount("cgroup2", "", tuple((one, None) for one in before), 0))
        except OSError:
            pass
