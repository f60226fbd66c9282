"""The runtime's own AppArmor profile (`RuntimeDefault`), as text for apparmor_parser(8).

It forbids what docker's documented profile forbids (docs.docker.com/engine/security/apparmor): mounts, and writes to what the
kernel shows of the whole machine in /proc and /sys. All else is the business of capabilities, seccomp and namespaces. Processes
of one profile may trace and signal each other; the host's, which has none, may signal them, and so may a confined runtime.
"""

from __future__ import annotations

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
# Below /proc: names that stand for no process, and those files of /proc/sys that belong to the ipc namespace.
_PROC = (
    "deny @{PROC}/* w,",
    "deny @{PROC}/{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}/** w,",
    "deny @{PROC}/sys/[^k]** w,",
    "deny @{PROC}/sys/kernel/{?,??,[^s][^h][^m]**} w,",
    "deny @{PROC}/{sysrq-trigger,kcore,mem,kmem} rwklx,",
)
_SYS = (
    "deny /sys/[^f]*/** wklx,",
    "deny /sys/f[^s]*/** wklx,",
    "deny /sys/fs/[^c]*/** wklx,",
    "deny /sys/fs/c[^g]*/** wklx,",
    "deny /sys/fs/cg[^r]*/** wklx,",
    "deny /sys/{firmware,devices/virtual/powercap}/** rwklx,",
    "deny /sys/kernel/security/** rwklx,",
)
_HOST = ("unconfined", "runc", "crun", "ocirt", "ocirtd")  # whose signals reach the container


def profile(name: str) -> str:
    """The profile with that name. Raises ValueError for what is no name."""
    if not name or not _LETTERS.issuperset(name):
        raise ValueError(name)
    rules = [
        "network,",
        "capability,",
        "file,",
        "umount,",
        "deny mount,",
        *[f"signal (receive) peer={peer}," for peer in _HOST],
        f"signal (send,receive) peer={name},",
        *_PROC,
        *_SYS,
        f"ptrace (trace,read,tracedby,readby) peer={name},",
    ]
    head = ["#include <tunables/global>", "", f"profile {name} flags=(attach_disconnected,mediate_deleted) {{"]
    return "\n".join([*head, "  #include <abstractions/base>", "", *[f"  {rule}" for rule in rules], "}", ""])
