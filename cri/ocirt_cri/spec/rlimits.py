"""Resource limits of processes: a written baseline, so that none comes from how the daemon happened to be started.

They are what systemd gives a service on a current distribution, but for core files and locked memory, which are as the kernel
has them. 1024 is the soft limit of open files because select(2) fails beyond it; who wants more raises it to the hard one.
RLIMIT_SIGPENDING depends on the machine's memory and stays as the kernel made it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocirt_cri.spec.inputs import Json

_NONE = (1 << 64) - 1  # RLIM_INFINITY
BASELINE: dict[str, tuple[int, int]] = {
    "RLIMIT_AS": (_NONE, _NONE),
    "RLIMIT_CORE": (_NONE, _NONE),
    "RLIMIT_CPU": (_NONE, _NONE),
    "RLIMIT_DATA": (_NONE, _NONE),
    "RLIMIT_FSIZE": (_NONE, _NONE),
    "RLIMIT_LOCKS": (_NONE, _NONE),
    "RLIMIT_MEMLOCK": (8 << 20, 8 << 20),
    "RLIMIT_MSGQUEUE": (819200, 819200),
    "RLIMIT_NICE": (0, 0),
    "RLIMIT_NOFILE": (1024, 524288),
    "RLIMIT_NPROC": (_NONE, _NONE),
    "RLIMIT_RSS": (_NONE, _NONE),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (_NONE, _NONE),
    "RLIMIT_STACK": (8 << 20, _NONE),
}


def limits(settings: Mapping[str, tuple[int, int]], bounds: Mapping[str, int]) -> list[Json]:
    """`process.rlimits`: the baseline, and over it what the daemon's configuration says; none above what can be had."""
    wanted = BASELINE | dict(settings)
    found = []
    for name, (soft, hard) in sorted(wanted.items()):
        most = min(hard, bounds.get(name, hard))
        found.append({"type": name, "soft": min(soft, most), "hard": most})
    return found
