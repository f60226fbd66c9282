"""Looking at the machine and the caller, for a plan."""

from __future__ import annotations

import posix

import ocirt
from ocirt import state
from ocirt.cgroups import layout
from ocirt.paths import read_bytes
from ocirt.plan import Host


def look() -> Host:
    """Describe this machine and caller. Raises OSError when /proc cannot be read."""
    return Host(layout.detect(), posix.geteuid() == 0, state.in_user_namespace(), _waiter())


def security_modules() -> tuple[str, ...]:
    """Those that can confine a process here: "AppArmor", "SELinux"."""
    found = []
    try:
        enabled = read_bytes("/sys/module/apparmor/parameters/enabled").startswith(b"Y")
        if enabled and posix.access("/sys/kernel/security/apparmor", posix.F_OK):
            found.append("AppArmor")
    except OSError:
        pass
    if posix.access("/sys/fs/selinux/enforce", posix.F_OK):
        found.append("SELinux")
    return tuple(found)


def _waiter() -> str:
    """The compiled launcher/waiter.c, which lies in the package; an installation without a compiler has none."""
    path = ocirt.__path__[0] + "/kernel/waiter"
    return path if posix.access(path, posix.R_OK) else ""
