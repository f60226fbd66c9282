"""How the kernel is to treat the process: who says it, and when. Loaded only if a document asks for something of it.

What may take the host's rights is done by the parent, where that has them, to an init that is ready: root of a user namespace
may ask for no real-time priority, and a cgroup of version 1 has a share of it only when its limits are written. Elsewhere init
does it to itself, as long as it is root in its container.
"""

from __future__ import annotations

from _struct import pack

from ocirt.plan import INIT, PARENT, step
from ocirt.spec import scheduling as names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.plan import Host, Plan
    from ocirt.plan.process import Process


def words(mask: int) -> bytes:
    """A bit mask as the kernel takes it: an array of unsigned longs."""
    found = []
    while mask:
        found.append(mask & 0xFFFFFFFFFFFFFFFF)
        mask >>= 64
    return pack(f"{len(found)}Q", *found)


def of_process(run: Process, host: Host) -> tuple[Plan, Plan]:
    """`scheduler` and `ioPriority`: init's steps, and the parent's for an init that is ready."""
    side = PARENT if host.root and not host.user_namespace else INIT
    plan: Plan = []
    if scheduler := run.process.get("scheduler"):
        flags = 0
        for name in scheduler.get("flags") or ():
            flags |= names.SCHEDULER_FLAGS[name]
        numbers = [scheduler.get(name, 0) for name in ("nice", "priority", "runtime", "deadline", "period")]
        arguments = (names.POLICIES[scheduler["policy"]], flags, *numbers)
        plan.append(step(side, "scheduling.set_scheduler", *arguments, at=run.pointer + "/scheduler"))
    if priority := run.process.get("ioPriority"):
        value = names.IO_CLASSES[priority["class"]] << 13 | priority.get("priority", 0)
        plan.append(step(side, "scheduling.set_io_priority", value, at=run.pointer + "/ioPriority"))
    return ([], plan) if side == PARENT else (plan, [])


def of_container(linux: dict[str, Any]) -> Plan:
    """`personality` and `memoryPolicy`, which all processes of the container get."""
    plan: Plan = []
    if personality := linux.get("personality"):
        domain = names.DOMAINS[personality["domain"]]
        plan.append(step(INIT, "scheduling.set_personality", domain, at="/linux/personality"))
    if policy := linux.get("memoryPolicy"):
        mode = names.MEMORY_MODES[policy["mode"]]
        for name in policy.get("flags") or ():
            mode |= names.MEMORY_FLAGS[name]
        nodes = words(names.members(policy.get("nodes", "")))
        plan.append(step(INIT, "scheduling.set_memory_policy", mode, nodes, at="/linux/memoryPolicy"))
    return plan


def on_cpus(run: Process, side: str, cloning: Plan, placing: Plan) -> tuple[Plan, Plan]:
    """The clone of a process of `exec`, and what that does once it is in its cgroup, by `execCPUAffinity`.

    Without it these are `cloning` and `placing`. `initial` holds until then: the runtime lends it, as version 2 has no before.
    """
    section, at = run.process["execCPUAffinity"], run.pointer + "/execCPUAffinity"
    initial, final = (words(names.members(section.get(name, ""))) for name in ("initial", "final"))
    if not (initial or final):
        return cloning, placing
    if initial:
        lend = step(PARENT, "scheduling.lend_affinity", initial, at=at + "/initial")
        cloning = [lend, *cloning, step(PARENT, "scheduling.return_affinity")]
    return cloning, [step(side, "scheduling.set_affinity", final, at=at + "/final")] if final else []
