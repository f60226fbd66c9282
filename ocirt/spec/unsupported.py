"""What the specification has and this version does not: each is refused by its name, never ignored. Loaded only if met."""

from __future__ import annotations

import posix

from ocirt.spec.shape import I32, U64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

SHAPES: dict[str, Any] = {
    "scheduler": {
        None: ("policy",),
        "policy": ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE"),
        "nice": I32,
        "priority": I32,
        "flags": [
            (
                "SCHED_FLAG_RESET_ON_FORK",
                "SCHED_FLAG_RECLAIM",
                "SCHED_FLAG_DL_OVERRUN",
                "SCHED_FLAG_KEEP_POLICY",
                "SCHED_FLAG_KEEP_PARAMS",
                "SCHED_FLAG_UTIL_CLAMP_MIN",
                "SCHED_FLAG_UTIL_CLAMP_MAX",
            ),
        ],
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    },
    "ioPriority": {
        None: ("class",),
        "class": ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"),
        "priority": I32,
    },
    "execCPUAffinity": {"initial": str, "final": str},
    "memoryPolicy": {
        None: ("mode",),
        "mode": (
            "MPOL_DEFAULT",
            "MPOL_BIND",
            "MPOL_INTERLEAVE",
            "MPOL_WEIGHTED_INTERLEAVE",
            "MPOL_PREFERRED",
            "MPOL_PREFERRED_MANY",
            "MPOL_LOCAL",
        ),
        "nodes": str,
        "flags": [("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")],
    },
}

# The security modules that a host may lack: (its name, a path that is there only when it is enabled).
_MODULES: dict[str, tuple[str, str]] = {
    "apparmorProfile": ("AppArmor", "/sys/kernel/security/apparmor"),
    "selinuxLabel": ("SELinux", "/sys/fs/selinux/enforce"),
    "mountLabel": ("SELinux", "/sys/fs/selinux/enforce"),
}


def refuse(name: str, pointer: str, findings: list[Finding]) -> None:
    """Append the finding that this version cannot do what property `name` asks for."""
    message = "not supported yet"
    hint = "leave it out"
    if name in _MODULES:
        module, path = _MODULES[name]
        try:
            posix.stat(path)
            hint = f"leave it out; the container then runs without {module} confinement of its own"
        except OSError:
            message = f"not supported: {module} is not enabled on this host"
            hint = "leave it out, or make it empty"
    findings.append((pointer, message, hint, "error"))
