"""The network helper's loop: a request comes in, a worker takes it, its answer goes out.

Requests and answers are messages of `ocirt.zygote.wire` with a number `n`; `do` names the job. A worker is a fork that does one
job at a time, so one that hangs (a plugin of somebody else's) keeps nobody waiting but who asked for it: others get others.
It does more than one, as the first costs a fork several times what the next does, which finds its memory its own; but none after
one that went wrong.
"""

from __future__ import annotations

import _socket
import codecs
import gc
import os
import posix
import select
import signal
import time
from collections.abc import Callable
from typing import Any

from ocirt import spans
from ocirt.cli.log import describe
from ocirt.errors import Error
from ocirt.zygote import wire
from ocirt_cni.errors import Error as CniError
from ocirt_cri.network import sandbox
from ocirt_cri.network.keeper import Keeper

_CHUNK = 1 << 16
_RUN_BY_JOBS = (
    "ipam.boot",
    "ipam.choose",
    "ipam.delegate",
    "ipam.freed",
    "ipam.host_local",
    "netlink.addrs",
    "netlink.bridges",
    "netlink.conntrack",
    "nft.changes",
    "nft.forward",
    "nft.kept",
    "nft.localnet",
    "nft.owners",
    "nft.rules",
    "nft.sets",
    "nft.state",
    "plugins.bridge",
    "plugins.bridge_attach",
    "plugins.bridge_device",
    "plugins.interfaces",
    "plugins.loopback",
    "plugins.pairs",
    "plugins.portmap",
    "plugins.steps",
    "sysctl",
)  # of ocirt_cni: the network that is built in, and those like it
_BUG = "this is a bug in ocirt"
_SLOW = "a plugin that hangs? key network.timeout"
_IDLE = 2  # workers that wait for jobs, at most
_JOBS = 100  # of one worker
_STOPPED_WITHIN = 1000  # milliseconds; what is in the middle of a system call takes a moment, or for ever
_DESCRIPTORS = 40  # of one worker that is not to be given up: it has a few, whatever it did
_ON, _LAST = b"+", b"-"  # before an answer: whether its worker takes another job


def serve(fd: int, owner: int, asked: dict[str, Any]) -> None:
    """Until the connection or the process `owner` (a pidfd) ends. Raises OSError.

    asked: the request that made it: state and root (directories), instance (a word that no other daemon has).
    """
    spans.to(asked.get(spans.KEY, ""))
    _load()
    own = {"instance": str(asked["instance"]), "folder": f"{asked['root']}/cni"}
    Helper(fd, owner, Keeper(str(asked["state"])), own).run()


def _load() -> None:
    """What the jobs of most pods run, so that no fork has to: it was the greater part of a job's system calls."""
    codecs.lookup("ascii")
    for name in _RUN_BY_JOBS:
        __import__(f"ocirt_cni.{name}")
    gc.collect()
    gc.freeze()  # what is here stays, and the forks write to less of it


class Worker:
    """A fork that does one job after the other. fd: the socket over which it gets them and answers.

    number: of the request that it is at, 0 if it is idle; seconds: that this may take, until `deadline` (monotonic, 0: for ever);
    said: its answer, as far as it has come; is_last: whether it ends with that.
    """

    __slots__ = ("deadline", "fd", "is_last", "number", "pid", "said", "seconds")

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd
        self.number = 0
        self.seconds = self.deadline = 0.0
        self.said = b""
        self.is_last = False

    def begin(self, request: dict[str, Any]) -> None:
        """Give it a job. Raises OSError if it is gone."""
        _write(self.fd, wire.encode(request))
        self.number = request["n"]
        self.seconds = float(request.get("seconds") or 0)
        self.deadline = time.monotonic() + self.seconds if self.seconds else 0.0

    def kill(self) -> None:
        """With the plugins that it has executed."""
        for pid in _still(self.pid):
            _signal(pid, signal.SIGKILL)


def _still(pid: int) -> list[int]:
    """A process and those below it, all standing still, parents first. What has left its parent is not found any more.

    A worker that went on would see the end of a plugin, and undo things by other plugins; a plugin's shell would run its next
    command. A fork(2) that has begun ends before its process stands, so children are looked for after that.
    """
    if not _signal(pid, signal.SIGSTOP):
        return []
    try:
        for _ in range(_STOPPED_WITHIN):
            with open(f"/proc/{pid}/stat", "rb") as file:
                if file.read().rpartition(b") ")[2][:1] in b"TtZX":
                    break
            time.sleep(0.001)
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):  # which one depends on how far its end is
        return [pid]
    return [pid, *(found for child in children for found in _still(child))]


def _signal(pid: int, number: int) -> bool:
    """Whether there was somebody to get it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


class Helper:
    """Workers: as many as there are jobs, and a few that wait. own: what `cni` is to know of the daemon, in each request."""

    def __init__(self, fd: int, owner: int, keeper: Keeper, own: dict[str, Any]) -> None:
        self._fd = fd
        self._owner = owner
        self._keeper = keeper
        self._own = own
        self._decoder = wire.Decoder()
        self._poll = select.poll()
        self._workers: dict[int, Worker] = {}  # by their sockets
        self._jobs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "reload": lambda _: {},  # every job reads the configuration anew
            "sandbox-down": lambda request: sandbox.down(request, keeper),
            "sandbox-paths": lambda request: sandbox.paths(request, keeper),
            "sandbox-strays": lambda request: sandbox.strays(request, keeper),
            "sandbox-up": lambda request: sandbox.up(request, keeper),
            "status": sandbox.status,
        }

    def run(self) -> None:
        """Take requests and pass on answers."""
        for fd in (self._fd, self._owner):
            self._poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll(self._patience()):
                if fd == self._owner:
                    return
                if fd == self._fd:
                    data = posix.read(self._fd, _CHUNK)
                    if not data:
                        return
                    self._decoder.feed(data)
                    while (request := self._decoder.next()) is not None:
                        self._begin(request)
                elif fd in self._workers:
                    self._take(self._workers[fd])
            now = time.monotonic()
            for worker in [one for one in self._workers.values() if 0 < one.deadline <= now]:
                worker.kill()
                words = f"was not done after {worker.seconds:g} s"
                self._ended(worker, Error("unavailable", words, subject="network", hint=_SLOW))

    def _patience(self) -> float | None:
        """Milliseconds until the next job's time is over."""
        deadlines = [worker.deadline for worker in self._workers.values() if worker.deadline]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000 + 1) if deadlines else None

    def _begin(self, request: dict[str, Any]) -> None:
        """Have a worker do it: one that is idle, or another."""
        try:
            self._keeper.open()  # once, here: the forks share it
            for worker in self._idle():
                try:
                    worker.begin(request)
                except OSError:
                    continue  # it was killed, which is seen later
                return
            self._fork().begin(request)
        except Error as err:
            self._tell(_encoded(request["n"], wire.from_error(err)))
        except OSError as err:
            why = Error("kernel", "a job cannot be begun", cause=err.strerror or "")
            self._tell(_encoded(request["n"], wire.from_error(why)))

    def _idle(self) -> list[Worker]:
        """Those that wait for a job; none that was killed meanwhile."""
        found = [one for one in self._workers.values() if not one.number and not one.is_last]
        poll = select.poll()
        for one in found:
            poll.register(one.fd, 0)
        gone = {fd for fd, _ in poll.poll(0)}
        return [one for one in found if one.fd not in gone]

    def _fork(self) -> Worker:
        """Another worker. Raises OSError."""
        began = spans.now()
        ours, theirs = _socket.socketpair()
        pid = posix.fork()
        if pid == 0:
            try:
                # Each sees the helper's end only if no other worker has its side of the socket.
                for fd in (ours.fileno(), self._fd, self._owner, *self._workers):
                    posix.close(fd)
                self._work(theirs.detach())
            finally:
                posix._exit(0)
        theirs.close()
        worker = Worker(pid, ours.detach())
        self._workers[worker.fd] = worker
        self._poll.register(worker.fd, select.POLLIN)
        spans.add("helper", "fork", began)
        return worker

    def _work(self, fd: int) -> None:
        """As a worker: do jobs, until one went wrong or the helper ends."""
        decoder = wire.Decoder()
        for left in range(_JOBS, 0, -1):
            while (request := decoder.next()) is None:
                data = posix.read(fd, _CHUNK)
                if not data:
                    return
                decoder.feed(data)
            began = spans.now()
            answer = self._answer(request)
            is_last = left == 1 or "error" in answer or len(posix.listdir("/proc/self/fd")) > _DESCRIPTORS
            spans.add("job", str(request.get("do")), began)
            _write(fd, (_LAST if is_last else _ON) + _encoded(request["n"], answer))
            if is_last:
                return

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            job = self._jobs.get(str(request.get("do")))
            if job is None:
                raise Error("internal", f"no job: {request.get('do')}", subject="network helper")
            return job(request | {"cni": {**(request.get("cni") or {}), **self._own}})
        except Error as err:
            return wire.from_error(err)
        except CniError as err:
            return wire.from_error(Error("kernel", err.message, subject=err.subject, cause=err.cause, hint=err.hint))
        except OSError as err:
            return wire.from_error(Error("kernel", describe(err)))
        except Exception as err:  # noqa: BLE001  (nobody else would hear of it)
            return wire.from_error(Error("internal", f"{type(err).__name__}: {err}", hint=_BUG))

    def _take(self, worker: Worker) -> None:
        """Take what a worker says, and pass it on when it is whole."""
        try:
            data = posix.read(worker.fd, _CHUNK)
        except ConnectionResetError:
            data = b""
        if not data:
            self._ended(worker, Error("unavailable", "the job was killed", hint="try again"))
            return
        worker.said += data
        if not wire.is_whole(worker.said[1:]):
            return
        said, worker.said = worker.said, b""
        worker.number, worker.deadline, worker.is_last = 0, 0.0, said[:1] == _LAST
        self._tell(said[1:])
        if len(self._idle()) > _IDLE:
            self._end(worker)

    def _ended(self, worker: Worker, why: Error) -> None:
        """It is gone, or is about to be. why: what is said if it was at a job."""
        if worker.number:
            self._tell(_encoded(worker.number, wire.from_error(why)))
        self._end(worker)

    def _end(self, worker: Worker) -> None:
        """Let it end, and reap it."""
        del self._workers[worker.fd]
        self._poll.unregister(worker.fd)
        posix.close(worker.fd)
        posix.waitpid(worker.pid, 0)

    def _tell(self, data: bytes) -> None:
        _write(self._fd, data)


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[posix.write(fd, data) :]


def _encoded(number: int, document: dict[str, Any]) -> bytes:
    """An answer, as a job says it and the helper passes it on."""
    return wire.encode(document | {"n": number})
