"""What `linux.resources` asks for and a host's cgroup version leaves aside, for `check`, `plan` and `--debug`. Pure.

runc takes these without a word; so do we when a container starts, but who looks is told.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KERNEL = "kernel memory limits are ignored (deprecated in the kernel since Linux 5.4)"
_NOT_IN_V2 = "cgroup version 2 has no such setting"


def ignored(resources: dict[str, Any] | None, mode: str, pointer: str = "/linux/resources") -> list[tuple[str, str]]:
    """(JSON pointer, reason) for each value that `limits.writes` gives no write for, although it is set."""
    resources = resources or {}
    memory, cpu, block = (resources.get(name) or {} for name in ("memory", "cpu", "blockIO"))
    found = [(f"{pointer}/memory/{name}", _KERNEL) for name in ("kernel", "kernelTCP") if memory.get(name)]
    if mode != "v2":
        return found
    if memory.get("swappiness") not in (None, -1, (1 << 64) - 1):
        found.append((pointer + "/memory/swappiness", _NOT_IN_V2))
    if memory.get("disableOOMKiller"):
        found.append((pointer + "/memory/disableOOMKiller", _NOT_IN_V2))
    found += [(f"{pointer}/cpu/{name}", _NOT_IN_V2) for name in ("realtimePeriod", "realtimeRuntime") if cpu.get(name)]
    network = resources.get("network") or {}
    found += [(f"{pointer}/network/{name}", _NOT_IN_V2) for name in ("classID", "priorities") if network.get(name)]
    if block.get("leafWeight"):
        found.append((pointer + "/blockIO/leafWeight", _NOT_IN_V2))
    for index, device in enumerate(block.get("weightDevice") or ()):
        place = f"{pointer}/blockIO/weightDevice/{index}"
        if device.get("leafWeight"):
            found.append((place + "/leafWeight", _NOT_IN_V2))
        if device.get("weight"):
            found.append((place + "/weight", "takes effect only where the BFQ scheduler is loaded"))
    return found
