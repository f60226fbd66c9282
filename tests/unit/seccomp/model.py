"""What a profile means, said as plainly as possible: the judge of the translated programs."""

from __future__ import annotations

from typing import Any

X86_64, X86, X32 = 0xC000003E, 0x40000003, 0x4000003E
TOKENS = {"SCMP_ARCH_X86_64": X86_64, "SCMP_ARCH_X86": X86, "SCMP_ARCH_X32": X32}
AARCH64 = 0xC00000B7
X32_BIT = 0x40000000

KILL, ENOSYS = 0x00000000, 0x00050026
_ACTIONS = {
    "SCMP_ACT_KILL": KILL,
    "SCMP_ACT_KILL_THREAD": KILL,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}

# Names and their numbers on x86_64 and x86 (arch/x86/entry/syscalls); None: not there. None of them is reached through
# socketcall(2) or ipc(2) as well.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 3),
    "close": (3, 6),
    "getpid": (39, 20),
    "kill": (62, 37),
    "prctl": (157, 172),
    "arch_prctl": (158, 384),
    "personality": (135, 136),
    "openat": (257, 295),
    "waitpid": (None, 7),
    "ugetrlimit": (None, 191),
    "epoll_ctl_old": (214, None),
    "clock_gettime64": (None, 403),
    "close_range": (436, 436),
    "faccessat2": (439, 439),
    "futex_waitv": (449, 449),
}


def number(name: str, token: int) -> int | None:
    """The number of a call on an architecture."""
    if name not in NUMBERS:
        return None
    wide, narrow = NUMBERS[name]
    if token == X86:
        return narrow
    if token == X32:
        return None if wide is None or name == "epoll_ctl_old" else wide | X32_BIT
    return wide


def value(action: str, errno: int | None) -> int:
    """A filter's return value."""
    base = _ACTIONS[action]
    return base | (1 if errno is None else errno) if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else base


_FLAGS = {"TSYNC": 0, "LOG": 2, "SPEC_ALLOW": 4, "WAIT_KILLABLE_RECV": 32}
_NEW_LISTENER, _SPEC_ALLOW, _WAIT_KILLABLE_RECV = 8, 4, 32


def flags(section: dict[str, Any]) -> tuple[int, bool]:
    """What seccomp(2) is told on a kernel that knows all flags, on an x86_64 machine, and whether it gives a listener."""
    default = value(section["defaultAction"], section.get("defaultErrnoRet"))
    notify = _ACTIONS["SCMP_ACT_NOTIFY"]
    listener = default == notify
    for rule in section.get("syscalls", []):
        known = any(name in NUMBERS for name in rule["names"])
        listener = listener or (known and value(rule["action"], rule.get("errnoRet")) == notify)
    names = section.get("flags")
    found = _SPEC_ALLOW if names is None else 0
    for name in names or ():
        found |= _FLAGS[name.removeprefix("SECCOMP_FILTER_FLAG_")]
    # It is about how a caller waits for a listener's answer.
    return (found | _NEW_LISTENER, True) if listener else (found & ~_WAIT_KILLABLE_RECV, False)


def _holds(condition: dict[str, Any], arguments: list[int], width: int) -> bool:
    mask = (1 << width) - 1
    seen: int = arguments[condition["index"]] & mask
    first: int = condition["value"] & mask
    second: int = condition.get("valueTwo", 0) & mask
    found: dict[str, bool] = {
        "SCMP_CMP_NE": seen != first,
        "SCMP_CMP_LT": seen < first,
        "SCMP_CMP_LE": seen <= first,
        "SCMP_CMP_EQ": seen == first,
        "SCMP_CMP_GE": seen >= first,
        "SCMP_CMP_GT": seen > first,
        "SCMP_CMP_MASKED_EQ": seen & first == second & first,  # "the masked datum", seccomp_rule_add(3)
    }
    return found[condition["op"]]


def evaluate(section: dict[str, Any], called: int, architecture: int, arguments: list[int]) -> int:
    """What the filter returns on an x86_64 machine."""
    default = value(section["defaultAction"], section.get("defaultErrnoRet"))
    configured = {X86_64} | {TOKENS[name] for name in section.get("architectures", [])}
    token = X32 if architecture == X86_64 and called & X32_BIT else architecture
    if token not in configured:
        return KILL
    names = {name for rule in section.get("syscalls", []) for name in rule["names"]}
    limit = max((found for name in names if (found := number(name, token))), default=0)
    lets_pass = section["defaultAction"] in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")
    if limit and called > limit and not lets_pass:
        return ENOSYS

    winner: int | None = None
    for rule in section.get("syscalls", []):
        action = value(rule["action"], rule.get("errnoRet"))
        if action == default or called not in {number(name, token) for name in rule["names"]}:
            continue
        conditions = rule.get("args", [])
        if not conditions:
            return action  # the first without conditions beats all with
        hold = [_holds(condition, arguments, 64 if token == X86_64 else 32) for condition in conditions]
        twice = len({condition["index"] for condition in conditions}) < len(conditions)
        if winner is None and (any(hold) if twice else all(hold)):
            winner = action
    return default if winner is None else winner
