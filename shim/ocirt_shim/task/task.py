"""One container of the shim, as the Task service knows it: its root, its streams, its processes, and the events about them."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.errors import Error
from ocirt_api.messages import shim as own
from ocirt_api.messages.events import TaskExit, TaskOOM, TaskStart
from ocirt_api.messages.google import Timestamp
from ocirt_api.messages.types import CREATED, PAUSED, RUNNING, STOPPED, UNKNOWN
from ocirt_shim import record as notes
from ocirt_shim.container import Container
from ocirt_shim.task import mounts
from ocirt_shim.task.added import Added
from ocirt_shim.task.stdio import Named, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt.containers.create import Creation
    from ocirt_api.message import Message
    from ocirt_api.messages.options import Options
    from ocirt_api.messages.shim import CreateRequest
    from ocirt_api.messages.task import CreateTaskRequest
    from ocirt_shim.task.host import Host
    from ocirt_shim.worker import Word

    Fail = Callable[[Exception], object]

DIRECTORY = "ocirt"  # in the bundle: what the shim writes down of the container
ROOTS = "/run/ocirt/containerd"  # state roots of containers, by namespace
_LARGEST = 64 << 20  # bytes of a config.json
_STATUS = {own.CREATED: CREATED, own.RUNNING: RUNNING, own.PAUSED: PAUSED, own.STOPPED: STOPPED}


class Task(Container):
    """A container whose init is this process's child, and the processes that were added to it."""

    def __init__(self, host: Host, request: CreateTaskRequest, options: Options, runtime: str) -> None:
        """`runtime`: the state root. Raises OSError."""
        self.host = host
        self.bundle = request.bundle
        self.request = request
        self.options = options
        self.added: dict[str, Added] = {}  # by exec_id
        self.running: list[Added] = []
        self.streams = Streams(
            host.loop,
            Named(request.stdin, request.stdout, request.stderr, terminal=request.terminal),
            (options.io_uid, options.io_gid),
        )
        self._place = f"{request.bundle}/{DIRECTORY}"
        self._memory: Any = None  # tells of a lack of memory
        self._begun = False  # with the making
        self._unsaid = False  # init's end, of which the others that run have to be told first
        try:
            posix.mkdir(self._place, 0o700)
        except FileExistsError:
            pass  # of an attempt before
        record = notes.Record(self._place, {"id": request.id, "runtime": runtime})
        record.save(status="empty")
        super().__init__(host.loop, runtime, record)

    def publish(self, event: Message) -> None:
        """Tell containerd."""
        self.host.publisher.publish(event)

    # -- its life --

    def make(self, answer: Callable[[int], object], fail: Fail) -> None:
        """Make it up to an init that waits, or if it comes from a checkpoint nothing yet; `answer` gets the pid.

        Raises Error, OSError if it cannot be begun.
        """
        if self.request.checkpoint:
            self.id = self.request.id
            answer(0)
        else:
            self._begin(answer, fail)

    def _begin(self, answer: Callable[[int], object], fail: Fail) -> None:
        config = paths.read_bytes(f"{self.bundle}/config.json", _LARGEST)
        request = own.CreateRequest(
            id=self.request.id,
            bundle=self.bundle,
            config=config,
            stdin=bool(self.request.stdin),
            terminal=self.request.terminal,
            cgroup_manager="systemd" if self.options.systemd_cgroup else "cgroupfs",
        )
        kept = self.streams.open()
        self._begun = True
        self._inner = kept

        def employ(work: Callable[[], Word], hear: Callable[[Word | Exception], object], inner: list[int]) -> int:
            # Of a terminal's streams the worker has some that `create` knows nothing of.
            return self.host.children.employ(work, hear, [*inner, *[fd for fd in kept if fd not in inner]])

        def made(pid: int) -> None:
            self._watch_memory()
            answer(pid)
            self.host.children.expect(pid, self._init_ended)

        try:
            super().create(request, employ, made, fail)
        except (Error, OSError):
            self._undo(lambda: None)
            raise

    def _creation(self, request: CreateRequest, document: dict[str, Any], *, terminal: bool) -> Creation:
        """In the worker, before all else: what may take its time."""
        from ocirt.plan import Request  # noqa: PLC0415  (preloaded)

        mounts.mount_all(self.request.rootfs, f"{self.bundle}/rootfs")
        self.streams.begin_logger(request.id, self.host.namespace)
        asked = Request(
            request.id,
            self.bundle,
            "",
            waits=not self.request.checkpoint,
            pipes=not terminal,
            console="attached" if terminal else "",
            cgroups=request.cgroup_manager,
            keyring=not self.options.no_new_keyring,
            pivot=not self.options.no_pivot_root,
        )
        if self.request.checkpoint:
            from ocirt_shim.task.images import restoration  # noqa: PLC0415  (seldom)

            return restoration(self.runtime, asked, self.request.checkpoint, self.options)
        from ocirt.containers.create import Creation  # noqa: PLC0415

        return Creation(self.runtime, asked, document=document)

    def _make_pipes(self, *, stdin: bool) -> list[int]:
        del stdin
        return self._inner

    def _take_console(self, way: int) -> None:
        self.streams.take_console(way)

    def _undo(self, then: Callable[[], object]) -> None:
        self._begun = False
        super()._undo(lambda: None)
        self.streams.close()
        self._forget()
        then()

    def _close_streams(self) -> None:
        """`finish` of the streams does, with patience."""

    def _forget(self) -> None:
        """Leave nothing in the bundle."""
        try:
            mounts.unmount_all(f"{self.bundle}/rootfs")
        except OSError as err:
            self.host.journal.say("warning", f"the root of {self.request.id} stays mounted: {err.strerror}")
        remove_notes(self._place)

    def begin(self, answer: Callable[[int], object], fail: Fail) -> None:
        """Let init go on to its program, or restore it. Raises Error, OSError."""

        def started(pid: int) -> None:
            self.publish(TaskStart(container_id=self.id, pid=pid))
            answer(pid)

        if self._begun and not self.init:
            raise Error("state", "the task is being made", subject=self.id)
        if self.init or not self.request.checkpoint:
            self.start(self.host.children.employ, lambda: started(self.init), fail)
            return

        def restored(pid: int) -> None:
            self.started_at = notes.now()
            self._record.save(status="running", started_at=self.started_at)
            started(pid)

        self.id = ""  # which `create` gives
        self._begin(restored, fail)

    def _init_ended(self, status: int) -> None:
        self.about_to_reap()
        self.ended(status)
        self._ignore_memory()
        self.streams.settle()
        self._unsaid = True
        self._say_end()

    def one_less(self, process: Added) -> None:
        """An added process has ended."""
        self.running.remove(process)
        self._say_end()

    def _say_end(self) -> None:
        """containerd hears of init last."""
        if not self._unsaid or self.running:
            return
        self._begun = False  # with the making
        self._unsaid = False
        self.publish(
            TaskExit(
                container_id=self.id,
                id=self.id,
                pid=self.init,
                exit_status=self.exit_code,
                exited_at=Timestamp.of(self.exited_at),
            )
        )

    def remove(self) -> None:
        """Delete it, with the processes that were added. Raises Error("state") if it runs, Error, OSError for what is left."""
        if self.started_at and not self.exited_at:
            raise Error("state", "cannot delete a task that runs", subject=self.id)
        if self.id and not self.init and (not self.request.checkpoint or self._begun):
            raise Error("state", "cannot delete a task that is being made", subject=self.id)
        self._ignore_memory()
        self.delete(waits=True)

    def leave(self) -> None:
        """Once `remove` was done, init was reaped and its streams have ended: take away what was made for it."""
        for process in self.added.values():
            process.streams.close()
        self._forget()

    # -- a lack of memory --

    def _watch_memory(self) -> None:
        from ocirt.containers.events import Memory  # noqa: PLC0415  (preloaded)

        try:
            memory = Memory(self.cgroup)
        except OSError:
            return  # a kernel that does not tell; the container runs in any case
        if memory.fd >= 0:
            self._memory = memory
            self.host.loop.add(memory.fd, self._ran_out, memory.events)

    def _ran_out(self) -> None:
        if not self._tell_of(self._memory):
            self._ignore_memory()

    def _tell_of(self, memory: Any) -> bool:
        """False: the cgroup is gone."""
        try:
            if memory.ran_out(last=bool(self.exited_at)):
                self.publish(TaskOOM(container_id=self.id))
        except OSError:
            return False
        return True

    def _ignore_memory(self) -> None:
        """What was told until now is passed on."""
        if self._memory is not None:
            memory, self._memory = self._memory, None
            self._tell_of(memory)
            self.host.loop.remove(memory.fd)
            memory.close()

    # -- while it is there --

    @property
    def status(self) -> int:
        """As processes have it in the Task service."""
        if self.id and not self.init:
            return CREATED  # of a checkpoint
        return _STATUS.get(self.state().status, UNKNOWN)

    def kill(self, signal: int, *, everybody: bool) -> None:
        """Send a signal. Raises Error("not-found") if init has ended: so containerd knows that there is nobody to kill."""
        if self.exited_at and not everybody:
            raise Error("not-found", "the process has ended", subject=self.id)
        super().kill(signal, everybody=everybody)

    def process(self, exec_id: str) -> Added:
        """An added process. Raises Error("not-found")."""
        found = self.added.get(exec_id)
        if found is None:
            raise Error("not-found", "there is no such process", subject=exec_id)
        return found


def remove_notes(place: str) -> None:
    """Remove what a shim has written down of a container."""
    try:
        for name in posix.listdir(place):
            posix.unlink(f"{place}/{name}")
        posix.rmdir(place)
    except FileNotFoundError:
        pass
