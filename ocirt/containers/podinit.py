"""The init of a pod whose containers share a PID namespace: a static program that reaps, and ends when it is asked to.

It is no container, and has no record: who starts it holds it by its pidfd. The containers see it in their /proc. So it
runs from a sealed file, in an empty read-only root, without capabilities and descriptors, and cannot be looked into.
"""

from __future__ import annotations

import posix

import ocirt
from ocirt import state
from ocirt.containers.failures import explain
from ocirt.errors import Error
from ocirt.kernel.process import close_on_exec_from
from ocirt.kernel.run import ChildGoneError, Run, StepError
from ocirt.plan import Host
from ocirt.plan.podinit import plan_podinit

PROGRAM = "/kernel/podinit"


def prepare(namespaces: dict[str, str], cgroups: dict[str, str], score: int = 0) -> Run:
    """Plan it: everything is loaded then. See `start`. Raises Error."""
    program = ocirt.__path__[0] + PROGRAM
    if not posix.access(program, posix.R_OK):
        hint = "an installation without a compiler lacks it; a wheel for this platform has it"
        raise Error("unsupported", "there is no program for a pod's init", subject=program, hint=hint)
    host = Host(None, posix.geteuid() == 0, state.in_user_namespace())
    return Run(plan_podinit(namespaces, cgroups, program, score, host))


def start(namespaces: dict[str, str], cgroups: dict[str, str], score: int = 0) -> tuple[int, int]:
    """Start it in a new PID namespace, and in `namespaces` (paths by type: "user", "ipc", "uts", "network"); (pid, pidfd).

    cgroups: directories that are there, by controller ("" for version 2), as in a container's record. score: for the OOM killer.
    The process is the caller's child and outlives it; the caller has to be single-threaded. SIGTERM ends it, and with it all
    processes of its namespace. What fails leaves nothing. Raises Error, OSError.
    """
    run = prepare(namespaces, cgroups, score)
    close_on_exec_from(3)
    try:
        run.parent()
        run.await_exec()
        pidfd = posix.pidfd_open(run.pid)
    except (StepError, ChildGoneError) as err:
        run.end_children()
        raise explain(err, run.plan, run.at) from None
    except BaseException:
        run.end_children()
        raise
    run.close()
    return run.pid, pidfd
