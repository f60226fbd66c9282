"""What a container uses, in the messages of containerd's cgroups library. Sizes are bytes."""

from __future__ import annotations

from errno import ENODEV, ENOENT, EOPNOTSUPP

from ocirt.cgroups import parse, stats
from ocirt.cgroups.files import read
from ocirt.errors import Error
from ocirt_api.messages import cgroups_v1 as v1
from ocirt_api.messages import cgroups_v2 as v2
from ocirt_api.messages.google import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    import typing
    from collections.abc import Callable, Iterable

    T = typing.TypeVar("T")

_WORD = (1 << 64) - 1
# Names of memory.stat that the message spells in another way.
_MEMORY_V1 = {
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
    "total_pg_pg_in": "total_pgpgin",
    "total_pg_pg_out": "total_pgpgout",
    "total_pg_fault": "total_pgfault",
    "total_pg_maj_fault": "total_pgmajfault",
}
_BLKIO = {
    "io_service_bytes": "io_service_bytes_recursive",
    "io_serviced": "io_serviced_recursive",
    "io_queued": "io_queued_recursive",
    "io_service_time": "io_service_time_recursive",
    "io_wait_time": "io_wait_time_recursive",
    "io_merged": "io_merged_recursive",
    "time": "io_time_recursive",
    "sectors": "sectors_recursive",
}
_IO_V2 = ("rbytes", "wbytes", "rios", "wios")


def metrics(cgroup: dict[str, typing.Any]) -> Any:
    """A `Metrics` of the version of cgroups that the container is in. Raises Error("not-found") if it is in none, OSError."""
    paths: dict[str, str] = cgroup["paths"]
    if not paths:
        raise Error("not-found", "the container has no cgroup")
    if cgroup["mode"] == "v2":
        return Any.of(_version_2(paths[""]))
    return Any.of(_version_1(cgroup))


def _version_1(cgroup: dict[str, typing.Any]) -> v1.Metrics:
    found = stats.read_stats(cgroup)
    paths = cgroup["paths"]
    result = v1.Metrics()
    if "pids" in paths:
        result.pids = v1.PidsStat(current=found.pids, limit=found.pids_limit)
    if "cpu" in paths or "cpuacct" in paths:
        cpu = found.cpu
        result.cpu = v1.CPUStat(
            usage=v1.CPUUsage(total=cpu.total, kernel=cpu.system, user=cpu.user, per_cpu=cpu.per_cpu),
            throttling=v1.Throttle(
                periods=cpu.periods, throttled_periods=cpu.throttled_periods, throttled_time=cpu.throttled_time
            ),
        )
    if "memory" in paths:
        memory = found.memory
        result.memory = v1.MemoryStat(
            usage=_entry(memory.usage),
            swap=_entry(memory.swap),
            kernel=_entry(memory.kernel),
            kernel_tcp=_entry(memory.kernel_tcp),
        )
        _fill(result.memory, memory.raw, _MEMORY_V1)
        result.memory_oom_control = v1.MemoryOomControl()
        _fill(result.memory_oom_control, _get(paths["memory"], "memory.oom_control", parse.flat) or {}, {})
    if "blkio" in paths:
        result.blkio = v1.BlkIOStat()
        for name, field in _BLKIO.items():
            values = found.io.get(name, ())
            entries = [v1.BlkIOEntry(major=major, minor=minor, op=op, value=value & _WORD) for major, minor, op, value in values]
            setattr(result.blkio, field, entries)
    result.hugetlb = [
        v1.HugetlbStat(usage=one.usage, max=one.max_usage, failcnt=one.failures, pagesize=size)
        for size, one in found.huge_pages.items()
    ]
    return result


def _entry(one: stats.Usage) -> v1.MemoryEntry:
    return v1.MemoryEntry(limit=one.limit, usage=one.usage, max=one.max_usage, failcnt=one.failures)


def _fill(message: typing.Any, values: dict[str, int], names: dict[str, str]) -> None:
    """Give the fields of a message that are numbers the values of their names."""
    for field in message.FIELDS.values():
        value = values.get(names.get(field.name, field.name))
        if value is not None and field.of is None:
            setattr(message, field.name, value & _WORD)


def _version_2(directory: str) -> v2.Metrics:
    result = v2.Metrics(cpu=v2.CPUStat(), memory=v2.MemoryStat(), memory_events=v2.MemoryEvents(), io=v2.IOStat())
    pids = _get(directory, "pids.current", parse.number)
    if pids is not None:
        result.pids = v2.PidsStat(current=pids, limit=_get(directory, "pids.max", parse.number) or 0)
    assert result.cpu is not None
    _fill(result.cpu, _get(directory, "cpu.stat", parse.flat) or {}, {})
    result.cpu.psi = _pressure(directory, "cpu.pressure")
    memory = result.memory
    assert memory is not None
    _fill(memory, _get(directory, "memory.stat", parse.flat) or {}, {})
    for field, file in (
        ("usage", "memory.current"),
        ("usage_limit", "memory.max"),
        ("max_usage", "memory.peak"),
        ("swap_usage", "memory.swap.current"),
        ("swap_limit", "memory.swap.max"),
        ("swap_max_usage", "memory.swap.peak"),
    ):
        setattr(memory, field, _get(directory, file, parse.number) or 0)
    memory.psi = _pressure(directory, "memory.pressure")
    _fill(result.memory_events, _get(directory, "memory.events", parse.flat) or {}, {})
    assert result.io is not None
    result.io.usage = list(_io(_get(directory, "io.stat", str.splitlines) or []))
    result.io.psi = _pressure(directory, "io.pressure")
    for size in stats.huge_page_sizes():
        current = _get(directory, f"hugetlb.{size}.current", parse.number)
        if current is not None:
            most = _get(directory, f"hugetlb.{size}.max", parse.number) or 0
            failures = (_get(directory, f"hugetlb.{size}.events", parse.flat) or {}).get("max", 0)
            result.hugetlb.append(v2.HugeTlbStat(current=current, max=most, pagesize=size, failcnt=failures))
    return result


def _io(lines: Iterable[str]) -> Iterable[v2.IOEntry]:
    """`MAJOR:MINOR NAME=VALUE ...`, a line for each device (cgroup-v2.rst, "io.stat")."""
    for line in lines:
        device, *pairs = line.split()
        major, colon, minor = device.partition(":")
        if colon and major.isdecimal() and minor.isdecimal():
            values = dict([pair.split("=", 1) for pair in pairs if "=" in pair])
            yield v2.IOEntry(
                major=int(major),
                minor=int(minor),
                **{name: int(values[name]) for name in _IO_V2 if values.get(name, "").isdecimal()},
            )


def _pressure(directory: str, file: str) -> v2.PSIStats | None:
    found = _get(directory, file, parse.pressure)
    if not found:
        return None
    kinds = {
        kind: v2.PSIData(avg10=one["avg10"], avg60=one["avg60"], avg300=one["avg300"], total=int(one["total"]))
        for kind, one in found.items()
        if kind in ("some", "full")
    }
    return v2.PSIStats(**kinds)


def _get(directory: str, file: str, parser: Callable[[str], T]) -> T | None:
    """A file's contents; None if there is none, or it says nothing known."""
    try:
        return parser(read(f"{directory}/{file}"))
    except OSError as err:
        if err.errno in (ENOENT, ENODEV, EOPNOTSUPP):
            return None
        raise
    except ValueError:
        return None
