"""asyncio's side of the zygote: it is executed, given sockets, and executed anew when it has died.

Nothing is ever forked from here: grpc has threads. posix_spawn(3) runs no Python code in the child.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from ocirt import spans
from ocirt.errors import Error
from ocirt.zygote import wire
from ocirt_shim.zygote import command

CONTROL, OWNER = 3, 4
READY = b"ready"
# What a fork may be asked to load.
_PACKAGES = ("ocirt", "ocirt_api", "ocirt_shim", "ocirt_cni", "ocirt_cri")
_ENDED_WITHIN = 1.0  # seconds after it has closed what it could say something by
_PATIENCE = 60.0  # seconds that one may take to start
_ATTEMPTS = 6
_PAUSE = 0.005  # seconds until the second attempt; one that was killed is seen to be gone meanwhile
_CHUNK = 1 << 16
_FULL = 0.001  # seconds until another try where the control socket takes no more
_log = logging.getLogger(__name__)


class Zygote:
    """The zygote of this process. An async context manager."""

    def __init__(self, command: Callable[[], list[str]] | None = None) -> None:
        """command: what is executed; None: the shims' zygote."""
        self._command = command or usual_command
        self._lock = asyncio.Lock()
        self._control: socket.socket | None = None
        self._reaping: asyncio.Task[None] | None = None
        self.pid = 0
        self.starts = 0  # how many there were

    async def __aenter__(self) -> Zygote:
        async with self._lock:
            await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; what its forks run goes on."""
        self._forget()
        if self._reaping is not None:
            await self._reaping

    async def ask(self, request: Mapping[str, Any]) -> tuple[socket.socket, int]:
        """Have a fork made for a request; a socket to it (not blocking), and its pid. Raises Error."""
        began = spans.now()
        for attempt in range(_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_PAUSE * 3 ** (attempt - 1))
            mine, theirs = socket.socketpair()
            mine.setblocking(False)
            try:
                with theirs:
                    await self._pass_on(theirs)
                loop = asyncio.get_running_loop()
                more = {spans.KEY: spans.on()} if spans.on() else {}
                await loop.sock_sendall(mine, wire.encode({**request, **more}))
                answer = await _answer(mine)
            except (ConnectionError, BrokenPipeError):
                mine.close()  # it ended before it forked, and nothing was done
                continue
            except BaseException:
                mine.close()
                raise
            if "error" in answer:
                mine.close()
                raise wire.to_error(answer)
            spans.add("shims", f"fork of the zygote: {request['do']}", began)
            return mine, int(answer["at"])
        raise Error("kernel", "the zygote does not answer", hint="was it killed? out of memory, or of processes?")

    async def _pass_on(self, theirs: socket.socket) -> None:
        async with self._lock:
            if self._control is None:
                await self._start()
            assert self._control is not None
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
            while True:
                try:
                    self._control.sendmsg([b"n"], rights, socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    await asyncio.sleep(_FULL)
                except OSError as err:
                    self._forget()
                    raise ConnectionError(err.errno, err.strerror) from None
                else:
                    return

    async def _start(self) -> None:
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said, errors = os.pipe2(os.O_CLOEXEC)
        me = os.pidfd_open(os.getpid())
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        control.setblocking(False)
        try:
            pid = _spawn(self._command(), {0: null, 1: null, 2: errors, CONTROL: theirs.fileno(), OWNER: me})
        except OSError as err:
            control.close()
            os.close(said)
            raise Error("kernel", "cannot start the zygote", subject=sys.executable, cause=err.strerror or "") from None
        finally:
            theirs.close()
            for fd in (errors, me, null):
                os.close(fd)
        try:
            async with asyncio.timeout(_PATIENCE):
                word = await asyncio.get_running_loop().sock_recv(control, len(READY))
            if word != READY:
                words = (await asyncio.to_thread(os.read, said, _CHUNK)).decode(errors="replace").strip()
                cause = words.splitlines()[-1] if words else await asyncio.to_thread(_how_it_ended, pid)
                raise Error("kernel", "the zygote did not start", subject="zygote", cause=cause)
        except BaseException as err:
            control.close()
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, pid, 0)
            if isinstance(err, TimeoutError):
                raise Error("kernel", f"the zygote did not start within {_PATIENCE:g} seconds", subject="zygote") from None
            raise
        finally:
            os.close(said)
        self._control, self.pid = control, pid
        self.starts += 1
        self._reaping = asyncio.create_task(self._reap(pid), name=f"end of zygote {pid}")

    async def _reap(self, pid: int) -> None:
        """Wait for one that ends, so that the next request finds another."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        fd = os.pidfd_open(pid)
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        _, status = os.waitpid(pid, 0)  # noqa: ASYNC222  (it has ended)
        if self.pid == pid and self._control is not None:
            _log.warning(
                "the zygote has ended with status %d; the next request starts another", os.waitstatus_to_exitcode(status)
            )
            self._forget()

    def _forget(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            control.close()


async def _answer(connection: socket.socket) -> dict[str, Any]:
    decoder = wire.Decoder()
    while (message := decoder.next()) is None:
        data = await asyncio.get_running_loop().sock_recv(connection, _CHUNK)
        if not data:
            raise ConnectionResetError
        decoder.feed(data)
    return message


def usual_command() -> list[str]:
    """How the shims' zygote is executed by this interpreter: isolated, with the folders of our packages."""
    homes: dict[str, None] = {}
    for name in _PACKAGES:
        homes[os.path.dirname(os.path.abspath(importlib.import_module(name).__path__[0]))] = None
    return command(os.path.realpath(sys.executable or "/proc/self/exe"), list(homes))


def _how_it_ended(pid: int) -> str:
    """Of a zygote that went without a word: it is still to be reaped."""
    until = time.monotonic() + _ENDED_WITHIN
    while (found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
        if time.monotonic() > until:
            return "it said nothing"
        time.sleep(0.01)
    if found.si_code == os.CLD_EXITED:
        return f"it ended with exit code {found.si_status} and said nothing"
    return f"it was killed by signal {found.si_status}"


def _spawn(words: list[str], descriptors: Mapping[int, int]) -> int:
    """Execute a command with `descriptors` (there: here); its pid. Raises OSError."""
    # By way of higher numbers, as a descriptor may have the number that another one is to get.
    high: dict[int, int] = {}
    try:
        for there, here in descriptors.items():
            high[there] = fcntl.fcntl(here, fcntl.F_DUPFD_CLOEXEC, max(descriptors) + 1)
        return os.posix_spawn(
            words[0],
            words,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, here, there) for there, here in high.items()],
            setsigmask=signal.valid_signals(),  # until it has left the terminal
        )
    finally:
        for fd in high.values():
            os.close(fd)
