"""Points at which parent and child meet."""

from __future__ import annotations

import posix

from ocirt.kernel import messages
from ocirt.kernel.run import ChildGoneError, Run, StepError


def open(run: Run) -> None:  # noqa: A001  (the plan's word)
    """Make the socket pair."""
    run.sync, run.peer = messages.socket_pair()


def tell(run: Run, point: str) -> None:
    """Say that a point is reached."""
    try:
        messages.send(run.sync, b"t", point.encode())
    except BrokenPipeError:
        raise ChildGoneError(_status(run)) from None


def expect(run: Run, point: str) -> None:
    """Wait until the other side has reached a point. Raises StepError for what failed there, ChildGoneError."""
    message = messages.receive(run.sync)
    if message == b"t" + point.encode():
        return
    raise explained(run, message)


def explained(run: Run, message: bytes) -> Exception:
    """What a message says that was not the one expected."""
    if message[:1] == b"f":
        return StepError(*messages.failure_of(message))
    if not message:
        return ChildGoneError(_status(run))
    return StepError(run.at, 0, "sync", f"out of step: {message!r}")


def receive_pid(run: Run, status: int) -> None:
    """What `process.clone_sibling` of the stage has sent before it ended with this status."""
    posix.set_blocking(run.sync, False)
    try:
        message = messages.receive(run.sync)
    except BlockingIOError:
        raise ChildGoneError(status) from None
    finally:
        posix.set_blocking(run.sync, True)
    if message[:1] != b"p":
        raise explained(run, message) if message else ChildGoneError(status)
    run.pid = int(message[1:])


def _status(run: Run) -> int:
    """How the child ended; the parent's own end looks like 0 to a child, which has nothing to wait for."""
    try:
        return posix.waitpid(run.pid or run.stage_pid, 0)[1] if run.pid or run.stage_pid else -1
    except ChildProcessError:
        return -1


def leave_parent(run: Run, point: str) -> None:
    """Go on alone, once the parent says so; a parent that has died says nothing, and we end."""
    if messages.receive(run.sync) != b"t" + point.encode():
        posix._exit(1)
    if run.start_fd >= 0:
        posix.close(run.sync)  # `create` waits for nothing more
        run.sync = -1
        run.report = run.fds["barrier/started"]
