"""The methods of containerd's Task service, versions 2 and 3, which are alike but for the service's name.

What containerd reads from a failure is its code: NOT_FOUND, ALREADY_EXISTS, FAILED_PRECONDITION, INVALID_ARGUMENT, UNIMPLEMENTED.
"""

from __future__ import annotations

import posix

from ocirt.errors import Error
from ocirt_api.messages import events, options
from ocirt_api.messages import task as api
from ocirt_api.messages.google import Any as Wrapped
from ocirt_api.messages.google import Empty, Timestamp
from ocirt_api.messages.types import ProcessInfo
from ocirt_shim.task import bootstrap
from ocirt_shim.task.added import Added
from ocirt_shim.task.task import ROOTS, Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_api.message import Message
    from ocirt_shim.server import Call, Method
    from ocirt_shim.task.host import Host
    from ocirt_shim.task.journal import Journal

    _Method = Callable[[Any, "Answer"], Message | None]

# github.com/containerd/errdefs
_WORDS = {
    "exists": "already exists",
    "invalid": "invalid argument",
    "not-found": "not found",
    "state": "failed precondition",
    "unavailable": "unavailable",
    "unsupported": "not implemented",
}
# Nanoseconds that who reads may take for the last of a process's output, as other shims have it.
_OF_INIT, _OF_ADDED = 10_000_000_000, 2_000_000_000


class Answer:
    """A call that is to be answered once; what goes wrong is written into the log, too."""

    __slots__ = ("_call", "_journal", "_what")

    def __init__(self, call: Call, journal: Journal, what: str) -> None:
        self._call = call
        self._journal = journal
        self._what = what

    def answer(self, message: Message) -> None:
        """The answer."""
        self._call.answer(message)

    def fail(self, err: Exception) -> None:
        """A failure. Its text ends with containerd's words for its code, as that of other shims does: people look for them."""
        self._journal.say("debug" if isinstance(err, Error) else "error", f"{self._what}: {err}")
        if isinstance(err, Error) and (word := _WORDS.get(err.code)):
            err = Error(err.code, f"{err}: {word}")
        self._call.fail(err)


class Service:
    """All containers of the shim. `reap` takes the children that have ended; `end` is called when the shim may go."""

    def __init__(self, host: Host, reap: Callable[[], object], end: Callable[[], object]) -> None:
        self.tasks: dict[str, Task] = {}
        self._host = host
        self._reap = reap
        self._end = end

    def methods(self) -> dict[tuple[str, str], tuple[type[Message], Method]]:
        """For a Listener."""
        own: dict[str, _Method] = {
            "Checkpoint": self._checkpoint,
            "CloseIO": self._close_io,
            "Connect": self._connect,
            "Create": self._create,
            "Delete": self._delete,
            "Exec": self._exec,
            "Kill": self._kill,
            "Pause": self._pause,
            "Pids": self._pids,
            "ResizePty": self._resize,
            "Resume": self._resume,
            "Shutdown": self._shutdown,
            "Start": self._start,
            "State": self._state,
            "Stats": self._stats,
            "Update": self._update,
            "Wait": self._wait,
        }
        return {
            (service, name): (api.METHODS[name][0], self._logged(name, method))
            for service in api.SERVICES
            for name, method in own.items()
        }

    def _logged(self, name: str, method: _Method) -> Method:
        def begin(request: Any, call: Call) -> Message | None:
            exec_id = getattr(request, "exec_id", "")
            what = f"{name} {request.id}{exec_id and ' ' + exec_id}"
            self._host.journal.say("debug", what)
            answer = Answer(call, self._host.journal, what)
            try:
                return method(request, answer)
            except Exception as err:  # noqa: BLE001  (whatever it is, the client is told)
                answer.fail(err)
                return None

        return begin

    def _task(self, container: str) -> Task:
        found = self.tasks.get(container)
        if found is None:
            raise Error("not-found", "there is no such container here", subject=container)
        return found

    def _process(self, request: Any) -> Task | Added:
        """What a request is about: the container's first process, or an added one."""
        task = self._task(request.id)
        return task.process(request.exec_id) if request.exec_id else task

    # -- the life of a process --

    def _create(self, request: Any, call: Answer) -> None:
        if request.id in self.tasks:
            raise Error("exists", "the shim has a container of this name", subject=request.id)
        given = bootstrap.options_of(request.options)
        if given.binary_name:
            self._host.journal.say("warning", f"BinaryName={given.binary_name} means nothing: this shim is the runtime itself")
        runtime = f"{given.root or ROOTS}/{self._host.namespace}"
        task = self.tasks[request.id] = Task(self._host, request, given, runtime)

        def made(pid: int) -> None:
            io = events.TaskIO(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=request.terminal)
            task.publish(
                events.TaskCreate(
                    container_id=request.id,
                    bundle=request.bundle,
                    rootfs=request.rootfs,
                    io=io,
                    checkpoint=request.checkpoint,
                    pid=pid,
                )
            )
            call.answer(api.CreateTaskResponse(pid=pid))

        def failed(err: Exception) -> None:
            self.tasks.pop(request.id, None)
            call.fail(err)

        try:
            task.make(made, failed)
        except (Error, OSError):
            self.tasks.pop(request.id, None)
            raise

    def _start(self, request: Any, call: Answer) -> None:
        def started(pid: int) -> None:
            call.answer(api.StartResponse(pid=pid))

        process = self._process(request)
        if isinstance(process, Added):
            process.start(started, call.fail)
            return
        try:
            process.begin(started, call.fail)
        finally:
            self._reap()  # it may have ended at once

    def _delete(self, request: Any, call: Answer) -> None:
        task = self._task(request.id)
        if request.exec_id:
            process = task.process(request.exec_id)
            process.delete()

            def forget() -> None:
                task.added.pop(request.exec_id, None)
                call.answer(_deleted(process.pid, process))

            process.streams.finish(_OF_ADDED, forget)
            return
        task.remove()
        self._reap()

        def leave() -> None:
            task.leave()
            if self.tasks.pop(request.id, None) is not None:
                moment = Timestamp.of(task.exited_at)
                task.publish(events.TaskDelete(container_id=task.id, pid=task.init, exit_status=task.exit_code, exited_at=moment))
            call.answer(_deleted(task.init, task))

        task.streams.finish(_OF_INIT, leave)

    def _exec(self, request: Any, call: Answer) -> Message:
        del call
        task = self._task(request.id)
        if not request.exec_id:
            raise Error("invalid", "a name is expected", subject="exec_id")
        if request.exec_id in task.added:
            raise Error("exists", "there is a process of this name", subject=request.exec_id)
        task.added[request.exec_id] = Added(task, request, (task.options.io_uid, task.options.io_gid))
        task.publish(events.TaskExecAdded(container_id=task.id, exec_id=request.exec_id))
        return Empty()

    def _wait(self, request: Any, call: Answer) -> Message | None:
        process = self._process(request)

        def ended() -> Message:
            return api.WaitResponse(exit_status=process.exit_code, exited_at=Timestamp.of(process.exited_at))

        if process.exited_at:
            return ended()
        process.waiters.append(lambda: call.answer(ended()))
        return None

    def _state(self, request: Any, call: Answer) -> Message:
        del call
        task = self._task(request.id)
        process = self._process(request)
        named = process.streams.named
        return api.StateResponse(
            id=request.exec_id or request.id,
            bundle=task.bundle,
            pid=process.pid if isinstance(process, Added) else task.init,
            status=process.status,
            stdin=named.stdin,
            stdout=named.stdout,
            stderr=named.stderr,
            terminal=named.terminal,
            exit_status=process.exit_code,
            exited_at=Timestamp.of(process.exited_at),
            exec_id=request.exec_id,
        )

    # -- while it runs --

    def _kill(self, request: Any, call: Answer) -> Message:
        del call
        process = self._process(request)
        if isinstance(process, Added):
            process.kill(request.signal)
        else:
            process.kill(request.signal, everybody=request.all)
        return Empty()

    def _pause(self, request: Any, call: Answer) -> Message:
        del call
        task = self._task(request.id)
        if task.exited_at or not task.started_at:
            raise Error("state", "the container does not run", subject=task.id)
        task.pause()
        task.publish(events.TaskPaused(container_id=task.id))
        return Empty()

    def _resume(self, request: Any, call: Answer) -> Message:
        del call
        task = self._task(request.id)
        if task.exited_at:
            raise Error("state", "the container has stopped", subject=task.id)
        task.resume()
        task.publish(events.TaskResumed(container_id=task.id))
        return Empty()

    def _pids(self, request: Any, call: Answer) -> Message:
        del call
        task = self._task(request.id)
        names = {process.pid: process.exec_id for process in task.running}
        found = []
        for pid in task.processes():
            info = Wrapped.of(options.ProcessDetails(exec_id=names[pid])) if pid in names else None
            found.append(ProcessInfo(pid=pid, info=info))
        return api.PidsResponse(processes=found)

    def _resize(self, request: Any, call: Answer) -> Message:
        del call
        self._process(request).streams.resize(request.width, request.height)
        return Empty()

    def _close_io(self, request: Any, call: Answer) -> Message:
        del call
        process = self._process(request)
        if request.stdin:
            process.streams.close_input()
        return Empty()

    def _update(self, request: Any, call: Answer) -> Message:
        del call
        if request.resources is None:
            raise Error("invalid", "resources are expected", subject="resources")
        self._task(request.id).update(request.resources.value)
        return Empty()

    def _stats(self, request: Any, call: Answer) -> Message:
        del call
        from ocirt_shim.task.metrics import metrics  # noqa: PLC0415  (preloaded)

        return api.StatsResponse(stats=metrics(self._task(request.id).cgroup))

    def _checkpoint(self, request: Any, call: Answer) -> None:
        from ocirt_shim.task import images  # noqa: PLC0415  (seldom)

        task = self._task(request.id)
        if task.exited_at or not task.started_at:
            raise Error("state", "the container does not run", subject=task.id)
        given = images.flags(request.path, images.options_of(request.options), task.options.criu_work_path)

        def hear(word: Any) -> None:
            if isinstance(word, Exception):
                call.fail(word)
                return
            for text in word["said"]:
                self._host.journal.say("warning", text)
            task.publish(events.TaskCheckpointed(container_id=task.id, checkpoint=given["image-path"]))
            call.answer(Empty())

        self._host.children.employ(lambda: {"said": images.write(task.runtime, task.id, given)}, hear, [])

    # -- the shim itself --

    def _connect(self, request: Any, call: Answer) -> Message:
        del call
        task = self.tasks.get(request.id)
        return api.ConnectResponse(shim_pid=posix.getpid(), task_pid=task.init if task is not None else 0)

    def _shutdown(self, request: Any, call: Answer) -> None:
        call.answer(Empty())
        if not self.tasks or request.now:
            self._end()


def _deleted(pid: int, process: Task | Added) -> Message:
    return api.DeleteResponse(pid=pid, exit_status=process.exit_code, exited_at=Timestamp.of(process.exited_at))
