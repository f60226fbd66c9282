"""asyncio's side of a shim: calls by ttrpc, of which many may be under way on one connection."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from typing import TypeVar

from ocirt import spans
from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.message import Message
from ocirt_api.messages import shim as messages
from ocirt_api.ttrpc import Client, DataReceived, ResponseReceived
from ocirt_api.ttrpc.frames import ProtocolError
from ocirt_api.wire import DecodeError

M = TypeVar("M", bound=Message)
_SOCKET = "socket"
_CHUNK = 1 << 16


class LostError(Error):
    """The connection to a shim has ended: the shim is dead, or about to be."""

    def __init__(self, container_id: str) -> None:
        super().__init__(
            "unavailable",
            "the shim does not answer",
            subject=container_id,
            hint="it was killed, or the machine is short of memory",
        )


class Shim:
    """A connection to the shim of one container. Made by `connected` or `connect`."""

    def __init__(self, container_id: str) -> None:
        self.id = container_id
        self._client = Client()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether calls can be made."""
        return self._transport is not None

    async def call(self, method: str, request: Message, answer: type[M], seconds: float | None = None) -> M:
        """Call a method of our own service. Raises Error: what the shim says; LostError; TimeoutError after so many seconds."""
        if self._transport is None:
            raise LostError(self.id)
        nanoseconds = 0 if seconds is None else int(seconds * 1e9)
        stream, data = self._client.request(messages.SERVICE, method, request.encode(), timeout=nanoseconds)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[stream] = future
        self._transport.write(data)
        began = spans.now()
        try:
            async with asyncio.timeout(seconds):
                payload = await future
        finally:
            self._calls.pop(stream, None)
            if future.cancelled():
                self._client.forget(stream)
            if method != "Wait":
                spans.add("shims", method, began)
        try:
            return answer.decode(payload)
        except DecodeError as err:
            raise Error("internal", f"the shim's answer to {method} cannot be read", subject=self.id, cause=str(err)) from None

    async def end(self, seconds: float) -> None:
        """Wait until it has ended the connection, as it does last of all. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self._ended.wait()

    def close(self) -> None:
        """End the connection; nobody is told."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the transport calls.

    def received(self, data: bytes) -> None:
        """Bytes have come."""
        try:
            events = self._client.receive(data)
        except ProtocolError:
            self.lost()
            return
        for event in events:
            future = self._calls.pop(event.stream, None)
            if future is None or future.done():
                continue
            if isinstance(event, DataReceived):
                future.set_exception(Error("internal", "the shim sent what was not asked for", subject=self.id))
            elif event.status.code != status.OK:
                # Its text has subject, cause and hint in it already.
                said = event.status
                future.set_exception(Error(status.code(said.code), said.message or "the shim gave no reason"))
            else:
                future.set_result(event.payload)

    def lost(self) -> None:
        """The connection has ended."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        calls, self._calls = self._calls, {}
        for future in calls.values():
            if not future.done():
                future.set_exception(LostError(self.id))
        self._ended.set()

    def attached(self, transport: asyncio.Transport) -> None:
        """The transport is there."""
        self._transport = transport


class _Protocol(asyncio.Protocol):
    __slots__ = ("_shim",)

    def __init__(self, shim: Shim) -> None:
        self._shim = shim

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._shim.attached(transport)

    def data_received(self, data: bytes) -> None:
        self._shim.received(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._shim.lost()


async def connected(container_id: str, connection: socket.socket) -> Shim:
    """A shim at the other end of a stream socket, which is given away."""
    shim = Shim(container_id)
    connection.setblocking(False)
    await asyncio.get_running_loop().create_unix_connection(lambda: _Protocol(shim), sock=connection)
    return shim


async def connect(container_id: str, directory: str) -> Shim:
    """A shim by its socket in its directory. Raises OSError if nobody listens there."""
    shim = Shim(container_id)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the path may be too long for an address
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: _Protocol(shim), f"/proc/self/fd/{fd}/{_SOCKET}")
    finally:
        os.close(fd)
    return shim


async def pass_on(container_id: str, directory: str, method: str, request: Message, descriptor: int) -> None:
    """Call a method that takes a descriptor; the shim has one of its own when this returns. Raises Error, OSError, LostError.

    By a connection of its own: bytes of other calls that wait to be sent would go with it.
    """
    loop = asyncio.get_running_loop()
    client = Client()
    _, data = client.request(messages.SERVICE, method, request.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await loop.sock_connect(connection, f"/proc/self/fd/{fd}/{_SOCKET}")
        finally:
            os.close(fd)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        sent = connection.sendmsg([data], rights)
        await loop.sock_sendall(connection, data[sent:])
        while came := await loop.sock_recv(connection, _CHUNK):
            for event in client.receive(came):
                if isinstance(event, ResponseReceived):
                    if event.status.code != status.OK:
                        raise Error(status.code(event.status.code), event.status.message or "the shim gave no reason")
                    return
    raise LostError(container_id)
