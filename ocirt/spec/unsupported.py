"""What the specification has and this version does not: each is refused by its name, never ignored. Loaded only if met."""

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


def refuse(pointer: str, findings: list[Finding]) -> None:
    """Append the finding that this version cannot do what is asked for at `pointer`."""
    findings.append((pointer, "not supported yet", "leave it out", "error"))
