"""`start`: let the init of a created container go on to its program, and hear what became of it."""

from __future__ import annotations

import posix
import select
from errno import EINVAL, ENOENT, ENXIO, EPIPE, ESRCH

from ocirt import state
from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt.state import Record

_GONE = (EINVAL, ENOENT, ENXIO, EPIPE, ESRCH)  # what the barrier and the process say once init has ended


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
        release = Release(record["directory"], record["pid"], record.get("agent"), lambda: record)
        release.wait()
        release.finish()
        if record["hooks"].get("poststart"):
            poststart(record)
    finally:
        posix.close(lock)


class Release:
    """Init on its way to its program, which may take as long as the program's file lets it wait.

    agent: who gets the listener of init's filter, "" for nobody; load: the record, for what went wrong.
    `answer` or `pidfd` can be read once `finish` has something to say. Raises Error("state") if init has ended, Error, OSError.
    """

    __slots__ = ("_directory", "_load", "answer", "pidfd")

    def __init__(self, directory: str, pid: int, agent: str | None, load: Callable[[], Record]) -> None:
        self._directory = directory
        self._load = load
        self.answer = self.pidfd = way = -1
        try:
            self.answer = posix.open(directory + "/started", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
            self.pidfd = posix.pidfd_open(pid)
            if agent:
                from ocirt.kernel import unixsocket  # noqa: PLC0415  (only with an agent)
                from ocirt.kernel.steps.listener import SOCKET  # noqa: PLC0415

                way = unixsocket.connect(f"{directory}/{SOCKET}", unixsocket.SEQPACKET)
            barrier = posix.open(directory + "/start", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
            posix.write(barrier, b"0")
            posix.close(barrier)
            if way >= 0:
                _pass_on(way, load())
        except BaseException as err:
            self.close()
            if isinstance(err, OSError) and err.errno in _GONE:
                raise Error("state", "cannot start a container that has stopped") from None
            raise
        finally:
            if way >= 0:
                posix.close(way)

    def wait(self) -> None:
        """Wait until there is something to say."""
        poll = select.poll()
        poll.register(self.answer, select.POLLIN)
        poll.register(self.pidfd, select.POLLIN)
        poll.poll()

    def finish(self) -> None:
        """Say what became of init: nothing if its program runs. Raises Error. Never waits."""
        try:
            said = posix.read(self.answer, 8192)
        except BlockingIOError:
            said = b""
        finally:
            self.close()
        if said:
            from ocirt.containers.failures import from_words  # noqa: PLC0415  (only for a failure)
            from ocirt.kernel import messages  # noqa: PLC0415  (which loads the way into the kernel)

            record = self._load()
            args = (record.get("process") or {"args": [""]})["args"]
            raise from_words(messages.failure_of(said), record.get("late") or {}, args[0])
        if state.phase({"directory": self._directory}) != 1:
            raise Error("kernel", "the container's init ended before its program ran", hint="killed, or out of memory?")

    def close(self) -> None:
        """Be done with it."""
        for fd in (self.answer, self.pidfd):
            if fd >= 0:
                posix.close(fd)
        self.answer = self.pidfd = -1


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
