"""Cgroups by systemd: the parent's side. Loaded only with systemd as the cgroup manager."""

from __future__ import annotations

from ocirt.cgroups import control, unified, units
from ocirt.errors import Error
from ocirt.kernel.run import Run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.cgroups.systemd import Property


def start(run: Run, unit: str, user: bool, properties: tuple[Property, ...], paths: dict[str, str]) -> None:  # noqa: FBT001
    """Have systemd make a scope with init in it, and look whether it is where it was to be."""
    run.has_unit = True
    if not units.start(unit, run.pid, properties, user=user):
        run.has_unit = False
        raise units.taken(unit)
    if run.pid not in control.processes({"paths": paths}):
        raise Error("kernel", f"unit {unit} is elsewhere", subject=next(iter(paths.values())), hint=f"see systemctl show {unit}")


def set_properties(run: Run, unit: str, user: bool, properties: tuple[Property, ...]) -> None:  # noqa: FBT001
    """Change properties of the container's unit."""
    del run
    units.set_properties(unit, properties, user=user)


def attach(run: Run, unit: str, directory: str, sub: str, target: int) -> None:
    """Have a user's systemd move the process that was cloned last into the cgroup `sub` ("/…" or "") of a unit.

    A container that has moved its processes to cgroups below its own takes none any more: then it goes to where `target` is.
    """
    pid = run.stage_pid or run.pid
    try:
        units.attach(unit, sub or "/", pid, user=True)
    except Error:
        beside = unified.of_process(target)
        if sub or not beside.startswith(directory + "/"):
            raise
        units.attach(unit, beside.removeprefix(directory), pid, user=True)
