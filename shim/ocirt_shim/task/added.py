"""A process that was added to a container (`Exec` of the Task service, then `Start`)."""

from __future__ import annotations

import posix

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt.kernel import messages
from ocirt_api.messages.events import TaskExecStarted, TaskExit
from ocirt_api.messages.google import Timestamp
from ocirt_api.messages.types import CREATED, RUNNING, STOPPED
from ocirt_shim import record as notes
from ocirt_shim.children import exit_code
from ocirt_shim.execs import check, load, prepare
from ocirt_shim.task.stdio import Named, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_api.messages.task import ExecProcessRequest
    from ocirt_shim.task.task import Task
    from ocirt_shim.worker import Word

_SIGKILL = 9


class Added:
    """One process, from `Exec` to `Delete`."""

    def __init__(self, task: Task, request: ExecProcessRequest, owner: tuple[int, int]) -> None:
        """Raises Error("invalid") for a process that is none, OSError."""
        self.exec_id = request.exec_id
        self.pid = self.exit_code = self.exited_at = 0
        self.waiters: list[Callable[[], object]] = []
        self._task = task
        self._begun = False
        if request.spec is None:
            raise Error("invalid", "a process is expected", subject="spec")
        process = jsonlite.loads(request.spec.value, "spec", any_bytes=True)
        if not isinstance(process, dict):
            raise Error("invalid", "an object is expected", subject="spec")
        self._process: dict[str, Any] = process | {"terminal": request.terminal}
        check(self._process, "spec")
        named = Named(request.stdin, request.stdout, request.stderr, terminal=request.terminal)
        self.streams = Streams(task.host.loop, named, owner)

    @property
    def status(self) -> int:
        """As processes have it in the Task service."""
        return STOPPED if self.exited_at else RUNNING if self.pid else CREATED

    def start(self, answer: Callable[[int], object], fail: Callable[[Exception], object]) -> None:
        """Run it, by a worker; `answer` gets its pid. Raises Error, OSError if it cannot be begun."""
        if self._begun:
            raise Error("state", "the process was started before", subject=self.exec_id)
        if self._task.exited_at:
            raise Error("state", "the container has stopped", subject=self._task.id)
        self._begun = True
        terminal = self.streams.named.terminal
        kept: list[int] = []
        try:
            kept = self.streams.open()
            way = messages.socket_pair() if terminal else (-1, -1)
        except (Error, OSError):
            for fd in kept:
                posix.close(fd)
            self._fail()
            raise

        def work() -> Word:
            self.streams.begin_logger(self._task.id, self._task.host.namespace)
            record = load(self._task.runtime, self._task.id)
            execution = prepare(self._task.runtime, record, self._process, [], terminal=terminal)
            if terminal:
                execution.run.on_console = lambda _, master: messages.send_descriptors(way[1], b"c", master)
            else:
                execution.run.stdio = kept[0], kept[1], kept[2]
            return {"pid": execution.make()}

        def hear(word: Word | Exception) -> None:
            if terminal:
                self.streams.take_console(way[0])
            if isinstance(word, Exception):
                self._fail()
                fail(word)
                return
            self.pid = word["pid"]
            self._task.running.append(self)
            self._task.publish(TaskExecStarted(container_id=self._task.id, exec_id=self.exec_id, pid=self.pid))
            answer(self.pid)
            self._task.host.children.expect(self.pid, self._ended)

        try:
            self._task.host.children.employ(work, hear, [*kept, *([way[1]] if terminal else [])])
        except OSError:
            if terminal:
                posix.close(way[0])
            self._fail()
            raise

    def _fail(self) -> None:
        """It never ran. It can be deleted, and whoever waits for it hears of an end."""
        self.streams.close()
        self._end(1)

    def _end(self, code: int) -> None:
        self.exit_code = code
        self.exited_at = notes.now()
        waiters, self.waiters = self.waiters, []
        for tell in waiters:
            tell()

    def _ended(self, status: int) -> None:
        """It was reaped."""
        self.streams.settle()
        self._end(exit_code(status))
        self._task.publish(
            TaskExit(
                container_id=self._task.id,
                id=self.exec_id,
                pid=self.pid,
                exit_status=self.exit_code,
                exited_at=Timestamp.of(self.exited_at),
            )
        )
        self._task.one_less(self)

    def kill(self, signal: int) -> None:
        """Send a signal. Raises Error("not-found") if it has ended, Error("state") if it was not started."""
        if self.exited_at:
            raise Error("not-found", "the process has ended", subject=self.exec_id)
        if not self.pid:
            raise Error("state", "the process was not started", subject=self.exec_id)
        posix.kill(self.pid, signal)  # our child, and not reaped: the number is still its own

    def delete(self) -> None:
        """Forget it. Raises Error("state") for one that runs."""
        if self.pid and not self.exited_at:
            raise Error("state", "the process runs", subject=self.exec_id)
        if self._begun and not self.exited_at:
            raise Error("state", "the process is being started", subject=self.exec_id)
        if not self.exited_at:
            self._end(0)
