"""Taking from a new process what it has from the caller. Loaded only where that is asked for."""

from __future__ import annotations

import posix
from errno import EINVAL, ENOSYS, EPERM

from ocirt.kernel import process
from ocirt.kernel.ffi import CallError, syscall
from ocirt.kernel.run import Run
from ocirt.paths import write_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    Limits = tuple[tuple[int, int, int], ...]

_IOPRIO_WHO_PROCESS = 1
_SLACK = 50_000  # nanoseconds: that of the first process (init/init_task.c)
_DUMPED = "0x33"  # of memory mappings: core(5)
# linux/prctl.h
_PR_SET_SECUREBITS = 28
_PR_SET_TIMERSLACK = 29
_PR_SET_THP_DISABLE = 41


def raise_limits(run: Run, limits: Limits) -> None:
    """Give the child those of the limits that are above what it has from us, as far as this takes no right that we lack."""
    for number, soft, hard in limits:
        # Ours are looked at: see process.raise_limit.
        if hard > process.get_rlimit(0, number)[1]:
            try:
                process.set_rlimit(run.pid, number, soft, hard)
            except CallError as err:
                if err.errno != EPERM:
                    raise


def schedule(run: Run, policy: bool, io: bool) -> None:  # noqa: FBT001
    """Have the child scheduled as most are: no policy and nice value, no class of I/O; and what of it a core file has."""
    pid = run.pid
    if policy:
        posix.sched_setscheduler(pid, posix.SCHED_OTHER, posix.sched_param(0))
        posix.setpriority(posix.PRIO_PROCESS, pid, 0)
    if io:
        syscall("ioprio_set", _IOPRIO_WHO_PROCESS, pid, 0)
    try:
        write_text(f"/proc/{pid}/coredump_filter", _DUMPED)
    except FileNotFoundError:
        pass  # a kernel without core files


def limit(run: Run, limits: Limits) -> None:
    """Take these limits (number, soft, hard) ourselves, or what comes nearest to them without CAP_SYS_RESOURCE.

    In a user namespace the parent raises what is left.
    """
    del run
    for number, soft, hard in limits:
        try:
            process.set_rlimit(0, number, soft, hard)
        except CallError as err:
            if err.errno != EPERM:
                raise
            most = process.get_rlimit(0, number)[1]
            process.set_rlimit(0, number, min(soft, most), min(hard, most))


def reset(run: Run) -> None:
    """What only a process itself can change: its personality, timers, memory policy, and the rules of its capabilities."""
    del run
    syscall("personality", 0)
    process.prctl(_PR_SET_TIMERSLACK, _SLACK)
    for call, *words in (("set_mempolicy", 0, 0, 0), ("prctl", _PR_SET_THP_DISABLE, 0), ("prctl", _PR_SET_SECUREBITS, 0)):
        try:
            syscall(str(call), *[int(word) for word in words])
        except CallError as err:
            if err.errno not in (EINVAL, ENOSYS, EPERM):  # this kernel has none, or we may not and had none either
                raise
