"""The network helper's loop: a request comes in, a fork takes it, its answer goes out.

Requests and answers are messages of `ocirt.zygote.wire` with a number `n`; `do` names the job. A job that hangs (a plugin of
somebody else's) keeps nobody waiting but who asked for it.
"""

from __future__ import annotations

import posix
import select
from collections.abc import Callable
from typing import Any

from ocirt import jsonlite
from ocirt.errors import Error
from ocirt.zygote import wire
from ocirt_cni.errors import Error as CniError
from ocirt_cri.network import sandbox
from ocirt_cri.network.keeper import Keeper

_CHUNK = 1 << 16
_BUG = "this is a bug in ocirt"


def serve(fd: int, owner: int, asked: dict[str, Any]) -> None:
    """Until the connection or the process `owner` (a pidfd) ends. `asked`: the request that made it. Raises OSError."""
    Helper(fd, owner, Keeper(str(asked["state"]))).run()


class Helper:
    """Jobs that run, by the pipe over which they answer."""

    def __init__(self, fd: int, owner: int, keeper: Keeper) -> None:
        self._fd = fd
        self._owner = owner
        self._keeper = keeper
        self._decoder = wire.Decoder()
        self._running: dict[int, tuple[int, int, list[bytes]]] = {}  # pipe: (pid, number, what was read)
        self._jobs: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "reload": lambda _: {},  # every job reads the configuration anew
            "sandbox-down": lambda request: sandbox.down(request, keeper),
            "sandbox-paths": lambda request: sandbox.paths(request, keeper),
            "sandbox-up": lambda request: sandbox.up(request, keeper),
            "status": sandbox.status,
        }

    def run(self) -> None:
        """Take requests and pass on answers."""
        poll = select.poll()
        for fd in (self._fd, self._owner):
            poll.register(fd, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
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

    def _begin(self, request: dict[str, Any]) -> int:
        """Have a fork do it; the pipe over which it answers."""
        told, tell = posix.pipe2(posix.O_CLOEXEC)
        pid = -1
        try:
            self._keeper.open()  # once, here: the forks share it
            pid = posix.fork()
        except Error as err:
            posix.write(tell, _encoded(err))
        except OSError as err:
            posix.write(tell, _encoded(Error("kernel", "a job cannot be begun", cause=err.strerror or "")))
        if pid == 0:
            try:
                posix.close(told)
                answer = self._answer(request)
                while answer:
                    answer = answer[posix.write(tell, answer) :]
            finally:
                posix._exit(0)
        posix.close(tell)
        self._running[told] = pid, request["n"], []
        return told

    def _answer(self, request: dict[str, Any]) -> bytes:
        try:
            job = self._jobs.get(str(request.get("do")))
            if job is None:
                raise Error("internal", f"no job: {request.get('do')}", subject="network helper")
            return jsonlite.dumps(job(request)).encode()
        except Error as err:
            return _encoded(err)
        except CniError as err:
            return _encoded(Error("kernel", err.message, subject=err.subject, cause=err.cause, hint=err.hint))
        except OSError as err:
            from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

            return _encoded(Error("kernel", describe(err)))
        except Exception as err:  # noqa: BLE001  (nobody else would hear of it)
            return _encoded(Error("internal", f"{type(err).__name__}: {err}", hint=_BUG))

    def _take(self, fd: int) -> bool:
        """Take what a job says; whether that was all."""
        pid, number, taken = self._running[fd]
        data = posix.read(fd, _CHUNK)
        if data:
            taken.append(data)
            return False
        del self._running[fd]
        if pid > 0:
            posix.waitpid(pid, 0)
        try:
            document: dict[str, Any] = jsonlite.loads(b"".join(taken), "the job's answer")
        except Error:  # nothing, or a part of it
            document = wire.from_error(Error("unavailable", "the job was killed", hint="try again"))
        data = wire.encode(document | {"n": number})
        while data:
            data = data[posix.write(self._fd, data) :]
        return True


def _encoded(err: Error) -> bytes:
    return jsonlite.dumps(wire.from_error(err)).encode()
