"""Limits: what CRI says of CPU, memory and the like, as `linux.resources`, for both versions of cgroups: the runtime converts.

0 and "" are "not given" in CRI. Without a word about swap a memory limit is one of memory and swap together, so that nothing is
swapped out unless the kubelet wants it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.cgroups.limits import writes
from ocirt.errors import Error
from ocirt.spec.resources import check_resources_document
from ocirt_api.cri.api_pb2 import LinuxContainerResources
from ocirt_cri.spec.refuse import invalid, shown, unsupported

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Host, Json

FIELD = "config.linux.resources"
_SHARES = (2, 262144)
_PERIOD = (1000, 1000000)
_LEAST_QUOTA = 1000
_LEAST_MEMORY = 4096
_NAMES = {
    "/cpu/shares": "cpu_shares",
    "/cpu/quota": "cpu_quota",
    "/cpu/period": "cpu_period",
    "/cpu/cpus": "cpuset_cpus",
    "/cpu/mems": "cpuset_mems",
    "/memory/limit": "memory_limit_in_bytes",
    "/memory/swap": "memory_swap_limit_in_bytes",
}
# They move and kill processes, and say what the cgroup is: no limits.
_NOT_LIMITS = frozenset(
    ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.subtree_control", "cgroup.events")
)


def check(wanted: LinuxContainerResources, field: str = FIELD) -> None:
    """Values out of range. Raises Error."""
    if wanted.cpu_shares and not _SHARES[0] <= wanted.cpu_shares <= _SHARES[1]:
        raise invalid(f"{field}.cpu_shares", f"{wanted.cpu_shares} is out of range", f"{_SHARES[0]} to {_SHARES[1]}, 0 for none")
    if wanted.cpu_period and not _PERIOD[0] <= wanted.cpu_period <= _PERIOD[1]:
        hint = f"{_PERIOD[0]} to {_PERIOD[1]} microseconds, 0 for 100000"
        raise invalid(f"{field}.cpu_period", f"{wanted.cpu_period} is out of range", hint)
    if wanted.cpu_quota < -1 or 0 < wanted.cpu_quota < _LEAST_QUOTA:
        hint = f"{_LEAST_QUOTA} microseconds or more, -1 for no limit, 0 for none given"
        raise invalid(f"{field}.cpu_quota", f"{wanted.cpu_quota} is out of range", hint)
    limit, swap = wanted.memory_limit_in_bytes, wanted.memory_swap_limit_in_bytes
    if limit < -1 or 0 < limit < _LEAST_MEMORY:
        hint = f"{_LEAST_MEMORY} or more, -1 for no limit, 0 for none given"
        raise invalid(f"{field}.memory_limit_in_bytes", f"{limit} is out of range", hint)
    if swap < -1:
        raise invalid(f"{field}.memory_swap_limit_in_bytes", f"{swap} is out of range", "bytes, -1 for no limit")
    if swap > 0 and limit <= 0:
        hint = "it counts memory and swap together: give memory_limit_in_bytes as well"
        raise invalid(f"{field}.memory_swap_limit_in_bytes", "a limit of swap without one of memory", hint)
    if 0 < swap < limit:
        hint = f"{limit} for no swap, more for some, -1 for no limit"
        raise invalid(f"{field}.memory_swap_limit_in_bytes", f"{swap} is below the memory limit, which it includes", hint)
    if not -1000 <= wanted.oom_score_adj <= 1000:
        raise invalid(f"{field}.oom_score_adj", f"{wanted.oom_score_adj} is out of range", "-1000 to 1000")
    for name, value in sorted(wanted.unified.items()):
        where = f'{field}.unified["{name[:80]}"]'
        if name in _NOT_LIMITS:
            raise invalid(where, f"{shown(name)} is no limit", "such as memory.high")
        if "\0" in value or "\0" in name or "\n" in name:
            raise invalid(where, f"{shown(value)} is no value of a file", "text without NUL")
    _by_the_runtime(_document(wanted), field)


def resources_of(wanted: LinuxContainerResources, host: Host, field: str = FIELD, *, pids: int = 0) -> Json:
    """`linux.resources`, device rules apart, of limits that were checked. `pids`: the most tasks, 0 for no limit.

    Raises Error for what this host does not limit.
    """
    found = _document(wanted)
    if wanted.unified and host.cgroup_version != 2:
        hint = "leave it out: this host has cgroups of version 1"
        raise unsupported(f"{field}.unified", "files of cgroup version 2", hint)
    memory = found.get("memory")
    if memory is not None:
        if not host.swap:
            memory.pop("swap", None)
        elif memory.get("limit", -1) > 0 and "swap" not in memory:
            memory["swap"] = memory["limit"]
    if "hugetlb" not in host.controllers:
        # A limit of pages that nobody can use; the kubelet sends one for each size that it ever saw.
        if any(one.limit for one in wanted.hugepage_limits):
            raise unsupported(f"{field}.hugepage_limits", "this host's cgroups have no controller hugetlb", "no huge pages")
        found.pop("hugepageLimits", None)
    if pids > 0 and "pids" in host.controllers:
        found["pids"] = {"limit": pids}
    return found


def changed(old: LinuxContainerResources, new: LinuxContainerResources) -> LinuxContainerResources:
    """What is given now, and for the rest what was before.

    A limit of memory says what it says of swap: where there was none, or the limit of both is too low now, there is none.
    """
    found = LinuxContainerResources()
    found.CopyFrom(old)
    found.MergeFrom(new)
    limit, swap = new.memory_limit_in_bytes, new.memory_swap_limit_in_bytes
    both = old.memory_swap_limit_in_bytes
    if limit and not swap and both > 0 and (both == old.memory_limit_in_bytes or limit < 0 or limit > both):
        found.memory_swap_limit_in_bytes = 0
    pages = {one.page_size: one.limit for one in [*old.hugepage_limits, *new.hugepage_limits]}
    del found.hugepage_limits[:]
    for size, most in pages.items():
        found.hugepage_limits.add(page_size=size, limit=most)
    return found


def update_of(old: LinuxContainerResources, new: LinuxContainerResources, host: Host, field: str, *, pids: int) -> Json:
    """`linux.resources` for a change of limits that are in force (`old`) to what is given now. Raises Error.

    Memory that is in use is not taken away: the runtime refuses that, as the kernel does with version 1.
    """
    whole = changed(old, new)
    check(whole, field)
    asked = LinuxContainerResources()
    asked.CopyFrom(new)
    if new.memory_limit_in_bytes or new.memory_swap_limit_in_bytes:
        # They depend on each other.
        asked.memory_limit_in_bytes = whole.memory_limit_in_bytes
        asked.memory_swap_limit_in_bytes = whole.memory_swap_limit_in_bytes
    found = resources_of(asked, host, field, pids=pids)
    if "memory" in found:
        found["memory"]["checkBeforeUpdate"] = True
    return found


def oom_score_adj(wanted: LinuxContainerResources, host: Host) -> int:
    """`process.oomScoreAdj`. What the daemon may not give becomes the lowest that it may."""
    if host.limited_oom_score_adj:
        return max(wanted.oom_score_adj, host.oom_score_adj)
    return wanted.oom_score_adj


def _document(wanted: LinuxContainerResources) -> Json:
    cpu: Json = {}
    for name, value in (("shares", wanted.cpu_shares), ("quota", wanted.cpu_quota), ("period", wanted.cpu_period)):
        if value:
            cpu[name] = value
    for name, text in (("cpus", wanted.cpuset_cpus), ("mems", wanted.cpuset_mems)):
        if text:
            cpu[name] = text
    memory: Json = {}
    if wanted.memory_limit_in_bytes:
        memory["limit"] = wanted.memory_limit_in_bytes
    if wanted.memory_swap_limit_in_bytes:
        memory["swap"] = wanted.memory_swap_limit_in_bytes
    found: Json = {name: section for name, section in (("cpu", cpu), ("memory", memory)) if section}
    if wanted.hugepage_limits:
        found["hugepageLimits"] = [{"pageSize": one.page_size, "limit": one.limit} for one in wanted.hugepage_limits]
    if wanted.unified:
        found["unified"] = dict(sorted(wanted.unified.items()))
    return found


def _by_the_runtime(document: Json, field: str) -> None:
    """What the runtime would refuse, said in CRI's words."""
    for pointer, message, hint, severity in check_resources_document(document):
        if severity == "error":
            raise invalid(place(pointer, field), message, hint)
    try:
        writes({name: value for name, value in document.items() if name in ("unified", "hugepageLimits")}, "v2", "")
    except Error as err:
        raise invalid(place(err.subject, field), err.message, err.hint) from None


def place(pointer: str, field: str) -> str:
    """CRI's name of what `linux.resources` has at a pointer."""
    if pointer in _NAMES:
        return f"{field}.{_NAMES[pointer]}"
    kind, _, rest = pointer.removeprefix("/").partition("/")
    if kind == "hugepageLimits":
        number, _, name = rest.partition("/")
        return f"{field}.hugepage_limits[{number}]" + (".page_size" if name == "pageSize" else "")
    name = rest.replace("~1", "/").replace("~0", "~")
    return f'{field}.{kind}["{name[:80]}"]' if kind == "unified" and name else f"{field}.{kind or 'unified'}"
