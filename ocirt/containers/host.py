"""Looking at the machine and the caller, for a plan."""

from __future__ import annotations

import posix

import ocirt
from ocirt import state
from ocirt.cgroups import layout
from ocirt.plan import Host


def look() -> Host:
    """Describe this machine and caller. Raises OSError when /proc cannot be read."""
    return Host(layout.detect(), posix.geteuid() == 0, state.in_user_namespace(), _waiter())


def _waiter() -> str:
    """The compiled launcher/waiter.c, which lies in the package; an installation without a compiler has none."""
    path = ocirt.__path__[0] + "/kernel/waiter"
    return path if posix.access(path, posix.R_OK) else ""
