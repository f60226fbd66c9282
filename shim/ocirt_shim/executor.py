"""A process that runs programs in containers to their end, one at a time, for `ExecSync`.

A shim would fork for that, as it plans nothing itself, and the fork would then copy each page that a plan writes to: a third of
the time that a short program takes. This process is there before, has pages of its own, and walks the plans itself; programs are
its children. A daemon has a few of them for all of its containers. Each ends with its connection, once its program has ended.
"""

from __future__ import annotations

import _socket
import gc
import posix

from ocirt import spans
from ocirt.kernel.steps import namespace
from ocirt_api.messages import shim as messages
from ocirt_shim.children import Children, watch
from ocirt_shim.execs import Executions, load, prefix, prepare
from ocirt_shim.loop import Loop
from ocirt_shim.server import Listener
from ocirt_shim.worker import heard, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_api.message import Message
    from ocirt_shim.server import Call, Method
    from ocirt_shim.worker import Word

_SWEEP = 16  # programs until the collector looks at what they have left, which holds itself


class Executor:
    """runtime: the state root of the containers. Raises OSError."""

    def __init__(self, runtime: str) -> None:
        self.loop = Loop()
        self._runtime = runtime
        self._children = Children(self.loop)
        self._executions = Executions(self.loop, self._children, _here)
        self._listener = Listener(self.loop, "", self._find)
        self._running = self._ran = 0
        self._alone = False
        watch(self.loop, self._children.reap)
        gc.freeze()  # what the zygote has made stays as it is, and in pages that are shared

    def serve(self, fd: int) -> None:
        """Serve the connection that it was made by, to its end."""
        self._listener.adopt(_socket.socket(fileno=fd), self._leave)
        self.loop.run()

    def _leave(self) -> None:
        """Nobody asks any more."""
        self._alone = True
        if not self._running:
            self.loop.stop()

    def _find(self, service: str, method: str) -> tuple[type[Message], Method] | None:
        if (service, method) != (messages.SERVICE, "Exec"):
            return None
        return messages.ExecRequest, self._exec

    def _exec(self, request: Any, call: Call) -> None:
        def answer(message: Message) -> None:
            call.answer(message)
            self._ended()

        def fail(err: Exception) -> None:
            call.fail(err)
            self._ended()

        self._running += 1
        try:
            place = Place(self._runtime, request.id)
            beginning = f"{request.state}/{prefix(posix.getpid())}"
            self._executions.begin(place, beginning, request, answer, fail)
        except BaseException:
            self._ended()
            raise

    def _ended(self) -> None:
        self._running -= 1
        self._ran += 1
        if self._alone and not self._running:
            self.loop.stop()
        elif not self._ran % _SWEEP:
            self.loop.after(0, gc.collect)


class Place:
    """A container of this state root, as `Executions` wants it. Raises Error if it does not run."""

    def __init__(self, runtime: str, container: str) -> None:
        self._runtime = runtime
        self._record = load(runtime, container)
        self.cgroup = self._record["cgroup"]

    def run_more(self, process: dict[str, Any], stdio: tuple[int, int, int], group: list[str], *, ours: bool) -> int:
        """See `Container`; it becomes this process's child in any case."""
        del ours
        began = spans.now()
        execution = prepare(self._runtime, self._record, process, group, terminal=False)
        spans.add("worker", "plan", began)
        run = execution.run
        spans.follow(run)
        run.stdio = stdio
        try:
            return execution.make()
        finally:
            run.close()
            if "pid" in self._record["namespaces"]:
                namespace.return_pid(run)


def _here(work: Callable[[], Word], hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
    """In this process: nobody else waits for it."""
    try:
        word = said(work)
    finally:
        for fd in kept:
            posix.close(fd)
    hear(heard(word))
    return 0
