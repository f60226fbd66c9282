"""The steps that put a container into a resctrl group. Loaded only if config.json has `linux.intelRdt`."""

from __future__ import annotations

from errno import ENOENT

from ocirt.cgroups.resctrl import POINTER, places, text_of
from ocirt.errors import Error
from ocirt.plan import PARENT, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan


def make(rdt: dict[str, Any], host: Host, container_id: str) -> Plan:
    """Make the groups, before there is a process. Raises Error for what the host does not have, in runc's words."""
    mounted = host.resctrl
    if mounted is None:
        message = "intelRdt is specified in config, but Intel RDT is not enabled"
        hint = "leave it out, or mount resctrl at /sys/fs/resctrl if this processor has it"
        raise Error("unsupported", message, subject=POINTER, hint=hint)
    for name, resource, feature in (("l3CacheSchema", "L3", "CAT"), ("memBwSchema", "MB", "MBA")):
        if rdt.get(name) and resource not in mounted.resources:
            message = f"intelRdt.{name} is specified in config, but Intel RDT/{feature} is not enabled"
            raise Error("unsupported", message, subject=f"{POINTER}/{name}", hint="leave it out")
    if rdt.get("enableMonitoring") and not any(name.endswith("_MON") for name in mounted.resources):
        message = "intelRdt.enableMonitoring is specified in config, but this host cannot monitor"
        raise Error("unsupported", message, subject=POINTER + "/enableMonitoring", hint="leave it out")
    group, monitor = places(mounted.root, rdt, container_id)
    return [step(PARENT, "resctrl.make", mounted.root, group, monitor, text_of(rdt), bool(rdt.get("closID")), at=POINTER)]


def join(rdt: dict[str, Any], host: Host, container_id: str) -> Plan:
    """Put init into them; its children will be there, too."""
    root = host.resctrl.root
    return [step(PARENT, "resctrl.join", root, *places(root, rdt, container_id), at=POINTER)]


def join_again(kept: dict[str, Any]) -> Plan:
    """Put another process where the container is, by what its record has kept; a group that is gone holds nobody."""
    return [step(PARENT, "resctrl.join", kept["root"], kept["group"], kept["monitor"], at=POINTER, errors={ENOENT: None})]
