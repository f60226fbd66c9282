"""Processes that run programs in containers (`ExecSync`), for all containers of the node: forks of the zygote, which are kept.

Each runs one program at a time, so that none waits for what another hangs in. One that nobody has needed for a while ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine

from ocirt.errors import Error
from ocirt_api.messages import shim as messages
from ocirt_cri.shims import LostError, Shim

MOST = 16  # at a time; beyond that the shims run them, which takes longer and no memory
_IDLE = 60.0  # seconds; probes come more often
_PROGRAMS = 10_000  # that one may run


class Executor:
    """One of them, made just now: the connection, and the process. Raises OSError."""

    def __init__(self, shim: Shim, pid: int) -> None:
        self.shim = shim
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self.programs = 0
        self.until: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """It ends when its program has."""
        if self.until is not None:
            self.until.cancel()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.shim.close()

    def kill(self) -> None:
        """It hangs, or is dead."""
        try:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.close()


class Executors:
    """make: has one made. Raises Error. clean: kills what one that is dead was running in a container."""

    def __init__(self, make: Callable[[], Awaitable[Executor]], clean: Callable[[str, int], Coroutine[None, None, None]]) -> None:
        self._make = make
        self._clean = clean
        self._idle: list[Executor] = []
        self._busy: set[Executor] = set()
        self._making = 0
        self._cleaning: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def is_full(self) -> bool:
        """Whether no more programs can be run for now."""
        return len(self._busy) + self._making >= MOST

    async def run(self, request: messages.ExecRequest, seconds: float | None) -> messages.ExecResponse:
        """Run a program to its end. Raises Error; TimeoutError after so many seconds: then it hangs, and is killed."""
        one = await self._take()
        try:
            found = await one.shim.call("Exec", request, messages.ExecResponse, seconds)
        except LostError:
            self._end(one, request.id)
            raise Error(
                "unavailable",
                "the process that ran the program was lost",
                subject=request.id,
                hint="it was killed, or the machine is short of memory",
            ) from None
        except Error:
            self._give_back(one)
            raise
        except BaseException:
            self._end(one, request.id)
            raise
        else:
            self._give_back(one)
            return found
        finally:
            self._busy.discard(one)

    def _end(self, one: Executor, container_id: str) -> None:
        if self._closed:
            return
        one.kill()
        task = asyncio.create_task(self._clean(container_id, one.pid), name=f"what executor {one.pid} ran in {container_id}")
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _take(self) -> Executor:
        while self._idle:
            one = self._idle.pop()
            if one.until is not None:
                one.until.cancel()
            if one.shim.is_connected:
                break
            one.close()
        else:
            self._making += 1
            try:
                one = await self._make()
            finally:
                self._making -= 1
        self._busy.add(one)
        return one

    def _give_back(self, one: Executor) -> None:
        one.programs += 1
        if self._closed or one.programs >= _PROGRAMS:
            one.close()
            return
        self._idle.append(one)
        one.until = asyncio.get_running_loop().call_later(_IDLE, self._drop, one)

    def _drop(self, one: Executor) -> None:
        self._idle.remove(one)
        one.close()

    def close(self) -> None:
        """End them all; a program that is under way goes on."""
        self._closed = True
        for one in [*self._idle, *self._busy]:
            one.close()
        self._idle.clear()
