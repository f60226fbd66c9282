"""`linux.cgroupsPath`: below the parent that the kubelet has made, or the daemon's own.

With cgroupfs it is `PARENT/ID`; with systemd the parent is a slice, and the container a scope `ocirt-ID.scope` in it.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ocirt.cgroups.systemd import expand
from ocirt.errors import Error
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Settings

_PARENTS = {"cgroupfs": "/ocirt", "systemd": "system.slice"}
_PREFIX = "ocirt"
_SLICE = ".slice"


def parent(given: str, settings: Settings, field: str) -> str:
    """The parent of a pod's cgroups: an absolute path, or the name of a slice. Raises Error."""
    wanted = given or settings.cgroup_parent or _PARENTS[settings.cgroup_manager]
    if "\0" in wanted or "\n" in wanted or ":" in wanted or ".." in wanted.split("/"):
        raise invalid(field, f"{shown(wanted)} is no path of a cgroup", "such as /kubepods/burstable/podUID")
    if settings.cgroup_manager == "systemd":
        name = posixpath.basename(wanted.rstrip("/"))
        try:
            expand(name)
        except Error:
            what = f"{shown(wanted)} is no slice of systemd"
            raise invalid(field, what, "such as kubepods-besteffort.slice; or is the kubelet's cgroupDriver cgroupfs?") from None
        return name
    if wanted.endswith(_SLICE) and "/" not in wanted:
        what = f"{shown(wanted)} is a slice of systemd, and ocirtd makes cgroups itself"
        raise invalid(field, what, 'cgroup_manager = "systemd", or cgroupDriver: cgroupfs of the kubelet')
    found = posixpath.normpath("/" + wanted.lstrip("/"))
    if found == "/":
        raise invalid(field, "the root of all cgroups", "a cgroup below it, such as /kubepods")
    return found


def path(given: str, settings: Settings, identifier: str, field: str) -> str:
    """The cgroupsPath of a container. Raises Error."""
    above = parent(given, settings, field)
    if settings.cgroup_manager == "systemd":
        return f"{above}:{_PREFIX}:{identifier}"
    return f"{above}/{identifier}"
