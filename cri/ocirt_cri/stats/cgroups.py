"""What a cgroup uses, from its files: kernel, admin-guide/cgroup-v2.rst and cgroup-v1/, accounting/psi.rst.

A node asks this of hundreds of cgroups every few seconds: each file is read once, and only what is wanted is looked for in it.
Times are nanoseconds, sizes bytes; None where the kernel does not tell.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ocirt_cri.stats.kernelfiles import GONE, below, get, key, number

if TYPE_CHECKING:
    from collections.abc import Mapping

# Most of the lines that are read are these, so they are read in one go.
_PRESSURE = re.compile(rb"^(some|full) avg10=(\d+\.\d+) avg60=(\d+\.\d+) avg300=(\d+\.\d+) total=(\d+)$", re.MULTILINE)


class Pressure(NamedTuple):
    """One line of a pressure file. total: time; others: percent."""

    avg10: float
    avg60: float
    avg300: float
    total: int


@dataclass(slots=True)
class Usage:
    """All of a cgroup. timestamp: of the look, since the epoch; pressure: by `cpu`, `memory`, `io`, then by `some` and `full`.

    cpu_stat, memory_stat: files that were read for this and say more.
    """

    timestamp: int
    cpu: int | None = None
    memory: int | None = None
    limit: int | None = None
    inactive_file: int = 0
    anonymous: int | None = None
    faults: int | None = None
    major_faults: int | None = None
    swap: int | None = None
    swap_limit: int | None = None
    pressure: dict[str, dict[str, Pressure]] = field(default_factory=dict)
    cpu_stat: bytes | None = None
    memory_stat: bytes | None = None

    @property
    def working_set(self) -> int | None:
        """Memory without the page cache that can go at once."""
        return None if self.memory is None else max(0, self.memory - self.inactive_file)

    @property
    def available(self) -> int | None:
        """What the limit leaves; None without a limit."""
        working_set = self.working_set
        return None if self.limit is None or working_set is None else max(0, self.limit - working_set)


def read(paths: Mapping[str, str]) -> Usage | None:
    """A cgroup's use. paths: controller to directory, "" for version 2 (as `ocirt.cgroups.paths` has them). None: it is gone."""
    usage = Usage(time.time_ns())
    there = _version_1(paths, usage) if "memory" in paths or "cpuacct" in paths else _version_2(paths.get("", ""), usage)
    return usage if there else None


def cpu(paths: Mapping[str, str]) -> int | None:
    """The processor time alone."""
    if "cpuacct" in paths:
        return number(get(paths["cpuacct"], "cpuacct.usage"))
    used = key(get(paths.get("", ""), "cpu.stat"), b"usage_usec")
    return None if used is None else used * 1000


def processes(paths: Mapping[str, str]) -> list[int]:
    """The processes in it, and below it, by their numbers."""
    for controller in ("pids", "memory", "cpuacct", ""):
        if controller in paths:
            return _processes(paths[controller])
    return []


def _version_2(directory: str, usage: Usage) -> bool:
    usage.cpu_stat = get(directory, "cpu.stat")
    if usage.cpu_stat is None:
        return False
    used = key(usage.cpu_stat, b"usage_usec")
    usage.cpu = None if used is None else used * 1000
    usage.memory = number(get(directory, "memory.current"))
    if usage.memory is not None:
        usage.limit = number(get(directory, "memory.max"))
        stat = usage.memory_stat = get(directory, "memory.stat")
        usage.inactive_file = key(stat, b"inactive_file") or 0
        usage.anonymous = key(stat, b"anon")
        usage.faults = key(stat, b"pgfault")
        usage.major_faults = key(stat, b"pgmajfault")
        usage.swap = number(get(directory, "memory.swap.current"))
        usage.swap_limit = None if usage.swap is None else number(get(directory, "memory.swap.max"))
    _pressures(directory, usage)
    return True


def _pressures(directory: str, usage: Usage) -> None:
    for kind in ("cpu", "memory", "io"):
        found = pressure(get(directory, f"{kind}.pressure"))
        if found:
            usage.pressure[kind] = found


def _version_1(paths: Mapping[str, str], usage: Usage) -> bool:
    usage.cpu = number(get(paths.get("cpuacct", ""), "cpuacct.usage"))
    _pressures(paths.get("", ""), usage)  # a version 2 beside it has no controllers, and this all the same
    memory = paths.get("memory", "")
    usage.memory = number(get(memory, "memory.usage_in_bytes"))
    if usage.memory is None:
        return usage.cpu is not None
    usage.limit = below(number(get(memory, "memory.limit_in_bytes")))
    stat = usage.memory_stat = get(memory, "memory.stat")
    usage.inactive_file = key(stat, b"total_inactive_file") or 0
    usage.anonymous = key(stat, b"total_rss")
    usage.faults = key(stat, b"total_pgfault")
    usage.major_faults = key(stat, b"total_pgmajfault")
    usage.swap = key(stat, b"total_swap")
    both = None if usage.swap is None or usage.limit is None else below(number(get(memory, "memory.memsw.limit_in_bytes")))
    if both is not None and usage.limit is not None:
        usage.swap_limit = max(0, both - usage.limit)
    return True


def pressure(text: bytes | None) -> dict[str, Pressure]:
    """A pressure file."""
    return {
        kind.decode(): Pressure(float(ten), float(sixty), float(more), int(total) * 1000)
        for kind, ten, sixty, more, total in _PRESSURE.findall(text or b"")
    }


def _processes(directory: str) -> list[int]:
    waiting, found = [directory], []
    while waiting:
        here = waiting.pop()
        found += [int(word) for word in (get(here, "cgroup.procs") or b"").split()]
        try:
            with os.scandir(here) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as err:
            if err.errno not in GONE:
                raise
    return found
