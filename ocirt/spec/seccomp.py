"""`linux.seccomp`: its shape and meaning (config-linux.md, "Seccomp"; seccomp(2)). Loaded only if met."""

from __future__ import annotations

from ocirt.spec.shape import U32, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)
_OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
_ARCHITECTURES = (
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
)
_FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)
SHAPES: dict[str, Any] = {
    "seccomp": {
        None: ("defaultAction",),
        "defaultAction": _ACTIONS,
        "defaultErrnoRet": U32,
        "architectures": [_ARCHITECTURES],
        "flags": [_FLAGS],
        "listenerPath": str,
        "listenerMetadata": str,
        "syscalls": [
            {
                None: ("names", "action"),
                "names": [str],
                "action": _ACTIONS,
                "errnoRet": U32,
                "args": [
                    {
                        None: ("index", "value", "op"),
                        "index": range(6),
                        "value": U64,
                        "valueTwo": U64,
                        "op": _OPERATORS,
                    },
                ],
            },
        ],
    },
}

# The largest value that goes with an action: an errno, below MAX_ERRNO for libseccomp; or the 16 bits that a tracer sees
# (seccomp(2), SECCOMP_RET_DATA).
_DATA = {"SCMP_ACT_ERRNO": 4094, "SCMP_ACT_TRACE": 65535}


def check_seccomp(seccomp: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
    """Append the findings on a filter of the right shape. Which system calls there are is libseccomp's to say."""
    default = seccomp["defaultAction"]
    if "defaultErrnoRet" in seccomp:
        _errno(default, seccomp["defaultErrnoRet"], pointer + "/defaultErrnoRet", findings)
    notify = default == "SCMP_ACT_NOTIFY"
    for index, rule in enumerate(seccomp.get("syscalls", ())):
        if "errnoRet" in rule:
            _errno(rule["action"], rule["errnoRet"], f"{pointer}/syscalls/{index}/errnoRet", findings)
        if not rule["names"]:
            hint = 'the names of system calls, such as ["mkdir", "mkdirat"]'
            findings.append((f"{pointer}/syscalls/{index}/names", "is empty", hint, "error"))
        notify = notify or rule["action"] == "SCMP_ACT_NOTIFY"
    if seccomp.get("listenerPath"):
        return
    if seccomp.get("listenerMetadata"):
        message = "has no meaning without a listener"
        findings.append((pointer + "/listenerMetadata", message, 'add "listenerPath", or leave it out', "error"))
    if notify:
        hint = 'the socket of an agent, or another action than "SCMP_ACT_NOTIFY"'
        findings.append((pointer, "seccomp listenerPath is not set, but calls are to be notified", hint, "error"))


def _errno(action: str, value: int, pointer: str, findings: list[Finding]) -> None:
    limit = _DATA.get(action)
    if limit is None:
        hint = 'leave it out, or use "SCMP_ACT_ERRNO" or "SCMP_ACT_TRACE"'
        findings.append((pointer, f"{action} returns no errno", hint, "error"))
    elif value > limit:
        findings.append((pointer, f"{value} is out of range", f"0 to {limit}", "error"))
