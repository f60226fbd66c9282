"""What a container uses, as its cgroups tell: `read_stats` for all of it, in the terms of both versions.

A controller that is not there leaves its part at zero. Sizes are bytes, times nanoseconds unless said otherwise.
"""

from __future__ import annotations

import posix
from errno import ENODEV, ENOENT, EOPNOTSUPP

from ocirt.cgroups import parse
from ocirt.cgroups.files import read
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from ocirt.cgroups.parse import DeviceValue

    T = TypeVar("T")
    Pressure = dict[str, dict[str, float]]

_TICK = 10_000_000  # nanoseconds: USER_HZ is 100 on every architecture that matters here (times(2))


class Cpu:
    """total, user, system: time used. per_cpu*: the same by processor (version 1). periods, throttled_periods: of the quota.

    throttled_time: that processes waited for the next period. pressure: see `parse.pressure`; None if the kernel does not tell.
    """

    __slots__ = (
        "per_cpu",
        "per_cpu_system",
        "per_cpu_user",
        "periods",
        "pressure",
        "system",
        "throttled_periods",
        "throttled_time",
        "total",
        "user",
    )

    def __init__(self) -> None:
        self.total = self.user = self.system = 0
        self.per_cpu: list[int] = []
        self.per_cpu_user: list[int] = []
        self.per_cpu_system: list[int] = []
        self.periods = self.throttled_periods = self.throttled_time = 0
        self.pressure: Pressure | None = None


class Usage:
    """One kind of memory: limit (UNLIMITED or a huge number if there is none), usage, max_usage, and failures to get more."""

    __slots__ = ("failures", "limit", "max_usage", "usage")

    def __init__(self, limit: int = 0, usage: int = 0, max_usage: int = 0, failures: int = 0) -> None:
        self.limit = limit
        self.usage = usage
        self.max_usage = max_usage
        self.failures = failures


class Memory:
    """usage: all memory; swap: memory and swap together; kernel, kernel_tcp: parts of it (version 1). cache: of files.

    raw: memory.stat as it is. pressure: see `parse.pressure`.
    """

    __slots__ = ("cache", "kernel", "kernel_tcp", "pressure", "raw", "swap", "usage")

    def __init__(self) -> None:
        self.cache = 0
        self.usage = Usage()
        self.swap = Usage()
        self.kernel = Usage()
        self.kernel_tcp = Usage()
        self.raw: dict[str, int] = {}
        self.pressure: Pressure | None = None


class Stats:
    """All of it.

    pids, pids_limit: tasks (without the controller: processes), and their limit, 0 for none. cpuset: version 1's files by name,
    "cpus" and "mems" as lists. io: by version 1's names without "blkio.", such as "io_service_bytes". huge_pages: by size, "2MB".
    """

    __slots__ = ("cpu", "cpuset", "huge_pages", "io", "io_pressure", "memory", "pids", "pids_limit")

    def __init__(self) -> None:
        self.cpu = Cpu()
        self.memory = Memory()
        self.pids = self.pids_limit = 0
        self.cpuset: dict[str, Any] = {}
        self.io: dict[str, list[DeviceValue]] = {}
        self.io_pressure: Pressure | None = None
        self.huge_pages: dict[str, Usage] = {}


def read_stats(cgroup: dict[str, Any]) -> Stats:
    """The statistics of a container's cgroup (a record's "cgroup"). Raises Error for a file that says nothing known, OSError."""
    stats = Stats()
    paths: dict[str, str] = cgroup["paths"]
    if cgroup["mode"] == "v2":
        if "" in paths:
            _version_2(paths[""], stats)
    else:
        _version_1(paths, stats)
    return stats


def _get(directory: str, file: str, parser: Callable[[str], T]) -> T | None:
    """A file's contents; None if there is no such file (or no such cgroup any more)."""
    path = f"{directory}/{file}"
    try:
        text = read(path)
    except OSError as err:
        # EOPNOTSUPP: pressure that is turned off; files of a domain in a threaded cgroup.
        if err.errno in (ENOENT, ENODEV, EOPNOTSUPP):
            return None
        raise
    try:
        return parser(text)
    except ValueError as err:
        raise Error("kernel", f"unable to parse: {err}", subject=path) from None


def _number(directory: str, file: str) -> int:
    return _get(directory, file, parse.number) or 0


# -- version 1 -----------------------------------------------------------------------------------------------------------------


def _version_1(paths: dict[str, str], stats: Stats) -> None:
    if "cpu" in paths:
        throttling = _get(paths["cpu"], "cpu.stat", parse.flat) or {}
        stats.cpu.periods = throttling.get("nr_periods", 0)
        stats.cpu.throttled_periods = throttling.get("nr_throttled", 0)
        stats.cpu.throttled_time = throttling.get("throttled_time", 0)
    if "cpuacct" in paths:
        _cpuacct(paths["cpuacct"], stats.cpu)
    if "cpuset" in paths:
        _cpuset(paths["cpuset"], stats.cpuset)
    if "memory" in paths:
        _memory_v1(paths["memory"], stats.memory)
    if "pids" in paths:
        stats.pids = _number(paths["pids"], "pids.current")
        stats.pids_limit = _no_limit_is_0(_number(paths["pids"], "pids.max"))
    if "blkio" in paths:
        _blkio(paths["blkio"], stats.io)
    if "hugetlb" in paths:
        for size in huge_page_sizes():
            for prefix in (f"hugetlb.{size}.rsvd.", f"hugetlb.{size}."):
                usage = _get(paths["hugetlb"], prefix + "usage_in_bytes", parse.number)
                if usage is not None:
                    peak = _number(paths["hugetlb"], prefix + "max_usage_in_bytes")
                    stats.huge_pages[size] = Usage(0, usage, peak, _number(paths["hugetlb"], prefix + "failcnt"))
                    break


def _no_limit_is_0(limit: int) -> int:
    return 0 if limit == parse.UNLIMITED else limit


def _cpuacct(directory: str, cpu: Cpu) -> None:
    ticks = _get(directory, "cpuacct.stat", parse.flat) or {}
    cpu.user = ticks.get("user", 0) * _TICK
    cpu.system = ticks.get("system", 0) * _TICK
    cpu.total = _number(directory, "cpuacct.usage")
    cpu.per_cpu = _get(directory, "cpuacct.usage_percpu", parse.numbers) or []
    cpu.per_cpu_user, cpu.per_cpu_system = _get(directory, "cpuacct.usage_all", parse.columns) or ([], [])


CPUSET_FLAGS = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
)


def _cpuset(directory: str, cpuset: dict[str, Any]) -> None:
    for name in ("cpus", "mems"):
        cpuset[name] = _get(directory, "cpuset." + name, parse.cpu_list) or []
    for name in CPUSET_FLAGS:
        cpuset[name] = _number(directory, "cpuset." + name)
    cpuset["sched_relax_domain_level"] = _get(directory, "cpuset.sched_relax_domain_level", parse.signed) or 0


def _memory_v1(directory: str, memory: Memory) -> None:
    memory.raw = _get(directory, "memory.stat", parse.flat) or {}
    memory.cache = memory.raw.get("cache", 0)
    memory.usage = _usage_v1(directory, "memory.")
    memory.swap = _usage_v1(directory, "memory.memsw.")
    memory.kernel = _usage_v1(directory, "memory.kmem.")
    memory.kernel_tcp = _usage_v1(directory, "memory.kmem.tcp.")


def _usage_v1(directory: str, prefix: str) -> Usage:
    usage = _get(directory, prefix + "usage_in_bytes", parse.number)
    if usage is None:
        return Usage()
    peak, failures = _number(directory, prefix + "max_usage_in_bytes"), _number(directory, prefix + "failcnt")
    return Usage(_number(directory, prefix + "limit_in_bytes"), usage, peak, failures)


# What counts I/O, the best first: BFQ with and without debugging, CFQ (up to Linux 5.0), throttling. If a group's first file has
# nothing, the next group is asked. (file, name in `Stats.io`)
_BFQ, _CFQ = "blkio.bfq.", "blkio."
_DETAILS = ("sectors", "io_service_time", "io_wait_time", "io_merged", "io_queued", "time", "io_serviced", "io_service_bytes")
_TOTALS = ("io_serviced", "io_service_bytes")
_BLKIO = (
    [(f"{_BFQ}{name}_recursive", name) for name in _DETAILS],
    [(f"{_BFQ}{name}_recursive", name) for name in _TOTALS],
    [(f"{_CFQ}{name}_recursive", name) for name in _DETAILS],
    [(f"blkio.throttle.{name}_recursive", name) for name in _TOTALS],
    [(f"blkio.throttle.{name}", name) for name in _TOTALS],
)


def _blkio(directory: str, io: dict[str, list[DeviceValue]]) -> None:
    for group in _BLKIO:
        for index, (file, name) in enumerate(group):
            values = _get(directory, file, parse.device_lines)
            if not values:
                if index == 0:
                    break
                return
            io[name] = values
        else:
            return


# -- version 2 -----------------------------------------------------------------------------------------------------------------


def _version_2(directory: str, stats: Stats) -> None:
    cpu = _get(directory, "cpu.stat", parse.flat) or {}
    stats.cpu.total = cpu.get("usage_usec", 0) * 1000
    stats.cpu.user = cpu.get("user_usec", 0) * 1000
    stats.cpu.system = cpu.get("system_usec", 0) * 1000
    stats.cpu.periods = cpu.get("nr_periods", 0)
    stats.cpu.throttled_periods = cpu.get("nr_throttled", 0)
    stats.cpu.throttled_time = cpu.get("throttled_usec", 0) * 1000
    stats.cpu.pressure = _get(directory, "cpu.pressure", parse.pressure)
    _memory_v2(directory, stats.memory)
    pids = _get(directory, "pids.current", parse.number)
    if pids is None:
        from ocirt.cgroups.control import processes  # noqa: PLC0415  (without the controller only)

        pids = len(processes({"paths": {"": directory}}))
    stats.pids = pids
    stats.pids_limit = _no_limit_is_0(_number(directory, "pids.max"))
    for major, minor, values in _get(directory, "io.stat", parse.device_keys) or ():
        for key, name, operation in (
            ("rbytes", "io_service_bytes", "Read"),
            ("wbytes", "io_service_bytes", "Write"),
            ("rios", "io_serviced", "Read"),
            ("wios", "io_serviced", "Write"),
        ):
            if key in values:
                stats.io.setdefault(name, []).append((major, minor, operation, values[key]))
    stats.io_pressure = _get(directory, "io.pressure", parse.pressure)
    for size in huge_page_sizes():
        for prefix in (f"hugetlb.{size}.rsvd.", f"hugetlb.{size}."):
            usage = _get(directory, prefix + "current", parse.number)
            if usage is not None:
                events = _get(directory, f"hugetlb.{size}.events", parse.flat) or {}
                stats.huge_pages[size] = Usage(0, usage, 0, events.get("max", 0))
                break


def _memory_v2(directory: str, memory: Memory) -> None:
    memory.raw = _get(directory, "memory.stat", parse.flat) or {}
    memory.cache = memory.raw.get("file", 0)
    memory.pressure = _get(directory, "memory.pressure", parse.pressure)
    memory.usage = _usage_v2(directory, "memory.")
    swap = _usage_v2(directory, "memory.swap.")
    if swap.limit != parse.UNLIMITED:
        swap.limit = min(swap.limit + memory.usage.limit, parse.UNLIMITED)
    # Version 1 counts both together; their peaks need not have been at the same time.
    memory.swap = Usage(swap.limit, swap.usage + memory.usage.usage, 0, 0)


def _usage_v2(directory: str, prefix: str) -> Usage:
    usage = _get(directory, prefix + "current", parse.number)
    if usage is None:
        return Usage()
    return Usage(_number(directory, prefix + "max"), usage, _number(directory, prefix + "peak"))


def huge_page_sizes(directory: str = "/sys/kernel/mm/hugepages") -> list[str]:
    """The sizes that the kernel has, in the words of cgroup files: "2MB"."""
    found = []
    try:
        names = posix.listdir(directory)
    except OSError:
        return []
    for name in sorted(names):
        digits = name.removeprefix("hugepages-").removesuffix("kB")
        if not digits.isdecimal():
            continue
        size = int(digits)
        for shift, unit in ((20, "GB"), (10, "MB"), (0, "KB")):
            if size >> shift:
                found.append(f"{size >> shift}{unit}")
                break
    return found
