"""Shims that were made before there is a container for them: a fork of the zygote takes longer than most of what is done with it.

One is kept, and as many as pods are being made. Each ends with its connection, so that none outlives this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ocirt.errors import Error
from ocirt_cri.shims import Shim

_MOST = 4
_PAUSE = 0.2  # seconds after one was taken until there is another, if nobody says before that it will be needed
_log = logging.getLogger(__name__)


class Spares:
    """make: has a shim made that has no container yet. Raises Error."""

    def __init__(self, make: Callable[[], Awaitable[Shim]]) -> None:
        self._make = make
        self._ready: list[Shim] = []
        self._making: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._closed = False

    def expect(self) -> None:
        """Somebody is about to need one."""
        if not self._closed and len(self._ready) + len(self._making) < _MOST and not self._ready:
            task = asyncio.create_task(self._one(), name="a shim ahead")
            self._making.add(task)
            task.add_done_callback(self._making.discard)

    async def take(self, container_id: str) -> Shim:
        """One for a container. Raises Error."""
        found = self._pop()
        if found is None and self._making:
            await asyncio.wait(self._making, return_when=asyncio.FIRST_COMPLETED)
            found = self._pop()
        if found is None:
            found = await self._make()
        found.id = container_id
        if self._later is None and not self._closed:
            self._later = asyncio.get_running_loop().call_later(_PAUSE, self._refill)
        return found

    def close(self) -> None:
        """End those that wait."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        for task in self._making:
            task.cancel()
        while self._ready:
            self._ready.pop().close()

    def _pop(self) -> Shim | None:
        while self._ready:
            found = self._ready.pop()
            if found.is_connected:
                return found
        return None

    def _refill(self) -> None:
        self._later = None
        self.expect()

    async def _one(self) -> None:
        try:
            self._ready.append(await self._make())
        except (Error, OSError) as err:
            _log.debug("no shim could be made ahead: %s", err)  # who needs one is told
