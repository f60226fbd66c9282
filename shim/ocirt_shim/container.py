"""The one container of a shim: made, started and deleted by the runtime's library in this process, which is its parent."""

from __future__ import annotations

import posix

from ocirt import jsonlite, spans, state
from ocirt.cgroups import control, oom
from ocirt.containers.delete import delete
from ocirt.containers.start import Release, start
from ocirt.errors import Error
from ocirt.kernel import messages
from ocirt_api.messages.shim import CREATED, PAUSED, RUNNING, STOPPED, CreateRequest, Overlay, StateResponse
from ocirt_shim import record as notes
from ocirt_shim import streams
from ocirt_shim.attached import Attached
from ocirt_shim.children import exit_code
from ocirt_shim.lines import LIMIT
from ocirt_shim.log import Log
from ocirt_shim.streams import Output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ocirt.containers.create import Creation
    from ocirt.containers.execute import Execution
    from ocirt_shim.loop import Loop
    from ocirt_shim.worker import Word

    Fail = Callable[[Exception], object]
    StandIn = Callable[[str], Any]  # of the container's directory, or "" for one more program
    Employ = Callable[[Callable[[], Word], Callable[[Word | Exception], object], list[int]], int]

_SIGKILL = 9
_OF_PIPES = ("stdout", "stderr")
# What a container of the CRI's looks like, for a rehearsal.
SAMPLE = CreateRequest(
    id="rehearsal",
    config=b"""{"ociVersion":"1.2.0","process":{"user":{"uid":0,"gid":0,"additionalGids":[0]},"args":["true"],"env":["PATH=/bin"],
"cwd":"/","capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]},
"rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":1024}],"noNewPrivileges":false,"oomScoreAdj":0},
"root":{"path":"rootfs","readonly":false},"mounts":[
{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","gid=5"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
{"destination":"/etc/hosts","type":"bind","source":"/etc/hosts","options":["rbind","rprivate"]},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]}],
"annotations":{"io.kubernetes.cri.container-type":"container"},"linux":{"namespaces":[{"type":"mount"},
{"type":"network","path":"/proc/self/ns/net"},{"type":"uts","path":"/proc/self/ns/uts"},{"type":"ipc","path":"/proc/self/ns/ipc"},
{"type":"pid"},{"type":"cgroup"}],"cgroupsPath":"/ocirt-rehearsal/container",
"resources":{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":1073741824},"cpu":{"shares":2}},
"maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"]}}""",
    root=Overlay(lowers=["/lower", "/empty"], upper="/upper", work="/work", volatile=True),
    cgroup_manager="cgroupfs",
)


class Later:
    """What a worker has to do, as it may take its time, and what is to follow here when it has done it."""

    __slots__ = ("then", "work")

    def __init__(self, work: Callable[[], Word], then: Callable[[], object]) -> None:
        self.work = work
        self.then = then


class Container:
    """A container whose init is this process's child. What may take its time returns a Later instead of doing it."""

    def __init__(self, loop: Loop, runtime: str, record: notes.Record, stand_in: StandIn | None = None) -> None:
        self.id = ""
        self.init = 0  # 0: there is none yet
        self.runtime = runtime
        self.created_at = self.started_at = self.exited_at = 0
        self.exit_code = 0
        self.oom_killed = False
        self._oom_before = 0  # how often the kernel had killed for memory when somebody else last killed init
        self.stdin = -1
        self._loop = loop
        self._record = record
        self._stand_in = stand_in
        self._log = Log("")
        self._outputs: list[Output] = []
        self._attached: list[Attached] = []
        self._stdin_once = self._has_terminal = False
        self.cgroup: dict[str, Any] = {"paths": {}}
        self._own_pids = True  # a pid namespace of its own, which ends with init
        self._hooked = False  # whether more is to be done at its start than to let init go on
        self._starting: Callable[[], object] | None = None  # looks what became of init
        # Does what may take its time, and then the rest, whatever came of it.
        self.aside: Callable[[Callable[[], object], Callable[[], object]], None] = at_once
        self.busy = False  # being made
        self.when_idle: list[Callable[[], object]] = []
        self.waiters: list[Callable[[], object]] = []

    # -- its life --

    def create(self, request: CreateRequest, employ: Employ, answer: Callable[[int], object], fail: Fail) -> None:
        """Make it, up to an init that waits for `start`, by a worker; `answer` gets its pid. What fails leaves nothing.

        Raises Error, OSError if it cannot be begun.
        """
        if self.id:
            raise Error("exists", "this shim has a container", subject=self.id)
        terminal = request.terminal
        limits = request.log_line_limit or LIMIT, request.log_size_limit, request.log_rate_limit
        self._log = Log(request.log_path, *limits)
        console = messages.socket_pair() if terminal else (-1, -1)
        inner = [console[1]] if terminal else self._make_pipes(stdin=request.stdin)
        self.id = request.id
        self._stdin_once, self._has_terminal = request.stdin_once, terminal

        def idle() -> None:
            self.busy = False
            waiting, self.when_idle = self.when_idle, []
            for one in waiting:
                one()

        def hear(word: Word | Exception) -> None:
            if terminal:
                self._take_console(console[0])
            if isinstance(word, Exception):

                def undone() -> None:
                    fail(word)
                    idle()

                self._undo(undone)
            else:
                self._made(word)
                answer(self.init)
                idle()

        try:
            employ(lambda: self.work(request, inner), hear, inner)
            self.busy = True
        except OSError:
            if terminal:
                posix.close(console[0])
            self._undo(_nothing)
            raise

    def work(self, request: CreateRequest, inner: Sequence[int]) -> Word:
        """In a worker: make it. inner: its streams, or where its terminal's master goes. Raises Error, OSError."""
        return self._make(request, _document(request), inner, inner[0] if request.terminal else -1)

    def rehearse(self) -> None:
        """In a worker that has nothing to do yet: touch what `work` will touch. Nothing is made."""
        request = CreateRequest.decode(SAMPLE.encode())
        document = jsonlite.loads(request.config, "config.json", any_bytes=True)
        creation = self._creation(request, document, terminal=False)
        creation.plan()
        jsonlite.dumps(creation.record)

    def _make(self, request: CreateRequest, document: dict[str, Any], stdio: Sequence[int], console: int) -> Word:
        """In the worker: the pid, and what else `_made` wants to know. console: where a terminal's master is sent, or -1."""
        began = spans.now()
        if self._stand_in is None:
            creation = self._creation(request, document, terminal=console >= 0)
        else:
            creation = self._stand_in(state.directory(self.runtime, request.id))
        run = creation.prepare()
        spans.add("worker", "plan", began)
        spans.follow(run)
        if console >= 0:
            run.on_console = lambda _, master: messages.send_descriptors(console, b"c", master)
        else:
            run.stdio = (stdio[0], stdio[1], stdio[2])
        made = creation.make()
        return {
            "pid": made["pid"],
            "cgroup": made["cgroup"],
            "own_pids": made["namespaces"].get("pid") == "",
            "hooked": bool(made["hooks"].get("poststart") or made.get("agent")),
        }

    def _made(self, word: Word) -> None:
        self.init, self.cgroup, self._own_pids = word["pid"], word["cgroup"], word["own_pids"]
        self._hooked = word.get("hooked", False)
        self.created_at = notes.now()
        self._record.save(status="created", init=self.init, created_at=self.created_at)

    def _undo(self, then: Callable[[], object]) -> None:
        """There is no container, or half of one whose maker was killed."""
        container, self.id = self.id, ""
        self._close_streams()
        self._log.close()
        self._take_back(container, then)

    def _take_back(self, container: str, then: Callable[[], object]) -> None:
        self.aside(lambda: delete(self.runtime, container, force=True), then)

    def _creation(self, request: CreateRequest, document: dict[str, Any], *, terminal: bool) -> Creation:
        """In the worker: what the zygote has loaded, and this process never looks at."""
        from ocirt.containers.create import Creation  # noqa: PLC0415
        from ocirt.plan import Request  # noqa: PLC0415

        asked = Request(
            request.id,
            request.bundle or state.directory(self.runtime, request.id),
            "",
            waits=True,
            pipes=not terminal,
            console="attached" if terminal else "",
            cgroups=request.cgroup_manager or "cgroupfs",
        )
        if request.root is not None:
            from ocirt.plan import overlay  # noqa: PLC0415  (preloaded)

            root = request.root
            asked.overlay = overlay.Overlay(
                root.lowers,
                root.upper,
                root.work,
                volatile=root.volatile,
                read_only=root.read_only,
                uids=[_mapping(each) for each in root.uids],
                gids=[_mapping(each) for each in root.gids],
            )
        return Creation(self.runtime, asked, document=document)

    def _make_pipes(self, *, stdin: bool) -> list[int]:
        if stdin:
            first, self.stdin = streams.pipe(outward=False)
        else:
            first = streams.null()
        ends = [first]
        try:
            for name in _OF_PIPES:
                inner, outer = streams.pipe(outward=True)
                ends.append(inner)
                self._outputs.append(Output(self._loop, outer, self._sink(name)))
        except OSError:
            for fd in ends:
                posix.close(fd)
            raise
        return ends

    def _take_console(self, way: int) -> None:
        """The terminal's master, if the worker has come that far."""
        self._outputs += [Output(self._loop, master, self._sink("stdout")) for master in streams.consoles(way)]

    def _sink(self, name: str) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            if not data:
                self._log.end(name)
                return
            self._log.write(name, data)
            if self._attached:
                for each in self._attached[:]:
                    each.write(name, data)
                self._throttle()

        return take

    # -- who is attached --

    @property
    def terminal(self) -> int:
        """The terminal's master, -1 without one."""
        return self._outputs[0].fd if self._has_terminal and self._outputs else -1

    def attach(self, ways: dict[str, int], word: int, *, stdin: bool) -> None:
        """From now on somebody gets what the container writes, and may have its standard input; see `Attached`."""
        input_ended = self._end_input_once if stdin else _nothing
        one = Attached(self._loop, ways, word, room=self._throttle, input_ended=input_ended, gone=self._attached_gone)
        self._attached.append(one)

    def _throttle(self) -> None:
        """Let the container wait for the slowest of them, as nothing may be lost."""
        full = any(each.is_full for each in self._attached)
        for output in self._outputs:
            output.hold(back=full)

    def _attached_gone(self, one: Attached) -> None:
        self._attached.remove(one)
        self._throttle()

    def _end_input_once(self) -> None:
        if self._stdin_once:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self.stdin >= 0:
            posix.close(self.stdin)
            self.stdin = -1

    def start(self, employ: Employ, answer: Callable[[], object], fail: Fail) -> None:
        """Let init go on to its program; `answer` is called when that runs, `fail` if it does not, and init has ended or is to.

        Nothing waits here: a program on a server that is gone may take for ever, and a hook its time. Raises Error, OSError.
        """
        self._need()
        if self.exited_at:
            raise Error("state", "cannot start a container that has stopped", subject=self.id)
        if self.started_at or self._starting is not None:
            raise Error("state", "cannot start an already running container", subject=self.id)
        if control.frozen(self.cgroup):
            raise Error("state", "cannot start a container in the paused state", subject=self.id)

        def work() -> Word:
            start(self.runtime, self.id)
            return {}

        def hear(word: Word | Exception) -> None:
            self._starting = None
            if isinstance(word, Exception):
                fail(word)
                return
            self._set_started()
            answer()

        if self._hooked:
            self._starting = _nothing
            employ(work, hear, [])
            return
        directory = state.directory(self.runtime, self.id)
        release = Release(directory, self.init, "", lambda: state.load(self.runtime, self.id))

        def look() -> None:
            for fd in (release.answer, release.pidfd):
                self._loop.remove(fd)
            try:
                release.finish()
            except (Error, OSError) as err:
                hear(err)
            else:
                hear({})

        self._starting = look
        for fd in (release.answer, release.pidfd):
            self._loop.add(fd, look)

    def _set_started(self) -> None:
        if not self.started_at:
            self.started_at = notes.now()
            self._record.save(status="running", started_at=self.started_at)

    def about_to_reap(self) -> None:
        """Init has ended, and is a zombie yet: its cgroup has not been touched, so the counters tell the truth."""
        self.oom_killed = oom.kills(self.cgroup) > self._oom_before

    def ended(self, status: int) -> None:
        """Init was reaped, with a status as waitpid(2) gives it."""
        if self._starting is not None:
            self._starting()  # first it has started, if it has
            if self._hooked and state.phase({"directory": state.directory(self.runtime, self.id)}) == 1:
                self._set_started()  # its hooks still run
        self.oom_killed = self.oom_killed and posix.waitstatus_to_exitcode(status) == -_SIGKILL
        self.exit_code = exit_code(status)
        self.exited_at = notes.now()
        self._record.save(status="stopped", exited_at=self.exited_at, exit_code=self.exit_code, oom_killed=self.oom_killed)
        if self._own_pids:
            self._tell_end()
        else:
            self.aside(lambda: control.kill(self.cgroup, _SIGKILL), self._tell_end)

    def _tell_end(self) -> None:
        """All that was in it has ended, but for what waits for a disk or a server."""
        for output in self._outputs:
            output.finish()
        for each in self._attached[:]:
            each.end()
        waiters, self.waiters = self.waiters, []
        for tell in waiters:
            tell()

    def delete(self, *, waits: bool) -> Later | None:
        """Remove it, whatever it does. Raises Error, OSError for what is left. waits: whether this may take its time."""
        if not self.init:
            self._end_streams()
            return None
        self._oom_before = oom.kills(self.cgroup)
        if not waits:

            def work() -> Word:
                delete(self.runtime, self.id, force=True)
                return {}

            return Later(work, self._end_streams)
        delete(self.runtime, self.id, force=True)
        self._end_streams()
        return None

    def _end_streams(self) -> None:
        for output in self._outputs:
            output.drain()
        self._close_streams()
        self._log.close()

    def _close_streams(self) -> None:
        for each in self._attached[:]:
            each.close()
        for output in self._outputs:
            output.close()
        self._outputs.clear()
        self._close_stdin()

    # -- while it is there --

    def state(self) -> StateResponse:
        """What it is now."""
        status = 0
        if self.exited_at:
            status = STOPPED
        elif self.init:
            status = PAUSED if control.frozen(self.cgroup) else RUNNING if self.started_at else CREATED
        return StateResponse(
            id=self.id,
            pid=self.init,
            status=status,
            created_at=self.created_at,
            started_at=self.started_at,
            exited_at=self.exited_at,
            exit_code=self.exit_code,
            oom_killed=self.oom_killed,
        )

    def kills_all(self, signal: int, *, everybody: bool) -> bool:
        """Whether a signal is for all processes of its cgroup, and not for init alone, with which a pid namespace ends."""
        if signal == _SIGKILL:
            return not self._own_pids or (everybody and bool(self.exited_at))
        return everybody

    def kill(self, signal: int, *, everybody: bool) -> Later | None:
        """Send a signal. Raises Error("state") if init has ended (without `everybody`), Error."""
        self.about_to_kill(signal)
        if self.kills_all(signal, everybody=everybody):
            control.kill(self.cgroup, signal)
            return None
        if self.exited_at:
            raise Error("state", "the container has stopped", subject=self.id)
        posix.kill(self.init, signal)  # our child, and not reaped: the number is still its own
        if signal == _SIGKILL and control.frozen(self.cgroup):
            control.thaw(self.cgroup)  # the v1 freezer holds back even SIGKILL
        return None

    def about_to_kill(self, signal: int) -> None:
        """Raise Error if there is nothing yet to be killed."""
        self._need()
        if signal == _SIGKILL:
            self._oom_before = oom.kills(self.cgroup)

    def pause(self) -> Later | None:
        """Freeze it. Raises Error."""
        self._need()
        control.freeze(self.cgroup)
        return None

    def resume(self) -> Later | None:
        """Thaw it. Raises Error."""
        self._need()
        control.thaw(self.cgroup)
        return None

    def update(self, resources: bytes) -> Later | None:
        """Change limits, given as config.json's `linux.resources`. Raises Error."""
        from ocirt.containers.update import update  # noqa: PLC0415  (seldom)
        from ocirt.spec.load import read_resources  # noqa: PLC0415

        self._need()
        update(self.runtime, self.id, read_resources(resources), {})
        return None

    # -- one more program in it; in a fork --

    def run_more(self, process: dict[str, Any], stdio: tuple[int, int, int], group: list[str], *, ours: bool) -> int:
        """Run a program; its pid. It becomes this process's child if it is `ours`, else the shim's. group: of cgroups below.

        Raises Error, OSError.
        """
        del ours
        began = spans.now()
        execution = self._execution(process, group, terminal=False)
        spans.add("worker", "plan", began)
        spans.follow(execution.run)
        execution.run.stdio = stdio
        return execution.make()

    def run_more_in_terminal(self, process: dict[str, Any]) -> tuple[int, int]:
        """The pid of a program with a terminal, which becomes this process's child, and the terminal's master."""
        execution = self._execution(process, [], terminal=True)
        masters: list[int] = []
        execution.run.on_console = lambda _, master: masters.append(posix.dup(master))
        return execution.make(), masters[0]

    def _execution(self, process: dict[str, Any], group: list[str], *, terminal: bool) -> Execution:
        from ocirt_shim.execs import load, prepare  # noqa: PLC0415  (preloaded; it imports this)

        if self._stand_in is not None:
            execution: Execution = self._stand_in("")
            return execution
        return prepare(self.runtime, load(self.runtime, self.id), process, group, terminal=terminal)

    # -- and otherwise --

    def processes(self) -> list[int]:
        """The pids of all its processes."""
        return control.processes(self.cgroup)

    def reopen_log(self) -> None:
        """Go on in another file of the log's name. Raises OSError."""
        self._log.reopen()

    def _need(self) -> None:
        if not self.init:
            raise Error("state", "this shim has no container yet")

    def need_running(self) -> None:
        """Raise Error if its program does not run."""
        self._need()
        if self.exited_at or not self.started_at:
            raise Error(
                "state", "the container has stopped" if self.exited_at else "the container was not started", subject=self.id
            )


def _document(request: CreateRequest) -> dict[str, Any]:
    """In the worker: what a document leaves behind would be the shim's memory for as long as it lives. Raises Error."""
    document = jsonlite.loads(request.config, "config.json", any_bytes=True)
    if not isinstance(document, dict):
        raise Error("invalid", "an object is expected", subject="config.json")
    if bool((document.get("process") or {}).get("terminal")) != request.terminal:
        raise Error("invalid", "config.json and the request differ", subject="/process/terminal")
    return document


def _mapping(given: Any) -> dict[str, int]:
    return {"containerID": given.container_id, "hostID": given.host_id, "size": given.size}


def _nothing() -> None:
    pass


def at_once(work: Callable[[], object], then: Callable[[], object]) -> None:
    """Do it, and then the rest, whatever came of it."""
    try:
        work()
    except (Error, OSError):
        pass  # what went wrong before says more, and the removal looks again
    then()
