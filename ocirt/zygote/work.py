"""What a fork of the zygote does: one request, by the code of the command's verbs, then it ends.

A fork that runs a container is its parent, moves its streams, and reports its end. What `run` and `exec` start ends with the
conversation; what `create` makes lives on.
"""

from __future__ import annotations

import _socket
import posix
import select

from ocirt import jsonlite, state
from ocirt.cgroups import oom
from ocirt.cli import kill, pause, resume
from ocirt.cli.run import launch, remove
from ocirt.containers.attach import Attached
from ocirt.containers.create import Creation
from ocirt.containers.delete import delete, kill_and_wait
from ocirt.containers.execute import Execution, load_running
from ocirt.containers.start import start
from ocirt.errors import Error
from ocirt.kernel.ffi import syscall
from ocirt.kernel.process import close_all_but
from ocirt.kernel.run import Run
from ocirt.plan import Request
from ocirt.spec.load import refuse as refuse_findings
from ocirt.spec.process import check_process
from ocirt.zygote import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ocirt.zygote.wire import Message

_STREAMS = 3
_INT = 4  # bytes
_CHUNK = 1 << 16
_SIGKILL = 9
_PR_SET_NAME = 15
# A container that was made from a document alone has its bundle in its state directory: config.json, and if it has no root file
# system of the caller's, an empty one, which goes with that directory.
_CONFIG = "config.json"
ROOT = "rootfs"


class Talk:
    """The fork's end of a conversation; `owner` is a pidfd of the caller's process."""

    def __init__(self, fd: int, owner: int) -> None:
        self.fd = fd
        self.owner = owner
        self.streams: list[int] = []
        self._socket = _socket.socket(fileno=fd)
        self._decoder = wire.Decoder()

    def receive(self) -> Message | None:
        """Wait for the next message; None when the caller is gone. Descriptors that come along go to `streams`."""
        while (message := self._decoder.next()) is None:
            if not self.take():
                return None
        return message

    def take(self) -> bool:
        """Take what is there; False when the caller is gone."""
        try:
            data, control, _, _ = self._socket.recvmsg(_CHUNK, _socket.CMSG_SPACE(_STREAMS * _INT), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        for level, kind, words in control:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self.streams += [int.from_bytes(words[at : at + _INT], "little") for at in range(0, len(words), _INT)]
        self._decoder.feed(data)
        return bool(data)

    def next(self) -> Message | None:
        """A message that was taken already."""
        return self._decoder.next()

    def send(self, message: Message) -> None:
        """Send a message. A caller who is gone hears nothing."""
        try:
            self._socket.sendall(wire.encode(message))
        except (BrokenPipeError, ConnectionResetError):
            pass


def work(fd: int, owner: int) -> None:
    """Serve the request that comes over `fd`; `owner` is a pidfd of the caller's process."""
    syscall("prctl", _PR_SET_NAME, b"ocirt-request")
    talk = Talk(fd, owner)
    try:
        talk.send({"at": posix.getpid()})
        message = talk.receive()
        if message is None:
            return
        verb = _VERBS.get(message["do"])
        if verb is None:
            raise Error("internal", f"no request: {message['do']}", subject="zygote")
        verb(talk, message)
    except Error as err:
        talk.send(wire.from_error(err))
    except OSError as err:
        from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

        talk.send(wire.from_error(Error("kernel", describe(err))))
    except Exception as err:  # noqa: BLE001  (nobody else would hear of it)
        talk.send(wire.from_error(_bug(err)))


def refuse(fd: int, err: OSError) -> None:
    """Answer in place of a fork that could not be made."""
    Talk(fd, -1).send(wire.from_error(Error("kernel", "cannot fork", cause=err.strerror or "")))


def _bug(err: BaseException) -> Error:
    trace, where = err.__traceback__, ""
    while trace is not None:
        where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return Error("internal", f"{type(err).__name__}: {err}", cause=where, hint="this is a bug in ocirt")


# -- containers ----------------------------------------------------------------------------------------------------------------


def _creation(talk: Talk, message: Message, *, waits: bool) -> Creation:
    """A prepared container, whose streams are those that came with the request."""
    _take_streams(talk)
    request = Request(message["id"], message["bundle"], "", waits=waits, pipes=not waits, cgroups=message["cgroups"])
    creation = Creation(message["root"], request, rootless=message["rootless"], document=message["config"])
    if creation.spec["process"].get("terminal"):
        raise Error("unsupported", "a terminal", subject="/process/terminal", hint="the command gives one; here set it to false")
    creation.prepare()
    try:
        _write_bundle(creation, message)
    except BaseException:
        creation.undo()
        raise
    return creation


def _write_bundle(creation: Creation, message: Message) -> None:
    directory = creation.request.directory
    if creation.request.bundle != directory:
        return
    # On one line: the encoder that indents takes a millisecond.
    state.write_file(f"{directory}/{_CONFIG}", jsonlite.dumps(message["config"]).encode())
    if creation.spec["root"]["path"] == f"{directory}/{ROOT}":
        posix.mkdir(f"{directory}/{ROOT}", 0o755)


def _run(talk: Talk, message: Message) -> None:
    """`run`: as `create` in its members; the container ends with the caller, and nothing of it is left."""
    creation = _creation(talk, message, waits=False)
    attached = Attached(terminal=False, subreaper=True)
    record = launch(creation, attached)
    try:
        status = _attend(talk, attached, creation.run, record["pid"], lambda: kill_and_wait(record))
    except BaseException:  # such as a full disk behind a stream
        kill_and_wait(record)
        remove(record, creation.request.directory)
        raise
    count = oom.kills(record["cgroup"])
    said = remove(record, creation.request.directory)
    talk.send({"status": status, "oom": count, "warnings": said})


def _create(talk: Talk, message: Message) -> None:
    """`create`: id, root, bundle, config (a document, or null), rootless, cgroups. The fork stays to tell of init's end."""
    creation = _creation(talk, message, waits=True)
    record = creation.make()
    # `start` waits for init to close its end of the barrier: no other may be open.
    close_all_but((talk.fd, talk.owner), _STREAMS)
    _drop_streams(range(_STREAMS))
    talk.send({"pid": record["pid"]})
    pidfd = posix.pidfd_open(record["pid"])
    poll = select.poll()
    for fd in (talk.fd, talk.owner, pidfd):
        poll.register(fd, select.POLLIN)
    if any(fd != pidfd for fd, _ in poll.poll()):
        return  # nobody wants to know any more, and the container lives on
    count = oom.kills(record["cgroup"])
    talk.send({"status": posix.waitpid(record["pid"], 0)[1], "oom": count})


def _exec(talk: Talk, message: Message) -> None:
    """`exec`: id, root, and `process` as in process.json."""
    _take_streams(talk)
    record = load_running(message["root"], message["id"])
    process = message["process"]
    findings: list[Any] = []
    check_process(process, "", findings)
    refuse_findings(findings, "process")
    request = Request(
        message["id"],
        record["bundle"],
        record["directory"],
        state_root=message["root"],
        pipes=True,
        keyring=record.get("keyring", True),
    )
    execution = Execution(record, process, request, [])
    attached = Attached(terminal=False, subreaper=False)
    attached.streams(execution.run)
    pid = execution.make()
    attached.created()
    try:
        status = _attend(talk, attached, execution.run, pid, lambda: posix.kill(pid, _SIGKILL))
    except BaseException:
        posix.kill(pid, _SIGKILL)
        raise
    talk.send({"status": status, "oom": 0})


def _attend(talk: Talk, attached: Attached, run: Run | None, pid: int, end: Callable[[], object]) -> int:
    """Wait for a process of ours, pass on the caller's signals, and `end` it when the caller is gone."""
    assert run is not None
    talk.send({"pid": pid})
    # The process has its own; a reader of the other end is to see when it closes them.
    _drop_streams(fd for fd in range(_STREAMS) if run.stdio is None or run.stdio[fd] < 0)

    def listen() -> bool:
        there = talk.take()
        while there and (message := talk.next()) is not None:
            if message["kill"] == _SIGKILL:
                end()
            else:
                posix.kill(pid, message["kill"])
        if not there:
            end()
        return not there

    def orphaned() -> bool:
        end()
        return True

    attached.watch(talk.fd, listen)
    attached.watch(talk.owner, orphaned)
    return attached.wait_status(pid)


def _take_streams(talk: Talk) -> None:
    """Put the descriptors that came along in the place of the standard streams."""
    if len(talk.streams) != _STREAMS:
        raise Error("kernel", f"{len(talk.streams)} streams came with the request", hint="too many open files?")
    for fd, stream in enumerate(talk.streams):
        posix.dup2(stream, fd, inheritable=True)
    for stream in talk.streams:
        posix.close(stream)


def _drop_streams(fds: Iterable[int]) -> None:
    null = posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
    for fd in fds:
        posix.dup2(null, fd, inheritable=True)
    posix.close(null)


# -- what starts no process ----------------------------------------------------------------------------------------------------


_SIMPLE: dict[str, Callable[[Message], Any]] = {
    "delete": lambda message: delete(message["root"], message["id"], force=message["force"]),
    "kill": lambda message: kill.kill(state.load(message["root"], message["id"]), message["signal"]),
    "pause": lambda message: pause.pause(message["root"], message["id"]),
    "resume": lambda message: resume.resume(message["root"], message["id"]),
    "start": lambda message: start(message["root"], message["id"]),
}


def _simple(talk: Talk, message: Message) -> None:
    talk.send({"done": _SIMPLE[message["do"]](message)})


_VERBS: dict[str, Callable[[Talk, Message], None]] = {
    "create": _create,
    "exec": _exec,
    "run": _run,
    **dict.fromkeys(_SIMPLE, _simple),
}
