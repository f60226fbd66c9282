"""The values of a container's metrics, as its cgroup's files have them: names of `descriptors.TABLE`, labels, numbers.

What `cgroups.read` has read is not read again. Sources: kernel, admin-guide/cgroup-v2.rst and cgroup-v1/.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from ocirt.cgroups.stats import huge_page_sizes
from ocirt_cri.stats.kernelfiles import get, key, keys, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ocirt_api.cri.api_pb2 import LinuxContainerResources
    from ocirt_cri.stats.cgroups import Usage
    from ocirt_cri.stats.disks import Disk, Disks

_SECOND = 1_000_000_000
_MICROSECOND = 1_000_000
_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD = 100_000  # microseconds, unless another one was given
_SHARES = 1024  # of version 1, likewise
_OPERATIONS = ("Read", "Write")


class Value(NamedTuple):
    """One number. labels: beside those that all metrics have."""

    name: str
    value: int
    labels: tuple[str, ...] = ()


def of_cpu(paths: Mapping[str, str], usage: Usage) -> Iterator[Value]:
    """Processor time. Raises OSError."""
    if "cpuacct" in paths:
        ticks = keys(get(paths["cpuacct"], "cpuacct.stat"))
        user, system = (ticks[name] // _TICKS if name in ticks else None for name in (b"user", b"system"))
        quota, name, unit = keys(get(paths.get("cpu", ""), "cpu.stat")), b"throttled_time", _SECOND
    else:
        quota, name, unit = keys(usage.cpu_stat), b"throttled_usec", _MICROSECOND
        user, system = (quota[key] // unit if key in quota else None for key in (b"user_usec", b"system_usec"))
    throttled = quota.get(name)
    if usage.cpu is not None:
        yield Value("container_cpu_usage_seconds_total", usage.cpu // _SECOND, ("total",))
    for metric, found in (
        ("container_cpu_user_seconds_total", user),
        ("container_cpu_system_seconds_total", system),
        ("container_cpu_cfs_periods_total", quota.get(b"nr_periods")),
        ("container_cpu_cfs_throttled_periods_total", quota.get(b"nr_throttled")),
        ("container_cpu_cfs_throttled_seconds_total", None if throttled is None else throttled // unit),
    ):
        if found is not None:
            yield Value(metric, found)


def of_memory(paths: Mapping[str, str], usage: Usage) -> Iterator[Value]:
    """Memory, without its peak before Linux 5.19 with version 2. Raises OSError."""
    if usage.memory is None:
        return
    stat = keys(usage.memory_stat)
    if "memory" in paths:
        directory = paths["memory"]
        cache, mapped = stat.get(b"total_cache"), stat.get(b"total_mapped_file")
        kernel = number(get(directory, "memory.kmem.usage_in_bytes"))
        failures = number(get(directory, "memory.failcnt"))
        peak = number(get(directory, "memory.max_usage_in_bytes"))
        kills = key(get(directory, "memory.oom_control"), b"oom_kill")
        below = b"total_"
    else:
        directory = paths.get("", "")
        events = keys(get(directory, "memory.events"))
        cache, mapped, kernel = stat.get(b"file"), stat.get(b"file_mapped"), stat.get(b"kernel")
        failures, kills = events.get(b"max"), events.get(b"oom_kill")
        peak = number(get(directory, "memory.peak"))
        below = b""
    for metric, found in (
        ("container_memory_usage_bytes", usage.memory),
        ("container_memory_working_set_bytes", usage.working_set),
        ("container_memory_rss", usage.anonymous),
        ("container_memory_swap", usage.swap or 0),
        ("container_memory_cache", cache),
        ("container_memory_mapped_file", mapped),
        ("container_memory_kernel_usage", kernel),
        ("container_memory_failcnt", failures),
        ("container_memory_total_active_file_bytes", stat.get(below + b"active_file")),
        ("container_memory_total_inactive_file_bytes", stat.get(below + b"inactive_file")),
        ("container_memory_max_usage_bytes", peak),
        ("container_oom_events_total", kills),
    ):
        if found is not None:
            yield Value(metric, found)
    for name in (b"pgfault", b"pgmajfault"):
        for scope, prefix in (("container", b""), ("hierarchy", below)):
            if prefix + name in stat:
                yield Value("container_memory_failures_total", stat[prefix + name], (name.decode(), scope))


def of_pressure(usage: Usage) -> Iterator[Value]:
    """Time lost for want of something, where the kernel keeps it."""
    for what, found in usage.pressure.items():
        for kind, word in (("some", "waiting"), ("full", "stalled")):
            if kind in found:
                yield Value(f"container_pressure_{what}_{word}_seconds_total", found[kind].total // _SECOND)


def of_huge_pages(paths: Mapping[str, str]) -> Iterator[tuple[str, int, int | None]]:
    """Sizes of pages, bytes that are used, and the most that ever were (None: the kernel keeps it not). Raises OSError."""
    if "memory" in paths or "cpuacct" in paths:
        directory, current = paths.get("hugetlb", ""), "usage_in_bytes"
    else:
        directory, current = paths.get("", ""), "current"
    for size in _sizes() if directory else ():
        used = number(get(directory, f"hugetlb.{size}.{current}"))
        if used is not None:
            yield size, used, number(get(directory, f"hugetlb.{size}.max_usage_in_bytes"))


@functools.cache
def _sizes() -> tuple[str, ...]:
    return tuple(huge_page_sizes())


def of_disks(paths: Mapping[str, str], disks: Disks, own: Disk) -> Iterator[Value]:
    """Reads and writes by device: of the one that it writes its files to at least, if there is a controller. Raises OSError."""
    if "blkio" in paths:
        sizes, counts = _blkio(paths["blkio"], "io_service_bytes"), _blkio(paths["blkio"], "io_serviced")
    else:
        sizes, counts = _io_stat(get(paths.get("", ""), "io.stat"))
    if sizes is None or counts is None:
        return
    names = {device: disks.device(device) for device in {*sizes, *counts}}
    if not names:
        names[f"{own.major}:{own.minor}"] = own.device
    for device, name in sorted(names.items()):
        major, _, minor = device.partition(":")
        for operation, word in zip(_OPERATIONS, ("reads", "writes"), strict=True):
            size = sizes.get(device, {}).get(operation, 0)
            yield Value("container_blkio_device_usage_total", size, (name, major, minor, operation))
            yield Value(f"container_fs_{word}_bytes_total", size, (name,))
            yield Value(f"container_fs_{word}_total", counts.get(device, {}).get(operation, 0), (name,))


Counts = dict[str, dict[str, int]]


def _blkio(directory: str, name: str) -> Counts | None:
    """blkio.throttle.*: lines of device, operation and number, and a sum of all."""
    text = get(directory, f"blkio.throttle.{name}_recursive")
    if text is None:
        return None
    found: Counts = {}
    for line in text.decode("ascii", "replace").splitlines():
        words = line.split(" ")
        if len(words) == 3 and words[1] in _OPERATIONS and words[2].isdecimal():
            found.setdefault(words[0], {})[words[1]] = int(words[2])
    return found


def _io_stat(text: bytes | None) -> tuple[Counts | None, Counts | None]:
    """io.stat: lines of device and name=number. Bytes, and how often."""
    if text is None:
        return None, None
    sizes: Counts = {}
    counts: Counts = {}
    for line in text.decode("ascii", "replace").splitlines():
        device, _, rest = line.partition(" ")
        values = dict(part.split("=", 1) for part in rest.split(" ") if "=" in part)
        for found, names in ((sizes, ("rbytes", "wbytes")), (counts, ("rios", "wios"))):
            for operation, name in zip(_OPERATIONS, names, strict=True):
                if values.get(name, "").isdecimal():
                    found.setdefault(device, {})[operation] = int(values[name])
    return sizes, counts


def of_limits(limits: LinuxContainerResources, usage: Usage) -> Iterator[Value]:
    """What it may have, as the CRI says it is in force."""
    yield Value("container_spec_cpu_period", limits.cpu_period or _PERIOD)
    if limits.cpu_quota > 0:
        yield Value("container_spec_cpu_quota", limits.cpu_quota)
    yield Value("container_spec_cpu_shares", limits.cpu_shares or _SHARES)
    yield Value("container_spec_memory_limit_bytes", max(0, limits.memory_limit_in_bytes))
    reserved = limits.unified.get("memory.low", "")
    yield Value("container_spec_memory_reservation_limit_bytes", int(reserved) if reserved.isdecimal() else 0)
    yield Value("container_spec_memory_swap_limit_bytes", usage.swap_limit or 0)


def of_threads(paths: Mapping[str, str]) -> tuple[int | None, int | None]:
    """How many threads there are and may be (0: as many as it wants); None without a controller. Raises OSError."""
    directory = paths.get("pids") or paths.get("", "")
    now = number(get(directory, "pids.current"))
    return now, None if now is None else number(get(directory, "pids.max")) or 0
