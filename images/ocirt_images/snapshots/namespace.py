"""Which user this process is to the kernel: root of the machine, root of a user namespace, or nobody special."""

from __future__ import annotations

import os


def is_host_root() -> bool:
    """Whether this is root outside of every user namespace, who may set trusted.* attributes and make devices."""
    if os.geteuid() != 0:
        return False
    try:
        with open("/proc/self/uid_map", encoding="ascii") as lines:
            return lines.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True  # a kernel without user namespaces
