"""`start`: let the init of a created container go on to its program, and hear what became of it."""

from __future__ import annotations

import posix
import select
from errno import EINVAL, ENOENT, ENXIO, EPIPE, ESRCH

from ocirt import state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt.state import Record


def start(root: str, container_id: str) -> None:
    """Start the container. Returns when its program runs and the poststart hooks have.

    Raises Error("not-found"), Error("state"), and what init says of a startContainer hook or of execve(2).
    """
    lock = state.lock(state.directory(root, container_id))
    try:
        record = state.load(root, container_id)
        now = state.status(record)
        if now == "stopped":
            raise Error("state", "cannot start a container that has stopped")
        if now == "running":
            raise Error("state", "cannot start an already running container")
        if now != "created":
            raise Error("state", f"cannot start a container in the {now} state")
        _release(record)
        if record["hooks"].get("poststart"):
            poststart(record)
    finally:
        posix.close(lock)


def _release(record: Record) -> None:
    """Write to the barrier and wait until init's end of the answer closes, on exec, or something is said there."""
    directory = record["directory"]
    pidfd = way = -1
    answer = posix.open(directory + "/started", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        pidfd = posix.pidfd_open(record["pid"])
        if record.get("agent"):
            from ocirt.kernel import unixsocket  # noqa: PLC0415  (only with an agent)
            from ocirt.kernel.steps.listener import SOCKET  # noqa: PLC0415

            way = unixsocket.connect(f"{directory}/{SOCKET}", unixsocket.SEQPACKET)
        barrier = posix.open(directory + "/start", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        posix.write(barrier, b"0")
        posix.close(barrier)
        if way >= 0:
            _pass_on(way, record)
        poll = select.poll()
        poll.register(answer, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        poll.poll()
        try:
            said = posix.read(answer, 8192)
        except BlockingIOError:
            said = b""
    except OSError as err:
        if err.errno not in (EINVAL, ENOENT, ENXIO, EPIPE, ESRCH):
            raise
        raise Error("state", "cannot start a container that has stopped") from None
    finally:
        for fd in (answer, pidfd, way):
            if fd >= 0:
                posix.close(fd)
    if said:
        from ocirt.containers.failures import from_words  # noqa: PLC0415  (only for a failure)
        from ocirt.kernel import messages  # noqa: PLC0415  (which loads the way into the kernel)

        raise from_words(
            messages.failure_of(said), record.get("late") or {}, (record.get("process") or {"args": [""]})["args"][0]
        )
    if state.phase(record) != 1:
        raise Error("kernel", "the container's init ended before its program ran", hint="killed, or out of memory?")


def _pass_on(way: int, record: Record) -> None:
    """Give the listener of init's filter to its agent, or end the container. Raises Error."""
    from ocirt.containers import listener  # noqa: PLC0415

    try:
        listener.take(way, record["agent"], record["pid"], record, "creating")
    except BaseException:
        from ocirt.containers.delete import kill_and_wait  # noqa: PLC0415

        kill_and_wait(record)
        raise


def poststart(record: Record) -> None:
    """Run the poststart hooks; one that fails ends the container (runtime-spec 1.3, "Poststart"). Raises Error."""
    from ocirt.containers.destroy import hook_state  # noqa: PLC0415  (only if there are any)
    from ocirt.kernel.steps import hooks  # noqa: PLC0415

    text = hook_state(record)("running", record["pid"])
    for index, hook in enumerate(record["hooks"].get("poststart", ())):
        try:
            hooks.execute(hook, text, f"error running poststart hook #{index}")
        except OSError as err:
            from ocirt.containers.delete import kill_and_wait  # noqa: PLC0415

            kill_and_wait(record)
            raise Error("kernel", str(err.filename), subject=f"/hooks/poststart/{index}") from None
