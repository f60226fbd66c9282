"""The life of a shim, before there is any: what the zygote runs when it has loaded everything.

Python writes to what it runs. After a few calls a function's byte code is rewritten for the types that came (PEP 659), each
attribute that was found goes into a cache of the interpreter's, and what that had in its place is forgotten, wherever it lies. A
page that a fork writes to is its own from then on: a quarter of a shim's memory was this. Done here, before any fork, it is in
pages that all shims share.

So this is a shim as they are, in this process, with a client that speaks to its socket; but its container's programs are forks
that write a line. Its files are in a file system of its own, which is mounted nowhere and ends with its descriptor.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import _socket
import posix

from ocirt.kernel import constants as k
from ocirt.kernel import mount
from ocirt.kernel.process import prctl
from ocirt.kernel.steps import barrier
from ocirt.zygote import wire
from ocirt.zygote.work import Talk
from ocirt_api.messages import shim as messages
from ocirt_api.ttrpc import Client
from ocirt_shim.container import SAMPLE
from ocirt_shim.shims import Shims

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_api.message import Message

_LIVES = 3
_EXECS = 3  # in each: byte code is rewritten after eight calls
_NAME = "rehearsal"
_LINE = b"a line\n"
_DESCRIPTORS = 1 << 20  # the most that there can be
_CHUNK = 1 << 16
_PROCESS = b'{"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}'


def rehearse() -> None:
    """Live a few times. Nothing is left of it; where mounts cannot be made, nothing is done."""
    try:
        place = mount.new_mount("tmpfs", "ocirt", (("mode", "700"),), 0)
    except OSError:
        return
    prctl(k.PR_SET_CHILD_SUBREAPER, 1)
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGCHLD})
    try:
        for number in range(_LIVES):
            _live(place, f"/proc/self/fd/{place}/{number}")
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        posix.close(place)


def _live(root: int, place: str) -> None:
    posix.mkdir(place)
    posix.mkdir(f"{place}/runtime")
    mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    asked = {"do": "shim", "runtime": f"{place}/runtime", "instance": "none"}  # made ahead, as most are
    mine.sendall(wire.encode(asked))
    talk = Talk(theirs.detach(), -1)
    received = talk.receive()
    assert received is not None
    shims = Shims((root,))
    shim = shims.add(received, _Program)
    talk.send({"at": posix.getpid()})
    mine.recv(_CHUNK)
    shim.wait()
    client = _Client(shims, mine, place)
    shim.adopt(posix.dup(talk.fd))
    shims.serve()
    shims.close()
    client.close()


class _Client:
    """Makes its calls one after the other; only `Wait` is answered later, when the container has ended."""

    def __init__(self, shims: Shims, sock: _socket.socket, place: str) -> None:
        self._client = Client()
        self._socket = sock
        nothing = messages.StateRequest()
        create = messages.CreateRequest.decode(SAMPLE.encode())
        create.id, create.state, create.log_path = _NAME, f"{place}/shim", f"{place}/log"
        execute = messages.ExecRequest(process=_PROCESS, timeout=10**10)
        self._calls: list[tuple[str, Message]] = [
            ("Version", messages.VersionRequest()),
            ("Create", create),
            ("Wait", nothing),
            ("State", nothing),
            ("Start", messages.StartRequest()),
            *[("Exec", execute)] * _EXECS,
            ("Pids", nothing),
            ("State", nothing),
            ("ReopenLog", nothing),
            ("Kill", messages.KillRequest(signal=_signal.SIGKILL)),
            ("Delete", messages.DeleteRequest()),
        ]
        self._calls.reverse()
        self._open: set[int] = set()
        self._waiting = 0
        sock.setblocking(False)
        shims.loop.add(sock.fileno(), self._heard)
        self._call()

    def _call(self) -> None:
        method, request = self._calls.pop()
        stream, data = self._client.request(messages.SERVICE, method, request.encode())
        self._socket.send(data)
        self._open.add(stream)
        if method == "Wait":
            self._waiting = stream
            self._call()

    def _heard(self) -> None:
        for event in self._client.receive(self._socket.recv(_CHUNK)):
            self._open.remove(event.stream)
        left = len(self._calls)
        if left and (not self._open or (left > 1 and self._open == {self._waiting})):
            self._call()

    def close(self) -> None:
        """The connection's end."""
        self._socket.close()


class _Run:
    """Of a run, what a worker and the barrier have to do with."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self.start_fd = self.phase_fd = -1
        self.stdio: tuple[int, int, int] | None = None


class _Program:
    """A program on its way, in a worker."""

    def __init__(self, directory: str) -> None:
        self.run: Any = _Run()
        self._directory = directory  # of a container whose init it is

    def prepare(self) -> Any:
        """As `Creation`."""
        posix.mkdir(self._directory)
        barrier.make(self.run, self._directory)
        return self.run

    def make(self) -> Any:
        """As `Creation` and `Execution`."""
        pid = posix.fork()
        if not pid:
            try:
                self._main()
            finally:
                posix._exit(0)
        if not self._directory:
            return pid
        return {"pid": pid, "cgroup": {"paths": {}}, "namespaces": {"pid": ""}, "hooks": {}}

    def _main(self) -> None:
        run = self.run
        low = 0
        for fd in sorted({run.stdio[1], run.phase_fd, *run.fds.values()} - {-1}):
            posix.closerange(low, fd)  # the worker's word ends when nobody has its pipe
            low = fd + 1
        posix.closerange(low, _DESCRIPTORS)
        if self._directory:
            posix.read(run.start_fd, 1)
            posix.pwrite(run.phase_fd, b"\1\0\0\0", 0)
            for fd in run.fds.values():
                posix.close(fd)
        posix.write(run.stdio[1], _LINE)
        while self._directory:
            _signal.pause()
