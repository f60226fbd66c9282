"""Limits in three tongues: CRI's, NRI's, and config.json's `linux.resources`. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host, Json

# NRI's field, and the document's.
_MEMORY = (
    ("limit", "limit"),
    ("reservation", "reservation"),
    ("swap", "swap"),
    ("kernel", "kernel"),
    ("kernel_tcp", "kernelTCP"),
    ("swappiness", "swappiness"),
    ("disable_oom_killer", "disableOOMKiller"),
    ("use_hierarchy", "useHierarchy"),
)
_CPU = (
    ("shares", "shares"),
    ("quota", "quota"),
    ("period", "period"),
    ("realtime_runtime", "realtimeRuntime"),
    ("realtime_period", "realtimePeriod"),
)
# NRI's section and field, and CRI's field.
_CRI = (
    ("memory", "limit", "memory_limit_in_bytes"),
    ("memory", "swap", "memory_swap_limit_in_bytes"),
    ("cpu", "shares", "cpu_shares"),
    ("cpu", "quota", "cpu_quota"),
    ("cpu", "period", "cpu_period"),
)
_CRI_TEXTS = (("cpus", "cpuset_cpus"), ("mems", "cpuset_mems"))


def of_document(document: Json) -> nri.LinuxResources:
    """`linux.resources` as NRI has it."""
    found = nri.LinuxResources()
    for section, names in (("memory", _MEMORY), ("cpu", _CPU)):
        given = document.get(section) or {}
        for name, key in names:
            if given.get(key) is not None:
                getattr(getattr(found, section), name).value = given[key]
    for key in ("cpus", "mems"):
        if text := (document.get("cpu") or {}).get(key):
            setattr(found.cpu, key, text)
    for limit in document.get("hugepageLimits") or ():
        found.hugepage_limits.add(page_size=limit["pageSize"], limit=limit["limit"])
    for key, value in (document.get("unified") or {}).items():
        found.unified[key] = value
    for rule in document.get("devices") or ():
        there = found.devices.add(allow=rule["allow"], type=rule.get("type", "a"), access=rule.get("access", "rwm"))
        for key in ("major", "minor"):
            if rule.get(key) is not None:
                getattr(there, key).value = rule[key]
    if (document.get("pids") or {}).get("limit"):
        found.pids.limit = document["pids"]["limit"]
    return found


def to_document(given: nri.LinuxResources) -> Json:
    """What NRI sets, as a `linux.resources` that says no more."""
    found: Json = {}
    for section, names in (("memory", _MEMORY), ("cpu", _CPU)):
        message: Any = getattr(given, section)
        values = {key: getattr(message, name).value for name, key in names if message.HasField(name)}
        if section == "cpu":
            values |= {key: getattr(given.cpu, key) for key in ("cpus", "mems") if getattr(given.cpu, key)}
        if values:
            found[section] = values
    if given.hugepage_limits:
        found["hugepageLimits"] = [{"pageSize": one.page_size, "limit": one.limit} for one in given.hugepage_limits]
    if given.unified:
        found["unified"] = dict(sorted(given.unified.items()))
    if given.devices:
        found["devices"] = [_rule(one) for one in given.devices]
    if given.HasField("pids"):
        found["pids"] = {"limit": given.pids.limit}
    return found


def _rule(one: nri.LinuxDeviceCgroup) -> Json:
    rule: Json = {"allow": one.allow}
    if one.type:
        rule["type"] = one.type
    if one.HasField("major"):
        rule["major"] = one.major.value
    if one.HasField("minor"):
        rule["minor"] = one.minor.value
    return rule | {"access": one.access or "rwm"}


def of_cri(given: cri.LinuxContainerResources) -> nri.LinuxResources:
    """CRI's limits, where 0 and "" are "not given"."""
    found = nri.LinuxResources()
    for section, name, theirs in _CRI:
        if value := getattr(given, theirs):
            getattr(getattr(found, section), name).value = value
    for name, theirs in _CRI_TEXTS:
        if text := getattr(given, theirs):
            setattr(found.cpu, name, text)
    for limit in given.hugepage_limits:
        found.hugepage_limits.add(page_size=limit.page_size, limit=limit.limit)
    for key, value in given.unified.items():
        found.unified[key] = value
    return found


def into_cri(given: nri.LinuxResources, there: cri.LinuxContainerResources) -> None:
    """Set in `there` what NRI sets, as far as CRI has a field for it."""
    for section, name, theirs in _CRI:
        if getattr(given, section).HasField(name):
            setattr(there, theirs, getattr(getattr(given, section), name).value)
    for name, theirs in _CRI_TEXTS:
        if text := getattr(given.cpu, name):
            setattr(there, theirs, text)
    sizes = {limit.page_size for limit in given.hugepage_limits}
    kept = [one for one in there.hugepage_limits if one.page_size not in sizes]
    kept += [cri.HugepageLimit(page_size=one.page_size, limit=one.limit) for one in given.hugepage_limits]
    del there.hugepage_limits[:]
    there.hugepage_limits.extend(kept)
    for key, value in given.unified.items():
        there.unified[key] = value


def laid_over(document: Json, given: nri.LinuxResources, host: Host) -> Json:
    """`linux.resources` with what NRI sets over it, and fit for this host: swap, huge pages and pids only where it has them."""
    found: Json = {name: (dict(value) if isinstance(value, dict) else list(value)) for name, value in document.items()}
    for name, value in to_document(given).items():
        if isinstance(value, dict):
            found[name] = found.get(name, {}) | value
        elif name == "devices":
            found[name] = [*found.get(name, []), *value]
        else:
            sizes = {one["pageSize"] for one in value}
            found[name] = [one for one in found.get(name, []) if one["pageSize"] not in sizes] + value
    memory = found.get("memory")
    if memory is not None:
        if not host.swap:
            memory.pop("swap", None)
        elif given.memory.HasField("limit") and not given.memory.HasField("swap"):
            # As for a limit of the request: memory and swap together, so that nothing is swapped out by it.
            memory["swap"] = memory["limit"]
    if "hugetlb" not in host.controllers:
        found.pop("hugepageLimits", None)
    if "pids" not in host.controllers:
        found.pop("pids", None)
    return found
