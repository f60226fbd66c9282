"""The limits that a container has, read from its cgroup's files of either version. For a thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ocirt_cri.spec.inforce import NO_LIMIT, Seen
from ocirt_cri.stats.kernelfiles import below, get, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_api.cri.api_pb2 import LinuxContainerResources

_PAGE = os.sysconf("SC_PAGESIZE")


def read(cgroup: Mapping[str, str], asked: LinuxContainerResources) -> Seen:
    """What is in force. asked: for the files that it names. Raises OSError."""
    version_1 = any(name and "=" not in name for name in cgroup)
    seen = _version_1(cgroup) if version_1 else _version_2(cgroup.get("", ""))
    cpuset = cgroup.get("cpuset", "") if version_1 else cgroup.get("", "")
    seen.page = _PAGE
    seen.cpus, seen.mems = _text(cpuset, "cpuset.cpus"), _text(cpuset, "cpuset.mems")
    pages, suffix = (cgroup.get("hugetlb", ""), "limit_in_bytes") if version_1 else (cgroup.get("", ""), "max")
    for one in asked.hugepage_limits:
        limit = get(pages, f"hugetlb.{one.page_size}.{suffix}")
        if limit is not None and (found := number(limit)) is not None:
            seen.pages[one.page_size] = found
    if not version_1:
        seen.unified = _named(cgroup.get("", ""), asked.unified)
    return seen


def _version_1(cgroup: Mapping[str, str]) -> Seen:
    cpu, memory = cgroup.get("cpu", ""), cgroup.get("memory", "")
    return Seen(
        shares=number(get(cpu, "cpu.shares")),
        quota=_or_none(get(cpu, "cpu.cfs_quota_us")),
        period=number(get(cpu, "cpu.cfs_period_us")),
        memory=_or_none(get(memory, "memory.limit_in_bytes")),
        both=_or_none(get(memory, "memory.memsw.limit_in_bytes")),
    )


def _version_2(directory: str) -> Seen:
    quota, _, period = (get(directory, "cpu.max") or b"").strip().partition(b" ")
    memory, swap = _or_none(get(directory, "memory.max")), _or_none(get(directory, "memory.swap.max"))
    both = None
    if memory is not None and swap is not None:
        both = NO_LIMIT if NO_LIMIT in (memory, swap) else memory + swap
    return Seen(
        weight=number(get(directory, "cpu.weight")),
        quota=_or_none(quota or None),
        period=number(period),
        memory=memory,
        both=both,
    )


def _or_none(text: bytes | None) -> int | None:
    """A limit; NO_LIMIT for `max`, -1 and what version 1 writes for that; None without a file."""
    if text is None:
        return None
    found = below(number(text))
    return NO_LIMIT if found is None else found


def _text(directory: str, name: str) -> str | None:
    text = get(directory, name)
    return None if text is None else text.decode("ascii", "replace").strip()


def _named(directory: str, files: Iterable[str]) -> dict[str, str]:
    """Files of one value. Those with a line for each device stay as they were asked for."""
    found = {}
    for name in files:
        text = _text(directory, name)
        if text and "\n" not in text and " " not in text:
            found[name] = text
    return found
