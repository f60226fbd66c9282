"""`linux.cgroupsPath`: below the parent that the kubelet has made, or the daemon's own.

With cgroupfs it is `PARENT/ID`; with systemd the parent is a slice, and the container a scope `ocirt-ID.scope` in it. A kubelet's
parent is one pod's alone. Below another one a pod with limits of its own has the cgroup `PARENT/pod-POD`, and its containers in
that; with systemd it has not, as a slice would have to be made for it.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ocirt.cgroups.systemd import expand
from ocirt.errors import Error
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    from ocirt_api.cri.api_pb2 import PodSandboxConfig
    from ocirt_cri.spec.inputs import Settings

_PARENTS = {"cgroupfs": "/ocirt", "systemd": "system.slice"}
_PREFIX = "ocirt"
_POD = "pod-"
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


def of_pod(config: PodSandboxConfig, identifier: str, settings: Settings, field: str) -> tuple[str, bool]:
    """What is above a pod's containers, as `parent` says it, and whether that holds this pod and nothing else. Raises Error."""
    above = parent(config.linux.cgroup_parent, settings, field)
    if is_of_one_pod(config.linux.cgroup_parent, config.metadata.uid):
        return above, True
    limited = config.linux.HasField("resources") or config.linux.HasField("overhead")
    if limited and settings.cgroup_manager != "systemd":
        return f"{above}/{_POD}{identifier}", True
    return above, False


def is_of_one_pod(cgroup_parent: str, uid: str) -> bool:
    """Whether a pod's parent cgroup is its own, as the kubelet's are: `…/podUID`, or `…-podUID.slice` with `_` for `-`.

    Others put many pods below one parent, whose use says nothing of any of them.
    """
    name = cgroup_parent.rstrip("/").rpartition("/")[2].removesuffix(_SLICE)
    return bool(uid) and name.endswith((f"pod{uid}", f"pod{uid.replace('-', '_')}"))


def path(config: PodSandboxConfig, pod: str, settings: Settings, identifier: str, field: str) -> str:
    """The cgroupsPath of a container of a pod. Raises Error."""
    above, _ = of_pod(config, pod, settings, field)
    if settings.cgroup_manager == "systemd":
        return f"{above}:{_PREFIX}:{identifier}"
    return f"{above}/{identifier}"
