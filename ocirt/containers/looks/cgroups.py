"""Looks at cgroups: whether they can be made, which files they will have, the unit of systemd, the resctrl groups."""

from __future__ import annotations

import posix
from errno import EACCES, ENOENT, EPERM

from ocirt import paths
from ocirt.cgroups.limits import OR_NEXT, REQUIRED
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.looks import Looks

_CONTROLLERS = "/cgroup.controllers"
_RDMA = "/sys/class/infiniband"


def directories(looks: Looks, index: int, found: dict[str, str]) -> None:
    """Whether the directories may be made. Those of a unit are systemd's to make."""
    if looks.plan[index][4] or looks.find("systemd.start") >= 0:
        return  # the plan goes on without
    from ocirt.cgroups.paths import writable  # noqa: PLC0415

    usable = writable({name: path for name, path in found.items() if not paths.exists(path)})
    for name, path in found.items():
        if not paths.exists(path) and name not in usable:
            looks.fail(index, EACCES, "mkdir", path)
            return


def devices(looks: Looks, index: int, *arguments: Any) -> None:
    """Device rules: in a user namespace, and without root, the kernel takes none."""
    del arguments
    if (looks.host.user_namespace or not looks.host.root) and not looks.plan[index][4]:
        looks.fail(index, EPERM, "")


def limits(looks: Looks, index: int, found: dict[str, str], entries: tuple[Any, ...]) -> None:
    """Whether the files will be there that limits are written to."""
    from ocirt.cgroups.apply import explained  # noqa: PLC0415

    del index
    skip = False
    said = set()
    for entry in entries:
        controller, file, value, pointer, missing = entry
        if skip:
            skip = False
            continue
        there = _has_file(looks, found, controller, file)
        if missing == OR_NEXT:
            skip = there is not False
        elif there is False and missing == REQUIRED and pointer not in said:
            said.add(pointer)
            err = OSError(ENOENT, "")
            if controller in found or ("" in found and len(found) == 1):
                err.filename = f"{found.get(controller) or found['']}/{file}"
            looks.refuse(explained(found, entry, err))
        elif controller == "cpuset" and there is not False and (beyond := _beyond(file, value)):
            looks.say(pointer, f"this machine has no {beyond}", "what there is: see /sys/devices/system", "error")
        elif controller == "rdma" and there is not False and not paths.exists(_RDMA + "/" + value.partition(" ")[0]):
            looks.say(pointer, f'rdma: no device "{value.partition(" ")[0]}"', f"those of this machine: see {_RDMA}", "error")


def _has_file(looks: Looks, found: dict[str, str], controller: str, file: str) -> bool | None:
    """Whether a new cgroup will have this file; None if that cannot be told from the cgroups that are there."""
    directory = found.get(controller) or found.get("")
    if directory is None or (controller and controller not in found and len(found) > 1):
        return False
    unified = controller not in found or not controller
    while not paths.exists(directory):
        directory = paths.parent(directory)
    if unified and controller and (handed := handed_on(directory, controller)) is not True:
        return handed
    if directory == looks.host.layout.mounts.get("" if unified else controller):
        # The root has other files than the rest.
        below = [name for name in sorted(posix.listdir(directory)) if paths.exists(f"{directory}/{name}/cgroup.procs")]
        if not below:
            return True if paths.exists(f"{directory}/{file}") else None
        directory = f"{directory}/{below[0]}"
    try:
        if unified and controller and controller not in _controllers(directory):
            return None
    except OSError:
        return None  # it has just gone
    return paths.exists(f"{directory}/{file}") or (False if paths.exists(directory) else None)


def handed_on(directory: str, controller: str) -> bool | None:
    """Whether a version 2 cgroup has a controller; None if it may be given it from above, when a container's is made.

    See ocirt.cgroups.unified.hand_on. Only who may not write cannot hand on for sure: a cgroup with processes may do so, too, if
    the controller is a threaded one.
    """
    place = directory
    try:
        have = controller in _controllers(place)
        if have:
            return True
        while not have:
            place = paths.parent(place)
            have = controller in _controllers(place)
            if not posix.access(place + "/cgroup.subtree_control", posix.W_OK, effective_ids=True):
                return False
    except OSError:
        return False  # above the mount point
    return None


def _controllers(directory: str) -> list[str]:
    return paths.read_text(directory + _CONTROLLERS).split()


def _beyond(file: str, value: str) -> str:
    """The first CPU or node of a cpuset that this machine does not have, in words, or ""."""
    kind, place = ("CPU", "cpu/possible") if file.endswith("cpus") else ("memory node", "node/possible")
    try:
        text = paths.read_text("/sys/devices/system/" + place).strip()
    except OSError:
        return ""
    last = int(text.rpartition(",")[2].rpartition("-")[2])
    for part in value.strip().split(","):
        number = part.partition(":")[0].rpartition("-")[2].strip()
        if number.isdecimal() and int(number) > last:
            return f"{kind} {number}"
    return ""


def unit(looks: Looks, index: int, name: str, user: bool, *rest: Any) -> None:  # noqa: FBT001
    """Whether the unit's name is free. A systemd that cannot be asked is a finding by itself."""
    from ocirt.cgroups import units  # noqa: PLC0415  (only with systemd)

    del rest
    pointer = looks.plan[index][3]
    if any(finding[0] == pointer for finding in looks.findings):
        return  # its cgroup is in use, which is said
    try:
        taken = units.exists(name, user=user)
    except Error:
        return
    if taken:
        looks.refuse(units.taken(name), pointer)


def resctrl_groups(looks: Looks, index: int, root: str, group: str, monitor: str, schemata: str, shared: bool) -> None:  # noqa: FBT001
    """What is wrong with a group that others have made, or have not."""
    from ocirt.cgroups import resctrl  # noqa: PLC0415  (only with a section)

    try:
        resctrl.check(root, group, monitor, schemata, shared=shared)
    except Error as err:
        looks.refuse(err, looks.plan[index][3])
