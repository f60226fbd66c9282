"""A shim: the parent of one container, from the zygote's fork to the container's removal. Its process may have others (`shims`).

It is found by its directory, in which its socket and its record are. It ends when its container was deleted, or at the end of who
had it made if there never was a container; nothing else ends it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import _socket
import posix

import ocirt
from ocirt import spans
from ocirt.errors import Error
from ocirt_api.messages import shim as messages
from ocirt_shim.clients import Clients
from ocirt_shim.container import Container, Later, at_once
from ocirt_shim.execs import prefix
from ocirt_shim.ready import Ready
from ocirt_shim.record import Record
from ocirt_shim.server import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ocirt_api.message import Message
    from ocirt_shim.container import StandIn
    from ocirt_shim.server import Call, Method
    from ocirt_shim.shims import Shims
    from ocirt_shim.worker import Word

SOCKET = "socket"
_A_WHILE = 60_000_000_000  # nanoseconds after which a shim looks whether it was given up
_KEPT = ("id", "runtime", "instance", "command")  # in its record
_SHARED = ("runtime", "instance")  # with others of its process


def _nothing() -> None:
    pass


class Shim:
    """`asked` is what it was made with: id, state (its directory), runtime (the state root), instance.

    Without an id it was made ahead: `Create` says for which container, and where; nobody finds it before.
    command: the words of another OCI runtime, if that is to make the container.
    stand_in: of a rehearsal, makes what takes the place of programs.
    """

    def __init__(self, asked: dict[str, Any], shims: Shims, stand_in: StandIn | None = None) -> None:
        """Raises OSError."""
        spans.to(asked.get(spans.KEY, ""))
        began = spans.now()
        self._shims = shims
        self.directory = ""
        self._record = Record("", {key: asked[key] for key in _KEPT if key in asked})
        self._abandoned = False  # whether its maker is gone
        self._ending = self._looking = False
        self._deletions: list[Call] = []  # who waits for the container's removal
        self.container: Container = Container(shims.loop, asked["runtime"], self._record, stand_in)
        if words := asked.get("command"):
            from ocirt_shim.foreign import Foreign  # noqa: PLC0415  (preloaded; it is not what most are)

            self.container = Foreign(shims.loop, asked["runtime"], self._record, words, asked["state"])
        self.container.aside = self._aside
        self.clients: Clients = Clients(self.container)
        self.listener = Listener(shims.loop, "", self._find)
        self.listener.on_close = self._look_later
        self._ready: Ready | None = None
        if "id" in asked:
            self._settle(asked["id"], asked["state"])
        spans.add("shim", "become a shim", began)

    def wait(self) -> None:
        """Without a container yet: have a worker wait for it as well."""
        if not self.directory:
            try:
                self._ready = Ready(self._work, self.container.rehearse, self._shims.common)
            except OSError:
                pass  # another try when there is work; its failure is told

    def _work(self, data: bytes, fds: Sequence[int]) -> Word:
        return self.container.work(messages.CreateRequest.decode(data), fds)

    def _settle(self, container: str, directory: str) -> None:
        """It is this container's from now on. Raises OSError."""
        posix.mkdir(directory, 0o700)
        self.directory = directory
        self._record.settle(directory)
        self._record.save(id=container, status="empty")
        self.listener.listen(f"{directory}/{SOCKET}")

    def adopt(self, fd: int) -> None:
        """Serve the connection that it was made by."""
        self.listener.adopt(_socket.socket(fileno=fd), self._abandon)

    def _abandon(self) -> None:
        """Its maker is gone."""
        self._abandoned = True
        if not self.container.id:
            self._end()
        else:
            self._look_later()

    def _look_later(self) -> None:
        """Whoever gives a shim up takes its directory away; nobody could reach it then."""
        if not self._looking and not self._ending:
            self._looking = True
            self._shims.loop.after(_A_WHILE, self._look)

    def _look(self) -> None:
        self._looking = False
        if self.directory and not posix.access(self.directory, posix.F_OK):
            if self.container.init and not self.container.exited_at:
                self._look_later()
            else:
                self._end()

    def _end(self) -> None:
        """Leave nothing of the shim."""
        if self._ending:
            return  # the maker's connection is among those that are closed below
        self._ending = True
        if self.directory:
            try:
                for name in posix.listdir(self.directory):
                    posix.unlink(f"{self.directory}/{name}")
                posix.rmdir(self.directory)
            except OSError:
                pass  # somebody else takes it away
        if self._ready is not None:
            self._ready.dismiss()
        self.listener.close()  # last: who waits for the connection's end finds nothing any more
        self._shims.ended(self)

    # -- methods --

    def _find(self, service: str, method: str) -> tuple[type[Message], Method] | None:
        found = _METHODS.get(method) if service == messages.SERVICE else None
        if found is None:
            return None
        return messages.METHODS[method][0], lambda request, call: found(self, request, call)

    def _create(self, request: Any, call: Call) -> None:
        def fail(err: Exception) -> None:
            call.fail(err)
            if self._abandoned:
                self._end()

        def employ(work: Callable[[], Word], hear: Callable[[Word | Exception], object], kept: list[int]) -> int:
            ready, self._ready = self._ready, None
            if ready is not None:
                try:
                    return self._shims.children.pass_on(ready, call.payload(), hear, kept)
                except OSError:
                    pass  # it was killed
            return self._shims.children.employ(work, hear, kept)

        def answer(pid: int) -> None:
            call.answer(messages.CreateResponse(pid=pid))
            status = self._shims.children.unclaimed(pid)
            if status is not None:  # somebody has killed it meanwhile
                self.container.ended(status)

        if not self.directory:
            self._settle(request.id, request.state)
        self.container.create(request, employ, answer, fail)

    def _start(self, _: Any, call: Call) -> None:
        def started() -> None:
            self._shims.reap()  # it may have ended at once
            call.answer(self.container.state())

        self.container.start(self._shims.children.employ, started, call.fail)

    def _aside(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Do what may take its time, and then the rest, whatever came of it: in a worker if others would have to wait."""

        def attempt() -> Word:
            work()
            return {}

        if self._shims.is_shared:
            try:
                self._shims.children.employ(attempt, lambda _: then(), [])
            except OSError:
                pass
            else:
                return
        at_once(work, then)

    def _apart(self, what: Callable[[], Later | None]) -> Later | None:
        """The same for what is answered with its failure."""
        if not self._shims.is_shared:
            return what()

        def work() -> Word:
            what()
            return {}

        return Later(work, _nothing)

    def _when_done(
        self, later: Later | None, call: Call, done: Callable[[], Message], then: Callable[[], object] = _nothing
    ) -> None:
        """Answer with `done()` once it is, now or when a worker has done it; then call `then`."""
        if later is None:
            call.answer(done())
            then()
            return

        def hear(word: Word | Exception) -> None:
            if isinstance(word, Exception):
                call.fail(word)
            else:
                later.then()
                call.answer(done())
                then()

        self._shims.children.employ(later.work, hear, [])

    def _wait(self, request: Any, call: Call) -> Message | None:
        del request
        if self.container.exited_at:
            return self.container.state()
        self.container.waiters.append(lambda: call.answer(self.container.state()))
        return None

    def _kill(self, request: Any, call: Call) -> None:
        container, signal = self.container, request.signal
        if signal == _signal.SIGKILL and container.kills_all(signal, everybody=request.all):
            container.about_to_kill(signal)
            self._shims.children.kill(container.cgroup, lambda: call.answer(messages.Nothing()), call.fail)
            return
        if request.all:
            self._when_done(self._apart(lambda: container.kill(signal, everybody=True)), call, messages.Nothing)
        else:
            self._when_done(container.kill(signal, everybody=False), call, messages.Nothing)

    def _exec(self, request: Any, call: Call) -> None:
        self._shims.executions.begin(self.container, f"{self.directory}/{prefix()}", request, call.answer, call.fail)

    def _delete(self, request: Any, call: Call) -> None:
        if self.container.busy:  # its maker is gone, and somebody else wants nothing of it
            self.container.when_idle.append(lambda: self._delete(request, call))
            return
        self._deletions.append(call)
        if len(self._deletions) > 1:
            return  # a worker is at it
        try:
            later = self.container.delete(waits=not self._shims.is_shared)
            if later is not None:
                self._shims.children.employ(later.work, lambda word: self._deleted(word, later), [])
                return
        except Exception as err:  # noqa: BLE001  (whatever it is, the client is told)
            self._deleted(err, None)
        else:
            self._deleted({}, None)

    def _deleted(self, word: Word | Exception, later: Later | None) -> None:
        calls, self._deletions = self._deletions, []
        if isinstance(word, Exception):
            for call in calls:
                call.fail(word)
            return
        self._shims.reap()
        if later is not None:
            later.then()
        for call in calls:
            call.answer(self.container.state())
        self._end()

    def share(self, fd: int) -> None:
        """Have another shim in this process, whose maker has the other end of a connection. Raises Error, OSError."""
        shim: Shim | None = None
        try:
            if "command" in self._record.values:
                raise Error("unsupported", "the shim of another runtime's container has no others beside it")
            shim = self._shims.add({key: self._record.values[key] for key in _SHARED})
            shim.wait()
            shim.adopt(fd)
        except BaseException:
            posix.close(fd)
            if shim is not None:
                shim._end()
            raise


def _doing(what: Callable[[Shim, Any, Call], Later | None]) -> Callable[[Shim, Any, Call], None]:
    """A method whose answer says that it was done."""

    def method(shim: Shim, request: Any, call: Call) -> None:
        shim._when_done(what(shim, request, call), call, messages.Nothing)

    return method


# In no shim's own memory: a function of each would be there for as long as it lives.
_METHODS: dict[str, Callable[[Shim, Any, Call], Message | None]] = {
    "Version": lambda *_: messages.VersionResponse(protocol=messages.PROTOCOL, version=ocirt.__version__),
    "Create": Shim._create,
    "Start": Shim._start,
    "State": lambda shim, *_: shim.container.state(),
    "Wait": Shim._wait,
    "Pids": lambda shim, *_: messages.PidsResponse(pids=shim.container.processes()),
    "Kill": Shim._kill,
    "Pause": _doing(lambda shim, *_: shim._apart(shim.container.pause)),
    "Resume": _doing(lambda shim, *_: shim.container.resume()),
    "Update": _doing(lambda shim, request, _: shim._apart(lambda: shim.container.update(request.resources))),
    "ReopenLog": _doing(lambda shim, *_: shim.container.reopen_log()),
    "Exec": Shim._exec,
    # These two give away the descriptor that came with them, and answer when somebody has it.
    "StreamExec": _doing(lambda shim, request, call: shim.clients.execute(request, call.descriptor())),
    "Attach": _doing(lambda shim, request, call: shim.clients.attach(request, call.descriptor())),
    "Share": _doing(lambda shim, _, call: shim.share(call.descriptor())),
    "Delete": Shim._delete,
}
