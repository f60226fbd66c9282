"""asyncio's side of the network helper: what pods need beside files, made where namespaces may be entered.

The helper is a fork of the zygote; `ocirt_cri.network` is what runs in it. It is asked for when first needed, and again when it
has died. What it makes survives it, and every request names all that it needs: any helper can take back what another made.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ocirt import spans
from ocirt.errors import Error
from ocirt.zygote import wire

if TYPE_CHECKING:
    from ocirt_cri.zygote import Zygote

MODULE = "ocirt_cri.network.helper"  # its `serve` runs in the helper
_CHUNK = 1 << 16
_log = logging.getLogger(__name__)


class Networks(Protocol):
    """What ocirtd wants of the helper. Each raises Error."""

    async def up(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Make what a pod wants: {"ips", "interface", "result", "namespaces", "shm"}. What fails leaves nothing."""

    async def down(self, pod: Mapping[str, Any]) -> None:
        """Take back what a pod has, however much there is of it."""

    async def paths(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """Where the namespaces and the /dev/shm of a pod are found now: {"namespaces", "shm"}."""

    async def strays(self, known: Mapping[str, Any]) -> list[str]:
        """Pods that something is left of, and that are not in `known`: see `network.sandbox.strays`."""

    async def status(self) -> tuple[bool, str]:
        """Whether pods can have networks, and if not, why."""

    async def reload(self) -> None:
        """The configuration has changed."""

    async def close(self) -> None:
        """End it; what it has made stays."""

    @property
    def generation(self) -> int:
        """Which helper it is: paths of namespaces are found through it, and those of an earlier one lead nowhere."""


class Helper:
    """The helper by way of the zygote. settings: what it is told once, of the daemon's configuration."""

    def __init__(self, zygote: Zygote, settings: Mapping[str, Any], cni: Callable[[], Mapping[str, Any]] = dict) -> None:
        """cni: where networks are configured now."""
        self._zygote = zygote
        self._settings = settings
        self._cni = cni
        self._numbers = itertools.count(1)
        self._lock = asyncio.Lock()
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._connection: socket.socket | None = None
        self._reading: asyncio.Task[None] | None = None
        self.pid = 0

    async def up(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """See `Networks`."""
        return await self._ask("sandbox-up", wanted)

    async def down(self, pod: Mapping[str, Any]) -> None:
        """See `Networks`."""
        await self._ask("sandbox-down", pod)

    async def paths(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """See `Networks`."""
        return await self._ask("sandbox-paths", pod)

    async def strays(self, known: Mapping[str, Any]) -> list[str]:
        """See `Networks`."""
        return [str(pod) for pod in (await self._ask("sandbox-strays", known))["pods"]]

    async def status(self) -> tuple[bool, str]:
        """See `Networks`."""
        try:
            said = await self._ask("status", {"cni": dict(self._cni())})
        except Error as err:
            return False, str(err)
        return bool(said.get("ready")), str(said.get("message", ""))

    async def reload(self) -> None:
        """See `Networks`."""
        if self._connection is not None:
            await self._ask("reload", {})

    @property
    def generation(self) -> int:
        """See `Networks`."""
        return self.pid if self._connection is not None else 0

    async def close(self) -> None:
        """See `Networks`."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _ask(self, what: str, members: Mapping[str, Any]) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        future: asyncio.Future[dict[str, Any]] = loop.create_future()
        async with self._lock:
            connection = self._connection or await self._start()
            self._calls[number] = future
            try:
                await loop.sock_sendall(connection, wire.encode({**members, "n": number, "do": what}))
            except OSError:
                self._calls.pop(number, None)
                raise self._gone() from None
        began = spans.now()
        try:
            return await future
        finally:
            self._calls.pop(number, None)
            spans.add("network", what, began)

    async def _start(self) -> socket.socket:
        connection, self.pid = await self._zygote.ask({**self._settings, "do": "serve", "module": MODULE})
        self._connection = connection
        self._reading = asyncio.create_task(self._read(connection), name="network helper")
        return connection

    async def _read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        decoder = wire.Decoder()
        try:
            while data := await loop.sock_recv(connection, _CHUNK):
                decoder.feed(data)
                while (message := decoder.next()) is not None:
                    future = self._calls.pop(message.get("n", 0), None)
                    if future is None or future.done():
                        continue
                    if "error" in message:
                        future.set_exception(wire.to_error(message))
                    else:
                        future.set_result(message)
            _log.warning("the network helper has ended; the next pod starts another")
        except (OSError, Error) as err:
            _log.warning("the network helper is given up: %s", err)
        finally:
            connection.close()
            if self._connection is connection:
                self._connection = None
            calls, self._calls = self._calls, {}
            for future in calls.values():
                if not future.done():
                    future.set_exception(self._gone())

    @staticmethod
    def _gone() -> Error:
        return Error("unavailable", "the network helper died", hint="was it killed? try again")
