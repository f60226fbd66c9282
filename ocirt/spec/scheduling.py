"""How the kernel is to treat the process: CPU and I/O scheduling, CPU affinity, NUMA memory, execution domain.

(config.md, "Linux Process"; config-linux.md, "Memory policy" and "Personality"; sched_setattr(2), ioprio_set(2),
sched_setaffinity(2), set_mempolicy(2), personality(2).) Loaded only if a document has one of these.
"""

from __future__ import annotations

from ocirt.spec.shape import I32, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

# linux/sched.h
POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# linux/ioprio.h
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
# linux/mempolicy.h
MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
# linux/personality.h
DOMAINS = {"LINUX": 0, "LINUX32": 8}

SHAPES: dict[str, Any] = {
    "scheduler": {
        None: ("policy",),
        "policy": tuple(POLICIES),
        "nice": I32,
        "priority": I32,
        "flags": [tuple(SCHEDULER_FLAGS)],
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    },
    "ioPriority": {None: ("class",), "class": tuple(IO_CLASSES), "priority": I32},
    "execCPUAffinity": {"initial": str, "final": str},
    "memoryPolicy": {None: ("mode",), "mode": tuple(MEMORY_MODES), "nodes": str, "flags": [tuple(MEMORY_FLAGS)]},
    "personality": {None: ("domain",), "domain": tuple(DOMAINS), "flags": [str]},
}

_LARGEST = 64 * 1024  # the highest CPU or node that is taken for a number, as for runc
_SHORTEST_RUNTIME = 1024  # nanoseconds, sched_setattr(2)


def members(text: str) -> int:
    """A list such as "0-3,7" as a bit mask; "" is none. Blanks around, and commas too many, are allowed as for runc.

    Raises ValueError with what is wrong.
    """
    mask = 0
    for part in text.split(","):
        word = part.strip()
        if not word:
            continue
        first, dash, last = word.partition("-")
        low = _number(first)
        high = _number(last) if dash else low
        if low > high:
            raise ValueError(f'"{word}" is a range that ends before it begins')
        mask |= (1 << high + 1) - (1 << low)
    if text and not mask:
        raise ValueError(f'"{text}" has no members')
    return mask


def _number(word: str) -> int:
    if not (word.isascii() and word.isdecimal()):
        raise ValueError(f'"{word}" is not a number')
    if len(word) > len(str(_LARGEST)) or int(word) > _LARGEST:
        raise ValueError(f"{word} is above {_LARGEST}")
    return int(word)


def _list(text: str, pointer: str, findings: list[Finding]) -> int:
    try:
        return members(text)
    except ValueError as err:
        findings.append((pointer, str(err), 'a list of numbers and ranges: "0-3,7"', "error"))
        return -1


def check_scheduling(process: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on `scheduler`, `ioPriority` and `execCPUAffinity` of a process of the right shape."""
    if scheduler := process.get("scheduler"):
        _scheduler(scheduler, pointer + "/scheduler", findings)
    if not 0 <= (process.get("ioPriority") or {}).get("priority", 0) <= 7:
        findings.append((pointer + "/ioPriority/priority", "is out of range", "an integer from 0 (first) to 7", "error"))
    for name, text in (process.get("execCPUAffinity") or {}).items():
        if name in ("initial", "final"):
            _list(text, f"{pointer}/execCPUAffinity/{name}", findings)


def _scheduler(scheduler: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    policy = scheduler["policy"]
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= scheduler.get("nice", 0) <= 19:
        findings.append((pointer + "/nice", "is out of range", "an integer from -20 to 19", "error"))
    priority = scheduler.get("priority", 0)
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= priority <= 99:
            at = pointer + "/priority" if "priority" in scheduler else pointer
            findings.append((at, f"{policy} needs a priority", '"priority": an integer from 1 to 99', "error"))
    elif priority:
        message = f"{policy} has no priorities"
        findings.append((pointer + "/priority", message, "leave it out; SCHED_FIFO and SCHED_RR have", "error"))
    times = [scheduler.get(name, 0) for name in ("runtime", "deadline", "period")]
    if policy != "SCHED_DEADLINE":
        for name in ("runtime", "deadline", "period"):
            if scheduler.get(name):
                message = f"{policy} has no {name}"
                findings.append((f"{pointer}/{name}", message, "leave it out; SCHED_DEADLINE has one", "error"))
                return
    elif not _SHORTEST_RUNTIME <= times[0] <= times[1] <= (times[2] or times[1]):
        message = "SCHED_DEADLINE needs a runtime, within a deadline, within a period"
        hint = f"{_SHORTEST_RUNTIME} <= runtime <= deadline <= period, in nanoseconds"
        findings.append((pointer, message, hint, "error"))


def check_memory_policy(policy: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on `linux.memoryPolicy`."""
    mode = policy["mode"]
    nodes = _list(policy.get("nodes", ""), pointer + "/nodes", findings)
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and nodes > 0:
        message = f"the memory policy mode requires 0 nodes but got {nodes.bit_count()}"
        findings.append((pointer + "/nodes", message, "leave it out, or ask for MPOL_BIND or MPOL_PREFERRED", "error"))
    elif mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not nodes:
        at = pointer + "/nodes" if "nodes" in policy else pointer
        findings.append((at, "the memory policy mode requires at least one node but got 0", '"nodes": "0"', "error"))


def check_personality(personality: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on `linux.personality`."""
    if personality.get("flags"):
        message = "no flags are defined: they are ignored"
        findings.append((pointer + "/flags", message, "leave it out", "warning"))
