"""`linux.intelRdt` (config-linux.md, "IntelRdt"). Loaded only if met."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

SHAPES: dict[str, Any] = {
    "intelRdt": {
        "closID": str,
        "schemata": [str],
        "l3CacheSchema": str,
        "memBwSchema": str,
        "enableMonitoring": bool,
    },
}

_POINTER = "/linux/intelRdt"
_TAKEN = ("info", "mon_data", "mon_groups")  # what the kernel has there itself


def check_intel_rdt(rdt: dict[str, Any], findings: list[Finding]) -> None:
    """Append the findings."""
    name = rdt.get("closID", "")
    if name in (".", "..", *_TAKEN) or (len(name) > 1 and "/" in name) or "\n" in name:
        hint = 'the name of a group, without slashes; "/" is the group of all that are in no other'
        findings.append((_POINTER + "/closID", f'invalid intelRdt.ClosID "{name}"', hint, "error"))
    schemas = [("/" + name, rdt.get(name, ""), start) for name, start in (("l3CacheSchema", "L3"), ("memBwSchema", "MB:"))]
    schemas += [(f"/schemata/{index}", line, "") for index, line in enumerate(rdt.get("schemata", ()))]
    for place, line, start in schemas:
        if "\n" in line:
            findings.append((_POINTER + place, "has more than one line", "one line a schema; more go to schemata", "error"))
        elif line and not line.startswith(start):
            hint = f'"{start.rstrip(":")}:0=…"; others go to schemata'
            findings.append((_POINTER + place, f'"{line}" does not begin with {start}', hint, "error"))
