"""`ocirt events`: what a container uses, and when it runs out of memory, as lines of JSON in runc's shape."""

from __future__ import annotations

from ocirt import jsonlite, state
from ocirt.cgroups.stats import CPUSET_FLAGS, read_stats
from ocirt.cli import log, out
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.cgroups.parse import DeviceValue
    from ocirt.cgroups.stats import Cpu, Memory, Pressure, Stats, Usage
    from ocirt.cli.options import Options
    from ocirt.state import Record

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def run(options: Options, args: list[str]) -> int:
    """Print events of container args[0] until it has ended, or with --stats one.

    Raises Error("not-found"), Error("state") unless it is created, running or paused, Error("usage") for a bad interval.
    """
    record = state.load(options.root, args[0])
    interval = 5 * 10**9
    if options.given("interval"):
        text: str = options.get("interval")
        try:
            interval = duration(text)
        except ValueError:
            raise Error("usage", f"invalid value {log.quoted(text)} for flag -interval: parse error") from None
    if interval <= 0:
        raise Error("usage", "duration interval must be greater than 0")
    if state.status(record) in ("creating", "stopped"):
        raise Error("state", f"container with id {record['id']} is not running")
    if options.get("stats"):
        _print_stats(record)
        return 0
    from ocirt.containers.events import OOM, watch  # noqa: PLC0415

    for event in watch(record, interval / 1e9):
        if event == OOM:
            out(jsonlite.dumps({"type": "oom", "id": record["id"]}) + "\n")
            continue
        try:
            _print_stats(record)
        except (Error, OSError) as err:
            log.error(options, log.describe(err))  # the next one may do better
    return 0


def _print_stats(record: Record) -> None:
    shown = shape(read_stats(record["cgroup"]))
    out(jsonlite.dumps({"type": "stats", "id": record["id"], "data": shown}) + "\n")


def duration(text: str) -> int:
    """Nanoseconds of a duration as Go writes it: `5s`, `1m30s`, `1.5h`, `500ms`. Raises ValueError."""
    sign = -1 if text[:1] == "-" else 1
    left = text[1:] if text[:1] in ("-", "+") else text
    if left == "0":
        return 0
    total = 0
    if not left:
        raise ValueError(text)
    while left:
        end = 0
        while end < len(left) and left[end] in "0123456789.":
            end += 1
        whole, _, fraction = left[:end].partition(".")
        left = left[end:]
        unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if left.startswith(unit)), "")
        if not unit or not (whole + fraction).isdecimal() or len(whole + fraction) > 40:
            raise ValueError(text)
        total += int(whole + fraction) * _UNITS[unit] // 10 ** len(fraction)
        left = left[len(unit) :]
    if total >= 1 << 63:
        raise ValueError(text)
    return sign * total


# -- runc's shape: what is zero is left out, but for the members that it always has ----------------------------------------------


def shape(stats: Stats) -> dict[str, Any]:
    """The statistics as the member "data" of runc's events."""
    return {
        "cpu": _cpu(stats.cpu),
        "cpuset": _cpuset(stats.cpuset),
        "memory": _memory(stats.memory),
        "pids": _without_zeros({"current": stats.pids, "limit": stats.pids_limit}),
        "blkio": _io(stats),
        "hugetlb": {
            size: _without_zeros({"usage": usage.usage, "max": usage.max_usage}) | {"failcnt": usage.failures}
            for size, usage in sorted(stats.huge_pages.items())
        },
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _without_zeros(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _with_pressure(shown: dict[str, Any], pressure: Pressure | None) -> dict[str, Any]:
    """`shown` without its zeros, and with "psi" if the kernel tells pressure at all."""
    kinds = (
        None if pressure is None else {kind: pressure[kind] for kind in ("some", "full") if any(pressure.get(kind, {}).values())}
    )
    return _without_zeros(shown) | ({} if kinds is None else {"psi": kinds})


def _cpu(cpu: Cpu) -> dict[str, Any]:
    usage = _without_zeros(
        {
            "total": cpu.total,
            "percpu": cpu.per_cpu,
            "percpu_kernel": cpu.per_cpu_system,
            "percpu_user": cpu.per_cpu_user,
        },
    )
    throttling = {"periods": cpu.periods, "throttledPeriods": cpu.throttled_periods, "throttledTime": cpu.throttled_time}
    shown = {
        "usage": usage | {"kernel": cpu.system, "user": cpu.user} if usage or cpu.system or cpu.user else {},
        "throttling": _without_zeros(throttling),
    }
    return _with_pressure(shown, cpu.pressure)


def _cpuset(cpuset: dict[str, Any]) -> dict[str, Any]:
    flags = {name: cpuset.get(name, 0) for name in (*CPUSET_FLAGS, "sched_relax_domain_level")}
    shown = {"cpus": cpuset.get("cpus"), "cpu_exclusive": flags.pop("cpu_exclusive"), "mems": cpuset.get("mems")} | flags
    return {key: value for key, value in shown.items() if value or key not in ("cpus", "mems")}


def _memory(memory: Memory) -> dict[str, Any]:
    shown = {
        "cache": memory.cache,
        "usage": _usage(memory.usage),
        "swap": _usage(memory.swap),
        "kernel": _usage(memory.kernel),
        "kernelTCP": _usage(memory.kernel_tcp),
        "raw": dict(sorted(memory.raw.items())),
    }
    return _with_pressure(shown, memory.pressure)


def _usage(usage: Usage) -> dict[str, int]:
    if not (usage.limit or usage.usage or usage.max_usage or usage.failures):
        return {}
    return {"limit": usage.limit, **_without_zeros({"usage": usage.usage, "max": usage.max_usage}), "failcnt": usage.failures}


_IO = (
    ("io_service_bytes", "ioServiceBytesRecursive"),
    ("io_serviced", "ioServicedRecursive"),
    ("io_queued", "ioQueueRecursive"),
    ("io_service_time", "ioServiceTimeRecursive"),
    ("io_wait_time", "ioWaitTimeRecursive"),
    ("io_merged", "ioMergedRecursive"),
    ("time", "ioTimeRecursive"),
    ("sectors", "sectorsRecursive"),
)


def _io(stats: Stats) -> dict[str, Any]:
    shown = {key: [_entry(value) for value in stats.io.get(name, ())] for name, key in _IO}
    return _with_pressure(shown, stats.io_pressure)


def _entry(value: DeviceValue) -> dict[str, Any]:
    return _without_zeros(dict(zip(("major", "minor", "op", "value"), value, strict=True)))
