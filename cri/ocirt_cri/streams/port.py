"""The stream port: HTTP heads on plain sockets, which are then given away with what they have brought.

Not asyncio's streams: a transport that has read ahead cannot be given to another process.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable

from ocirt.errors import Error
from ocirt_cri.streams.heads import Head, refusal
from ocirt_cri.streams.tokens import Tokens, Wish
from ocirt_cri.streams.upgrade import Refused, Upgrade, agree

# Gives a client's socket, and the bytes after its head, to who serves it. Raises Error, OSError.
Give = Callable[[Wish, Upgrade, socket.socket, bytes], Awaitable[None]]
_PATIENCE = 30.0  # seconds for a head, and for its answer
_BACKLOG = 128
_AT_ONCE = 256  # clients whose heads are not answered; anybody on the machine can be one
_KEEP_ALIVE = 60  # seconds until a silent client is asked whether it is there
_CHUNK = 1 << 16
_FULL = 0.1  # seconds until another try where there are too many open files
_log = logging.getLogger(__name__)


class Port:
    """A listener on a loopback address; port 0: one that is free."""

    def __init__(self, address: str, port: int, tokens: Tokens, give: Give) -> None:
        self._address = address
        self._port = port
        self._tokens = tokens
        self._give = give
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def __aenter__(self) -> Port:
        """Raises Error("invalid") for an address that others can reach, Error("in-use")."""
        try:
            where = ipaddress.ip_address(self._address)
        except ValueError:
            raise Error("invalid", f"{self._address!r} is no address", subject="streams.address", hint="127.0.0.1") from None
        if not where.is_loopback:
            hint = "the kubelet asks here for others; 127.0.0.1"
            raise Error("invalid", f"{where} can be reached from elsewhere", subject="streams.address", hint=hint)
        family = socket.AF_INET if where.version == 4 else socket.AF_INET6
        self._socket = listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((str(where), self._port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except OSError as err:
            listener.close()
            raise Error("in-use", "cannot listen", subject=f"{where} port {self._port}", cause=err.strerror or "") from None
        self._spawn(self._accept(listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    def url(self, wish: Wish) -> str:
        """Where the client is served, once. Raises Error("exhausted")."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/{wish.kind}/{self._tokens.issue(wish)}"

    def _spawn(self, what: Awaitable[None]) -> None:
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as err:
                self._room.release()
                _log.warning("a client of the stream port could not come in: %s", err.strerror)
                await asyncio.sleep(_FULL)
                continue
            self._spawn(self._serve(client))

    async def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEP_ALIVE)
                async with asyncio.timeout(_PATIENCE):
                    await self._answer(client)
        except (OSError, TimeoutError):
            pass  # the client is gone, or says nothing
        finally:
            self._room.release()

    async def _answer(self, client: socket.socket) -> None:
        try:
            await self._pass_on(client)
        except Refused as why:
            _log.info("a client of the stream port was refused: %d, %s", why.status, why.text)
            await asyncio.get_running_loop().sock_sendall(client, refusal(why))

    async def _pass_on(self, client: socket.socket) -> None:
        head = Head()
        while not head.feed(await asyncio.get_running_loop().sock_recv(client, _CHUNK)):
            pass
        kind, token = head.route()
        agreed = agree(kind, head.method, head.headers)
        wish = self._tokens.take(token, kind)
        if wish is None:
            raise Refused(404, "this was asked for already, or too long ago")
        try:
            await self._give(wish, agreed, client, head.rest)
        except Error as err:
            raise Refused(500, str(err)) from None
        except OSError as err:
            raise Refused(500, f"{err.filename or 'its process'}: {err.strerror}") from None
