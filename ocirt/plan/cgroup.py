"""The steps that give a container its cgroups and limits."""

from __future__ import annotations

from errno import EACCES, EPERM, EROFS

from ocirt.cgroups import devices
from ocirt.errors import Error
from ocirt.plan import INIT, PARENT, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.devices import Rule
    from ocirt.cgroups.limits import Entry
    from ocirt.plan import Errors, Host, Plan, Request

_DENIED = (EACCES, EPERM, EROFS)


def wanted(resources: dict[str, Any]) -> bool:
    """Whether config.json asks for any limit (device rules apart): then a container without cgroups is none to start."""
    return any(value for name, value in resources.items() if name != "devices")


def entries_of(spec: dict[str, Any], host: Host) -> list[Entry]:
    """The writes into cgroup files that `linux.resources` asks for, device rules apart. Raises Error."""
    resources = spec["linux"].get("resources") or {}
    if not wanted(resources):
        return []
    from ocirt.cgroups.limits import writes  # noqa: PLC0415  (only with limits)

    return writes(resources, host.layout.mode)


def before(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """Make the cgroups and limit them, before anything runs in them."""
    linux = spec["linux"]
    resources = linux.get("resources") or {}
    if not paths:
        if wanted(resources):
            raise Error(
                "unsupported",
                "no cgroup could be used to set limits",
                subject="/linux/resources",
                hint="leave the limits out, or have a cgroup delegated",
            )
        return []
    plan = [
        step(PARENT, "cgroup.check", paths, at="/linux/cgroupsPath"),
        step(
            PARENT,
            "cgroup.make",
            paths,
            at="/linux/cgroupsPath",
            errors=dict.fromkeys(_DENIED, ("cgroup.do_without", (paths,)))
            if request.lenient_cgroups and not wanted(resources)
            else None,
        ),
    ]
    if early := [entry for entry in entries if entry[0] != "cpu"]:
        plan.append(step(PARENT, "cgroup.limit", paths, tuple(early), at="/linux/resources"))
    # Not while init is at work. In version 1 the kernel takes the rules one by one, the denial of all first, and init opens
    # devices; for a program it patches its own code, which stops the other processors for longer than is won.
    plan += device_steps(linux, paths, host)
    plan.append(step(PARENT, "cgroup.open", paths, at="/linux/cgroupsPath"))
    return plan


def rules_of(linux: dict[str, Any]) -> list[Rule]:
    """The device rules of `linux`, and those that every container gets. Raises Error."""
    section = (linux.get("resources") or {}).get("devices")
    return devices.rules(section, [node["path"] for node in linux.get("devices", ())])


def device_steps(linux: dict[str, Any], paths: dict[str, str], host: Host) -> Plan:
    """Set the device rules."""
    if "devices" not in paths and host.layout.mode != "v2":
        return []
    section = (linux.get("resources") or {}).get("devices")
    rules = rules_of(linux)
    may_fail = (host.user_namespace or not host.root) and not _restricts(section)
    errors: Errors | None = dict.fromkeys(_DENIED) if may_fail else None
    if host.layout.mode == "v2":
        return [step(PARENT, "cgroup.device_program", paths, devices.program(rules), at=devices.POINTER, errors=errors)]
    return [step(PARENT, "cgroup.device_rules", paths, tuple(devices.writes(rules)), at=devices.POINTER, errors=errors)]


def _restricts(section: list[dict[str, Any]] | None) -> bool:
    # "Deny all" is what every caller sends; in a user namespace nothing can be made of it, and mknod(2) is forbidden anyway.
    return devices.denies([entry for entry in section or () if entry != {"allow": False, "access": "rwm"}])


def enter(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """Init's own step into the cgroups that clone3(2) has not put it into."""
    del spec, entries, host, request
    return [step(INIT, "cgroup.join", at="/linux/cgroupsPath")] if paths else []


def after(spec: dict[str, Any], paths: dict[str, str], entries: list[Entry], host: Host, request: Request) -> Plan:
    """The processor's limits, once init is set up: what the runtime does should not be throttled."""
    del spec, host, request
    late = [entry for entry in entries if entry[0] == "cpu"]
    return [step(PARENT, "cgroup.limit", paths, tuple(late), at="/linux/resources/cpu")] if late and paths else []
