"""Capabilities (capabilities(7)).

First what is dropped with ALL, then what is added, then what else is dropped. A privileged container has all. What is added to
the ambient set is in all the others as well, so that a user who is not root keeps it over execve(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.spec.capabilities import NAMES, NUMBERS
from ocirt.spec.names import nearest_after
from ocirt_cri.spec.refuse import invalid, shown, unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_api.cri.api_pb2 import LinuxContainerSecurityContext
    from ocirt_cri.spec.inputs import Host, Json, Settings

FIELD = "config.linux.security_context.capabilities"
_ALL = "ALL"
_PREFIX = "CAP_"


def check(security: LinuxContainerSecurityContext) -> None:
    """Names, and what contradicts itself. Raises Error."""
    wanted = security.capabilities
    _names(wanted.add_capabilities, "add_capabilities")
    dropped = _names(wanted.drop_capabilities, "drop_capabilities")
    for number, name in enumerate(_names(wanted.add_ambient_capabilities, "add_ambient_capabilities")):
        if name in dropped:
            field = f"{FIELD}.add_ambient_capabilities[{number}]"
            raise invalid(field, f"{name.removeprefix(_PREFIX)} is in drop_capabilities as well", "leave it out of one of them")


def sets(security: LinuxContainerSecurityContext, settings: Settings, host: Host) -> Json:
    """`process.capabilities`. Raises Error for one that cannot be had here."""
    wanted = security.capabilities
    ambient = set(_expand(_names(wanted.add_ambient_capabilities, "add_ambient_capabilities"), "add_ambient_capabilities", host))
    if security.privileged:
        had = set(host.capabilities)
    else:
        dropped = _names(wanted.drop_capabilities, "drop_capabilities")
        had = set() if _ALL in dropped else {name for name in settings.capabilities if name in host.capabilities}
        had |= set(_expand(_names(wanted.add_capabilities, "add_capabilities"), "add_capabilities", host))
        had -= set(dropped)
    had |= ambient
    everything = [name for name in NAMES if name in had]
    kept = [name for name in NAMES if name in ambient]
    found: Json = {"bounding": everything, "effective": everything, "permitted": everything}
    return found | {"inheritable": kept, "ambient": kept} if kept else found


def _names(given: Iterable[str], name: str) -> list[str]:
    found = []
    for number, word in enumerate(given):
        upper = word.upper()
        if upper in (_ALL, _PREFIX + _ALL):
            found.append(_ALL)
            continue
        full = upper if upper.startswith(_PREFIX) else _PREFIX + upper
        if full not in NUMBERS:
            near = nearest_after(_PREFIX, full, NUMBERS)
            hint = f"did you mean {near.removeprefix(_PREFIX)}?" if near else "see capabilities(7); names come without CAP_"
            raise invalid(f"{FIELD}.{name}[{number}]", f"{shown(word)} is no capability", hint)
        found.append(full)
    return found


def _expand(names: list[str], name: str, host: Host) -> list[str]:
    found: list[str] = []
    for number, one in enumerate(names):
        if one == _ALL:
            found += host.capabilities
        elif one in host.capabilities:
            found.append(one)
        else:
            what = f"this host cannot give {one.removeprefix(_PREFIX)}"
            raise unsupported(f"{FIELD}.{name}[{number}]", what, "its kernel, or ocirtd itself, does not have it")
    return found
