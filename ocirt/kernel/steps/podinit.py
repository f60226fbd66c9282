"""Executing the init of a pod (launcher/podinit.c). Loaded only for that."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)

from ocirt.kernel import constants as k
from ocirt.kernel import process
from ocirt.kernel.ffi import syscall
from ocirt.kernel.run import Run
from ocirt.kernel.steps import waiter

_TAKEN = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD)


def load(run: Run, path: str) -> None:
    """Have the program in a sealed file that nobody may read: without capabilities its process cannot be looked into either."""
    run.fds["program"] = waiter.sealed(path, "ocirt-pod", 0o111)


def execute(run: Run) -> None:
    """Execute it, without a descriptor or an environment, and with the signals blocked that it takes."""
    process.reset_signals()
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _TAKEN)
    process.close_on_exec_from(0)
    arguments = [b"ocirt-pod"]
    program = run.fds["program"]
    syscall("execveat", program, b"", process.pointer_array(arguments), process.pointer_array([]), k.AT_EMPTY_PATH)
