"""The cgroup of a whole pod.

The kubelet makes a cgroup for each pod before it asks for it, sets its limits and removes it: nothing of that is touched. Where
there is none (other callers), it is made with the pod, has the pod's limits, and goes with the pod. All of this is for a thread.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from ocirt.cgroups import control, paths, systemd
from ocirt.cgroups.apply import apply
from ocirt.cgroups.change import change
from ocirt.cgroups.layout import detect
from ocirt.cgroups.limits import writes
from ocirt_cri.spec import cgroups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cri.model import Sandbox
    from ocirt_cri.spec.inputs import Settings

_FIELD = "config.linux.cgroup_parent"


def of(sandbox: Sandbox, settings: Settings) -> dict[str, str]:
    """Controller to directory, of a cgroup that holds this pod and nothing else; empty: there is none. Raises Error, OSError."""
    name, alone = cgroups.of_pod(sandbox.config, sandbox.id, settings, _FIELD)
    if not alone:
        return {}
    inner = systemd.expand(name) if settings.cgroup_manager == "systemd" else name
    return paths.resolve("/" + inner.lstrip("/"), sandbox.id, detect(), rootless=False)


def missing(cgroup: dict[str, str], settings: Settings) -> list[str]:
    """The directories that `make` will make, so that they can be removed whatever happens; none if the pod's cgroup is there."""
    if settings.cgroup_manager == "systemd" or any(os.path.isdir(one) for one in _main(cgroup)):
        return []
    return control.missing(cgroup)


def _main(cgroup: dict[str, str]) -> list[str]:
    """Those of hierarchies that a kubelet knows: all with a controller, or version 2 alone."""
    named = [directory for controller, directory in cgroup.items() if controller and "=" not in controller]
    return named or list(cgroup.values())


def make(cgroup: dict[str, str], resources: dict[str, Any]) -> list[str]:
    """Make it, with these limits (`linux.resources`); the directories that were made. What fails leaves nothing."""
    made = control.create(cgroup)
    try:
        apply(cgroup, writes(resources, detect().mode, ""))
    except BaseException:
        remove(made)
        raise
    return made


def update(cgroup: dict[str, str], resources: dict[str, Any]) -> None:
    """Other limits, all or none of them. Raises Error."""
    change(cgroup, writes(resources, detect().mode, ""))


def remove(made: Iterable[str]) -> None:
    """Remove directories that were made, unless something else is in them now. Raises OSError."""
    for directory in sorted(made, key=len, reverse=True):
        try:
            os.rmdir(directory)
        except OSError as err:
            if err.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EBUSY):
                raise
