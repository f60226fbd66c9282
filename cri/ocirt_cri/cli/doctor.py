"""`ocirt doctor`: what of this machine keeps pods, or some of what pods may ask for, from running."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ocirt.errors import Error
from ocirt_cri.cli import output
from ocirt_cri.cli.checkup import BAD, OK, Finding, daemon, machine, networks

_CHECKS: tuple[Callable[[Any], Iterable[Finding]], ...] = (
    machine.kernel,
    machine.cgroups,
    machine.filesystems,
    machine.namespaces,
    machine.seccomp,
    machine.apparmor,
    machine.limits,
    machine.disk,
    networks.firewall,
    networks.configuration,
    daemon.answers,
)


def run(given: Any, args: list[str]) -> int:
    """Print all findings. 1 if one of them is bad."""
    del args
    found: list[Finding] = []
    for check in _CHECKS:
        try:
            found += check(given)
        except (Error, OSError) as err:
            found.append(Finding(check.__name__, BAD, str(err), "this could not be looked at"))
    if given.get("json"):
        output.say_json([one.document() for one in found])
    else:
        output.out("".join(f"{one}\n" for one in found))
        wrong = sum(one.level != OK for one in found)
        output.out("nothing is wrong\n" if not wrong else f"{wrong} of {len(found)} need a look\n")
    return 1 if any(one.level == BAD for one in found) else 0
