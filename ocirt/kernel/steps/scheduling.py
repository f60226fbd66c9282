"""How the kernel treats a process: scheduling, CPU affinity, NUMA memory, execution domain. Loaded only if a plan asks for it.

The parent does it to init, whose pid it knows; init does it to itself, as the process 0.
"""

from __future__ import annotations

import posix
from _struct import pack

from ocirt.kernel.ffi import syscall
from ocirt.kernel.run import Run

_SCHED_ATTR_SIZE = 56  # struct sched_attr with the fields of Linux 5.3
_IOPRIO_WHO_PROCESS = 1


def set_scheduler(run: Run, policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int) -> None:
    """sched_setattr(2); times in nanoseconds."""
    attr = pack("IIQiIQQQII", _SCHED_ATTR_SIZE, policy, flags, nice, priority, runtime, deadline, period, 0, 0)
    syscall("sched_setattr", run.pid, attr, 0)


def set_io_priority(run: Run, value: int) -> None:
    """ioprio_set(2); the class stands above bit 13."""
    syscall("ioprio_set", _IOPRIO_WHO_PROCESS, run.pid, value)


def set_personality(run: Run, domain: int) -> None:
    """personality(2)."""
    del run
    syscall("personality", domain)


def set_memory_policy(run: Run, mode: int, nodes: bytes) -> None:
    """set_mempolicy(2) of this process; `nodes` is a mask, of which the kernel wants one bit more than it reads."""
    del run
    syscall("set_mempolicy", mode, nodes or None, len(nodes) * 8 + 1 if nodes else 0)


def set_affinity(run: Run, cpus: bytes) -> None:
    """sched_setaffinity(2) of this process."""
    del run
    syscall("sched_setaffinity", 0, len(cpus), cpus)


def lend_affinity(run: Run, cpus: bytes) -> None:
    """Go to these CPUs, for the child that is cloned next."""
    run.cpus = posix.sched_getaffinity(0)
    syscall("sched_setaffinity", 0, len(cpus), cpus)


def return_affinity(run: Run) -> None:
    """Go back to where we were before `lend_affinity`."""
    posix.sched_setaffinity(0, run.cpus)
