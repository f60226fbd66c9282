"""Looking at the machine and the caller, for a plan."""

from __future__ import annotations

import posix

import ocirt
from ocirt.cgroups import layout
from ocirt.plan import Host


def look() -> Host:
    """Describe this machine and caller. Raises OSError when /proc cannot be read."""
    return Host(layout.detect(), posix.geteuid() == 0, in_user_namespace(), _waiter())


def _waiter() -> str:
    """The compiled launcher/waiter.c, which lies in the package; an installation without a compiler has none."""
    path = ocirt.__path__[0] + "/kernel/waiter"
    return path if posix.access(path, posix.R_OK) else ""


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace that is not the first (user_namespaces(7))."""
    try:
        fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return False  # a kernel without them
    try:
        return posix.read(fd, 256).split() != [b"0", b"0", b"4294967295"]
    finally:
        posix.close(fd)
