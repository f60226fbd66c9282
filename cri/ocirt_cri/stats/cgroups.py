"""What a cgroup uses, from its files: kernel, admin-guide/cgroup-v2.rst and cgroup-v1/, accounting/psi.rst.

A node asks this of hundreds of cgroups every few seconds: each file is read once, and only what is wanted is looked for in it.
Times are nanoseconds, sizes bytes; None where the kernel does not tell.
"""

from __future__ import annotations

import errno
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_LIMIT = 1 << 62  # version 1 writes the largest number of pages there is
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTDIR)
_SILENT = (*_GONE, errno.EOPNOTSUPP)  # pressure that is switched off
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
    """All of a cgroup. timestamp: of the look, since the epoch; pressure: by `cpu`, `memory`, `io`, then by `some` and `full`."""

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
        return _number(_read(paths["cpuacct"], "cpuacct.usage"))
    used = _key(_read(paths.get("", ""), "cpu.stat"), b"usage_usec")
    return None if used is None else used * 1000


def processes(paths: Mapping[str, str]) -> int:
    """How many processes are in it, and below it."""
    for controller in ("pids", "memory", "cpuacct", ""):
        if controller in paths:
            return _processes(paths[controller])
    return 0


def _version_2(directory: str, usage: Usage) -> bool:
    text = _read(directory, "cpu.stat")
    if text is None:
        return False
    used = _key(text, b"usage_usec")
    usage.cpu = None if used is None else used * 1000
    usage.memory = _number(_read(directory, "memory.current"))
    if usage.memory is not None:
        usage.limit = _number(_read(directory, "memory.max"))
        stat = _read(directory, "memory.stat")
        usage.inactive_file = _key(stat, b"inactive_file") or 0
        usage.anonymous = _key(stat, b"anon")
        usage.faults = _key(stat, b"pgfault")
        usage.major_faults = _key(stat, b"pgmajfault")
        usage.swap = _number(_read(directory, "memory.swap.current"))
        usage.swap_limit = None if usage.swap is None else _number(_read(directory, "memory.swap.max"))
    _pressures(directory, usage)
    return True


def _pressures(directory: str, usage: Usage) -> None:
    for kind in ("cpu", "memory", "io"):
        found = pressure(_read(directory, f"{kind}.pressure"))
        if found:
            usage.pressure[kind] = found


def _version_1(paths: Mapping[str, str], usage: Usage) -> bool:
    usage.cpu = _number(_read(paths.get("cpuacct", ""), "cpuacct.usage"))
    _pressures(paths.get("", ""), usage)  # a version 2 beside it has no controllers, and this all the same
    memory = paths.get("memory", "")
    usage.memory = _number(_read(memory, "memory.usage_in_bytes"))
    if usage.memory is None:
        return usage.cpu is not None
    usage.limit = _below(_number(_read(memory, "memory.limit_in_bytes")))
    stat = _read(memory, "memory.stat")
    usage.inactive_file = _key(stat, b"total_inactive_file") or 0
    usage.anonymous = _key(stat, b"total_rss")
    usage.faults = _key(stat, b"total_pgfault")
    usage.major_faults = _key(stat, b"total_pgmajfault")
    usage.swap = _key(stat, b"total_swap")
    both = None if usage.swap is None or usage.limit is None else _below(_number(_read(memory, "memory.memsw.limit_in_bytes")))
    if both is not None and usage.limit is not None:
        usage.swap_limit = max(0, both - usage.limit)
    return True


def pressure(text: bytes | None) -> dict[str, Pressure]:
    """A pressure file."""
    return {
        kind.decode(): Pressure(float(ten), float(sixty), float(more), int(total) * 1000)
        for kind, ten, sixty, more, total in _PRESSURE.findall(text or b"")
    }


def _below(limit: int | None) -> int | None:
    return limit if limit is not None and limit < _NO_LIMIT else None


def _number(text: bytes | None) -> int | None:
    """The one number of a file; None for `max`."""
    digits = (text or b"").strip()
    return int(digits) if digits.isdigit() else None


def _key(text: bytes | None, name: bytes) -> int | None:
    """The number in the line of a name."""
    if text is None:
        return None
    start = 0 if text.startswith(name + b" ") else text.find(b"\n" + name + b" ") + 1
    if start == 0 and not text.startswith(name + b" "):
        return None
    start += len(name) + 1
    end = text.find(b"\n", start)
    return _number(text[start : end if end >= 0 else len(text)])


def _read(directory: str, name: str) -> bytes | None:
    """The whole of a file; None if it is not there. Raises OSError."""
    if not directory:
        return None
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        if err.errno in _SILENT:
            return None
        raise
    try:
        text = os.read(fd, 1 << 16)
        while len(text) >= 4096 and (more := os.read(fd, 1 << 16)):
            text += more
        return text
    except OSError as err:
        if err.errno in _SILENT:
            return None
        raise
    finally:
        os.close(fd)


def _processes(directory: str) -> int:
    waiting, count = [directory], 0
    while waiting:
        here = waiting.pop()
        count += (_read(here, "cgroup.procs") or b"").count(b"\n")
        try:
            with os.scandir(here) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as err:
            if err.errno not in _GONE:
                raise
    return count
