"""The network helper's loop: a request comes in, a fork takes it, its answer goes out.

Requests and answers are messages of `ocirt.zygote.wire` with a number `n`; `do` names the job. A job that hangs (a plugin of
somebody else's) keeps nobody waiting but who asked for it.
"""

from __future__ import annotations

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


class Job:
    """A fork at work. number: of the request; seconds: that it may take, until `deadline` (monotonic, 0: for ever).

    said: its answer, as far as it has come; answered: whether that was passed on, and only its end is waited for.
    """

    __slots__ = ("answered", "deadline", "number", "pid", "said", "seconds")

    def __init__(self, pid: int, request: dict[str, Any]) -> None:
        self.pid = pid
        self.number: int = request["n"]
        self.seconds = float(request.get("seconds") or 0)
        self.deadline = time.monotonic() + self.seconds if self.seconds else 0.0
        self.said = b""
        self.answered = False

    def give_up(self) -> None:
        """Kill it, with the plugins that it has executed."""
        # It stands still first: at the end of a plugin it would begin to undo things, by other plugins.
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        for pid in (self.pid, *_below(self.pid)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        words = f"was not done after {self.seconds:g} s"
        self.said = _encoded(self.number, wire.from_error(Error("unavailable", words, subject="network", hint=_SLOW)))


def _below(pid: int) -> list[int]:
    """The processes below one, parents first. What has left its parent is not found any more."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = [int(word) for word in file.read().split()]
    except FileNotFoundError:
        return []
    return [found for child in children for found in (child, *_below(child))]


class Helper:
    """Jobs that run, by the pipe over which they answer. own: what `cni` is to know of the daemon, in each request."""

    def __init__(self, fd: int, owner: int, keeper: Keeper, own: dict[str, Any]) -> None:
        self._fd = fd
        self._owner = owner
        self._keeper = keeper
        self._own = own
        self._decoder = wire.Decoder()
        self._running: dict[int, Job] = {}  # by the pipe that they answer over
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
        poll = select.poll()
        for fd in (self._fd, self._owner):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll(self._patience()):
                if fd == self._owner:
                    return
                if fd == self._fd:
                    data = posix.read(self._fd, _CHUNK)
                    if not data:
                        return
                    self._decoder.feed(data)
                    while (request := self._decoder.next()) is not None:
                        poll.register(self._begin(request), select.POLLIN)
                elif fd in self._running and self._take(fd):
                    poll.unregister(fd)
                    posix.close(fd)
            now = time.monotonic()
            for fd in [fd for fd, job in self._running.items() if 0 < job.deadline <= now]:
                self._running[fd].give_up()
                self._finish(self._running.pop(fd))
                poll.unregister(fd)
                posix.close(fd)

    def _patience(self) -> float | None:
        """Milliseconds until the next job's time is over."""
        deadlines = [job.deadline for job in self._running.values() if job.deadline]
        return max(0.0, (min(deadlines) - time.monotonic()) * 1000 + 1) if deadlines else None

    def _begin(self, request: dict[str, Any]) -> int:
        """Have a fork do it; the pipe over which it answers."""
        began = spans.now()
        told, tell = posix.pipe2(posix.O_CLOEXEC)
        pid = -1
        try:
            self._keeper.open()  # once, here: the forks share it
            pid = posix.fork()
        except (Error, OSError) as err:
            text = err if isinstance(err, Error) else Error("kernel", "a job cannot be begun", cause=err.strerror or "")
            posix.write(tell, _encoded(request["n"], wire.from_error(text)))
        if pid == 0:
            try:
                posix.close(told)
                began = spans.now()
                answer = _encoded(request["n"], self._answer(request))
                spans.add("job", str(request.get("do")), began)
                while answer:
                    answer = answer[posix.write(tell, answer) :]
            finally:
                posix._exit(0)
        posix.close(tell)
        spans.add("helper", "fork", began)
        self._running[told] = Job(pid, request)
        return told

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

    def _take(self, fd: int) -> bool:
        """Take what a job says, and pass it on when it is whole; whether the job has ended.

        Its end may take much longer: the kernel then takes away what it has unmounted.
        """
        job = self._running[fd]
        data = posix.read(fd, _CHUNK)
        if data:
            job.said += data
            if wire.is_whole(job.said):
                self._pass_on(job)
            return False
        del self._running[fd]
        self._finish(job)
        return True

    def _finish(self, job: Job) -> None:
        """Reap it, and pass on what it has said."""
        if job.pid > 0:
            posix.waitpid(job.pid, 0)
        if not job.answered:
            if not wire.is_whole(job.said):
                job.said = _encoded(job.number, wire.from_error(Error("unavailable", "the job was killed", hint="try again")))
            self._pass_on(job)

    def _pass_on(self, job: Job) -> None:
        data, job.said = job.said, b""
        job.answered, job.deadline = True, 0.0
        while data:
            data = data[posix.write(self._fd, data) :]


def _encoded(number: int, document: dict[str, Any]) -> bytes:
    """An answer, as a job says it and the helper passes it on."""
    return wire.encode(document | {"n": number})
