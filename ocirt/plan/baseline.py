"""What a process of a container inherits from nobody: the treatment that a caller gets says nothing of the container's.

A daemon is protected from the OOM killer, has many descriptors and perhaps a nice value; what it starts in containers has what
stands here, unless config.json says otherwise. Signals, umask, environment, groups, CPU affinity and (unless left out by the
request) the session keyring never are the caller's. These limits are what systemd gives a service, but for those that a cgroup
limits better (processes) or that depend on the machine's memory (pending signals).
"""

from __future__ import annotations

from errno import EACCES, EPERM

from ocirt.plan import INIT, PARENT, step
from ocirt.spec.rlimits import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.plan import Errors, Plan
    from ocirt.plan.process import Process

_UNLIMITED = (1 << 64) - 1
LIMITS: dict[str, tuple[int, int]] = {
    "RLIMIT_AS": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_CORE": (0, _UNLIMITED),
    "RLIMIT_CPU": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_DATA": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_FSIZE": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_LOCKS": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_MEMLOCK": (8 << 20, 8 << 20),
    "RLIMIT_MSGQUEUE": (819200, 819200),
    "RLIMIT_NICE": (0, 0),
    "RLIMIT_NOFILE": (1024, 524288),  # more than 1024 only for who asks: select(2) knows no more
    "RLIMIT_NPROC": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_RSS": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_RTPRIO": (0, 0),
    "RLIMIT_RTTIME": (_UNLIMITED, _UNLIMITED),
    "RLIMIT_SIGPENDING": (65536, 65536),
    "RLIMIT_STACK": (8 << 20, _UNLIMITED),
}


def of_process(run: Process, score: int, *, user_namespace: bool) -> tuple[Plan, Plan, Plan]:
    """Init's steps; the parent's once there is an init; the parent's once init is ready.

    What config.json sets is left to the steps for that. score: that of the OOM killer for a process that says nothing of it.
    user_namespace: the process is in one of its own, and may not raise a limit even if the parent may.
    """
    given = {name for _, name, _, _, _ in run.rlimits}
    limits = tuple((NUMBERS[name], *values) for name, values in LIMITS.items() if name not in given)
    refused: Errors = {EPERM: None, EACCES: None}  # a caller that is not root cannot raise what it has
    outside = [
        # Init may have done what config.json says before the parent comes to it.
        step(PARENT, "baseline.schedule", "scheduler" not in run.process, "ioPriority" not in run.process, errors=refused),
    ]
    if "oomScoreAdj" not in run.process:
        outside.append(step(PARENT, "process.set_oom_score", score, errors=refused))
    inside = [step(INIT, "baseline.limit", limits), step(INIT, "baseline.reset", errors={EPERM: None})]
    return inside, outside, [step(PARENT, "baseline.raise_limits", limits)] if user_namespace else []
