"""The steps that give a container its cgroup where systemd makes it: a scope, which is made around a process.

So the pid of init is handed over after its clone, and init waits until it is in its place. The functions are those of
ocirt.plan.cgroup.
"""

from __future__ import annotations

from ocirt.cgroups import systemd
from ocirt.cgroups.systemd import unit_of
from ocirt.plan import INIT, PARENT, cgroup, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.devices import Rule
    from ocirt.cgroups.limits import Entry
    from ocirt.cgroups.systemd import Unit
    from ocirt.plan import Host, Plan, Request


def unit(spec: dict[str, Any], host: Host, request: Request) -> Unit:
    """The container's unit. Raises Error."""
    return unit_of(spec["linux"].get("cgroupsPath"), request.container_id, user=host.systemd.user)


def paths(spec: dict[str, Any], host: Host, request: Request) -> dict[str, str]:
    """The container's cgroup directories by controller. Raises Error."""
    return systemd.directories(unit(spec, host, request), host.layout, host.systemd.control_group)


def entries_of(spec: dict[str, Any], host: Host) -> list[Entry]:
    """The writes into cgroup files, which are made besides: not everything is a property. Raises Error."""
    linux = spec["linux"]
    if resources := linux.get("resources"):
        linux = linux | {"resources": systemd.rounded(resources)}
    return cgroup.entries_of({"linux": linux}, host)


def before(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """What can be done without init."""
    del spec, entries, host, request
    return [step(PARENT, "cgroup.check", paths, at=systemd.POINTER)]


def enter(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """Hand init over, which waits until that is done."""
    plan = hand_over(spec, paths, entries, host, request)
    return [*plan, step(PARENT, "sync.tell", "grouped"), step(INIT, "sync.expect", "grouped")]


def hand_over(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """Have a scope made around the process that was started last, and set what systemd does not."""
    linux, mode = spec["linux"], host.layout.mode
    scope = unit(spec, host, request)
    resources = linux.get("resources") or {}
    properties = systemd.describing(scope, mode, spec.get("annotations") or {})
    properties += _device_properties(cgroup.rules_of(linux), mode)
    properties += systemd.resources(resources, mode, host.systemd.version)[0]
    plan = [
        step(PARENT, "systemd.start", scope.name, scope.user, tuple(properties), paths, at=systemd.POINTER),
        step(PARENT, "cgroup.make", paths, at=systemd.POINTER),
    ]
    if mode != "v2":
        plan.append(step(PARENT, "cgroup.attach", paths, at=systemd.POINTER))
    if early := [entry for entry in entries if entry[0] != "cpu"]:
        plan.append(step(PARENT, "cgroup.limit", paths, tuple(early), at="/linux/resources"))
    return plan + cgroup.device_steps(linux, paths, host)


def after(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """The processor's limits, once init is set up, and stands still."""
    scope = unit(spec, host, request)
    later = systemd.resources(spec["linux"].get("resources") or {}, host.layout.mode, host.systemd.version)[1]
    if not later:
        return cgroup.after(spec, paths, entries, host, request)
    plan = [step(PARENT, "systemd.set_properties", scope.name, scope.user, tuple(later), at="/linux/resources/cpu")]
    # With each change systemd puts its own device rules over ours.
    return plan + cgroup.device_steps(spec["linux"], paths, host) + cgroup.after(spec, paths, entries, host, request)


def _device_properties(rules: list[Rule], mode: str) -> list[systemd.Property]:
    from ocirt.errors import Error  # noqa: PLC0415

    try:
        return systemd.device_rules(rules)
    except Error:
        if mode != "v2":
            raise
        # A hole in an allowed range: the program can have it, systemd cannot.
        return systemd.EVERYTHING
