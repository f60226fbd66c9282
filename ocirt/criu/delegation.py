"""The options of the machine's cgroup2, which CRIU takes away.

It mounts the file system anew to look at cgroups, and that gives its options to all mounts of it: `nsdelegate` would be gone,
without which a container may do more to its cgroup than it should (kernel, admin-guide/cgroup-v2.rst, "Mounting").
"""

from __future__ import annotations

import posix

from ocirt.kernel import mount
from ocirt.paths import read_bytes

_OURS = "/proc/self/mountinfo"
_LIMIT = 1 << 26
_OF_ALL = (b"rw", b"ro")  # what any file system has


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
