"""How often the kernel has killed a process of a cgroup because its memory limit was reached."""

from __future__ import annotations

from ocirt.cgroups.files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def kills(cgroup: dict[str, Any]) -> int:
    """The counter `oom_kill` of a record's `cgroup` (version 1: memory.oom_control, 2: memory.events); 0 where there is none."""
    paths = cgroup["paths"]
    if "memory" in paths:
        file = paths["memory"] + "/memory.oom_control"
    elif "" in paths:
        file = paths[""] + "/memory.events"
    else:
        return 0
    try:
        lines = read(file).splitlines()
    except OSError:
        return 0  # the cgroup is gone, or without the memory controller
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
