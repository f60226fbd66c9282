"""Looking at the machine and the caller, for a plan."""

from __future__ import annotations

import posix

import ocirt
from ocirt import state
from ocirt.cgroups import layout
from ocirt.paths import read_bytes
from ocirt.plan import Host
from ocirt.plan.process import is_labelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.units import Manager
    from ocirt.plan import Request


def look() -> Host:
    """Describe this machine and caller. Raises OSError when /proc cannot be read."""
    return Host(layout.detect(), posix.geteuid() == 0, state.in_user_namespace(), _waiter())


def look_for_cgroups(host: Host, request: Request, rootless: bool | None = None) -> None:
    """Add to `host` the systemd that makes the cgroups, if one is to, and to `request` whether to go on without any.

    `rootless`: see --rootless. Raises Error when there is no systemd to use.
    """
    request.lenient_cgroups = not host.root or host.user_namespace if rootless is None else rootless
    if request.cgroups == "systemd":
        host.systemd = _systemd(host, rootless)


def _systemd(host: Host, rootless: bool | None) -> Manager:
    from ocirt.cgroups import units  # noqa: PLC0415  (only then)

    return units.look(host.layout.mode, user=units.is_for_users() if rootless is None else rootless)


def look_for(host: Host, spec: dict[str, Any]) -> None:
    """Add to `host` what only some documents ask for; `spec` is one of the right shape. Raises OSError."""
    process, linux = spec["process"], spec["linux"]
    if "intelRdt" in linux:
        from ocirt.cgroups import resctrl  # noqa: PLC0415  (only for who asks)

        host.resctrl = resctrl.find()
    if is_labelled(process) or linux.get("mountLabel"):
        host.modules = security_modules()


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
