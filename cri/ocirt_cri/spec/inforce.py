"""Limits as they are in force, in CRI's words: for a container's status.

The kernel rounds: memory to pages, shares to weights of version 2. A caller that compares what it asked for with what is there
(a kubelet that resizes a pod) would wait for ever for the difference to go: so a value is what was asked for if that is what the
kernel has made of it. Where there is no limit, it is -1 if that was asked for, and else "not given".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocirt.cgroups.limits import cpu_weight
from ocirt_api.cri.api_pb2 import LinuxContainerResources

NO_LIMIT = -1
_SHARES = (2, 262144)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What cgroup files say; None: there is no such file. Bytes, microseconds; NO_LIMIT.

    shares: of version 1, weight: of version 2; both: memory and swap together; pages: by size; unified: files that were asked for
    page: what memory is counted in
    """

    page: int = 4096
    shares: int | None = None
    weight: int | None = None
    quota: int | None = None
    period: int | None = None
    memory: int | None = None
    both: int | None = None
    cpus: str | None = None
    mems: str | None = None
    pages: dict[str, int] = field(default_factory=dict)
    unified: dict[str, str] = field(default_factory=dict)


def reported(asked: LinuxContainerResources, seen: Seen) -> LinuxContainerResources:
    """What is in force of what was asked for. What is not seen is as it was asked for."""
    found = LinuxContainerResources()
    found.CopyFrom(asked)
    if seen.shares is not None:
        found.cpu_shares = seen.shares
    elif seen.weight is not None and cpu_weight(asked.cpu_shares) != seen.weight:
        found.cpu_shares = shares(seen.weight)
    if seen.quota is not None:
        found.cpu_quota = _or_unset(seen.quota, asked.cpu_quota)
    if seen.period is not None:
        found.cpu_period = seen.period
    if seen.memory is not None:
        found.memory_limit_in_bytes = _rounded(seen.memory, asked.memory_limit_in_bytes, seen.page)
    if seen.both is not None:
        wanted = asked.memory_swap_limit_in_bytes or found.memory_limit_in_bytes
        found.memory_swap_limit_in_bytes = _rounded(seen.both, wanted, seen.page)
    for name, text in (("cpuset_cpus", seen.cpus), ("cpuset_mems", seen.mems)):
        if text is not None:
            setattr(found, name, text)
    for one in found.hugepage_limits:
        one.limit = seen.pages.get(one.page_size, one.limit)
    for file, text in seen.unified.items():
        found.unified[file] = text
    return found


def _or_unset(seen: int, asked: int) -> int:
    return (NO_LIMIT if asked == NO_LIMIT else 0) if seen == NO_LIMIT else seen


def _rounded(seen: int, asked: int, page: int) -> int:
    """A limit of memory: what was asked for, if that many pages are in force."""
    if seen != NO_LIMIT and asked > 0 and asked // page == seen // page:
        return asked
    return _or_unset(seen, asked)


def shares(weight: int) -> int:
    """The fewest shares that make a weight of version 2, or the next higher one that shares can make (2 to 262144)."""
    low, high = _SHARES
    while low < high:
        middle = (low + high) // 2
        if cpu_weight(middle) < weight:
            low = middle + 1
        else:
            high = middle
    return low
