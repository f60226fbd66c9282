"""asyncio's side of a connection to a plugin: calls both ways, of which many may be under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.nri.mux import PLUGIN, RUNTIME
from ocirt_api.ttrpc import ProtocolError, Refused, RequestReceived, ResponseReceived
from ocirt_cri.errors import status_of
from ocirt_cri.nri.calls import PLUGIN_SERVICE, RUNTIME_SERVICE
from ocirt_cri.nri.link import Link

Serve = Callable[[str, bytes], Awaitable[bytes]]  # of a method and its request's bytes: the answer's
_log = logging.getLogger(__name__)


class LostError(Exception):
    """The connection has ended, or the plugin does not keep to its rules."""


class AnswerError(Exception):
    """The plugin has answered with a status that is not OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text or f"status {code}, without a word")
        self.code = code


class Connection(asyncio.Protocol):
    """The runtime's end. `serve` answers what the plugin asks; `lost` is called once, when the connection has ended."""

    def __init__(self, serve: Serve, lost: Callable[[], None]) -> None:
        self._serve = serve
        self._lost = lost
        self._link = Link(serves=RUNTIME, calls=PLUGIN)
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None

    async def call(self, method: str, payload: bytes, seconds: float) -> bytes:
        """The bytes of the plugin's answer. Raises TimeoutError, LostError, AnswerError, TooLargeError."""
        if self._transport is None:
            raise LostError("the plugin is not connected")
        stream, sent = self._link.request(PLUGIN_SERVICE, method, payload, timeout=int(seconds * 1e9))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[stream] = future
        self._transport.write(sent)
        try:
            async with asyncio.timeout(seconds):
                return await future
        finally:
            self._calls.pop(stream, None)
            if future.cancelled():
                self._link.forget(stream)

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self._transport is None or self._transport.is_closing():
            return
        try:
            events = self._link.receive(data)
        except ProtocolError as err:
            _log.error("an NRI plugin does not speak as one: %s", err)
            self.close()
            return
        for event in events:
            if isinstance(event, Refused):
                self._transport.write(event.answer)
            elif isinstance(event, ResponseReceived):
                self._answered(event)
            else:
                task = asyncio.create_task(self._answer(event), name=f"NRI {event.request.method}")
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

    def connection_lost(self, _: Exception | None) -> None:
        """It has ended."""
        self._transport = None
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(LostError("the connection to the plugin has ended"))
        self._lost()

    def _answered(self, event: ResponseReceived) -> None:
        future = self._calls.pop(event.stream, None)
        if future is None or future.done():
            return
        if event.status.code != status.OK:
            future.set_exception(AnswerError(event.status.code, event.status.message))
        else:
            future.set_result(event.payload)

    async def _answer(self, event: RequestReceived) -> None:
        request = event.request
        try:
            if request.service != RUNTIME_SERVICE:
                raise Error("unsupported", f"there is no service {request.service[:80]!r}")
            sent = self._link.respond(event.stream, await self._serve(request.method, request.payload))
        except Exception as err:  # noqa: BLE001  (whatever it is, the plugin gets a status)
            if not isinstance(err, Error):
                _log.error("a bug in ocirtd, in a call of an NRI plugin", exc_info=err)
            sent = self._link.respond(event.stream, code=status_of(err), text=str(err))
        if self._transport is not None:
            self._transport.write(sent)
