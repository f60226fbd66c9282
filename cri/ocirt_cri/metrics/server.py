"""HTTP for who looks after a node: /metrics, and /healthz, on a unix socket or on the loopback. One request a connection."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ocirt_cri.metrics.address import address
from ocirt_cri.metrics.text import TYPE

if TYPE_CHECKING:
    from ocirt_cri.node import Node

_HEAD = 8 << 10  # bytes of a request's head
_PATIENCE = 10.0  # seconds for a client to ask and to read
_MODE = 0o660
_PLAIN = "text/plain; charset=utf-8"
_STATUSES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
Answer = tuple[int, str, str]  # status, type, body
_log = logging.getLogger(__name__)


class Server:
    """Listens between `start` and `stop`. metrics: all of them as text; unwell: why the daemon is not well, "" if it is."""

    def __init__(self, metrics: Callable[[], str], unwell: Callable[[], str]) -> None:
        self._metrics = metrics
        self._unwell = unwell
        self._server: asyncio.Server | None = None
        self._path = ""

    async def start(self, place: str) -> None:
        """Listen. Raises Error, OSError."""
        host, port = address(place)
        if port:
            self._server = await asyncio.start_server(self._serve, host, port, limit=_HEAD)
            return
        os.makedirs(os.path.dirname(host), 0o755, exist_ok=True)
        scratch = f"{host}.{secrets.token_hex(4)}"
        mask = os.umask(0o777 - _MODE)
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            sock.bind(scratch)
        finally:
            os.umask(mask)
        os.rename(scratch, host)
        self._path = host
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_HEAD)

    async def stop(self) -> None:
        """Listen no more."""
        if self._path:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(encoded(*self._answer(head)))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
            _log.debug("a client of the metrics: %s", err)
        finally:
            writer.close()

    def _answer(self, head: bytes) -> Answer:
        words = head.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, _PLAIN, "no request of HTTP\n"
        if words[0] != b"GET":
            return 405, _PLAIN, "GET only\n"
        return self._page(words[1].partition(b"?")[0].decode("ascii", "replace"))

    def _page(self, path: str) -> Answer:
        if path == "/metrics":
            return 200, TYPE, self._metrics()
        if path == "/healthz":
            why = self._unwell()
            return (503, _PLAIN, why + "\n") if why else (200, _PLAIN, "ok\n")
        return 404, _PLAIN, "/metrics or /healthz\n"


def encoded(status: int, kind: str, body: str) -> bytes:
    """An answer of HTTP/1.1."""
    data = body.encode()
    head = (
        f"HTTP/1.1 {status} {_STATUSES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n"
    )
    return head.encode() + b"\r\n" + data


def unwell(node: Node) -> str:
    """Why the daemon does not do what it is for, "" if it does."""
    if not node.recovered.is_set():
        return "recovering: the pods of an earlier ocirtd are looked for"
    return node.store.broken
