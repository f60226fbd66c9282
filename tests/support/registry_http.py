"""The HTTP side of `LocalRegistry`: requests as they were seen, answers before they are sent, and the server that sends them."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_CHUNK = 1 << 20


@dataclass
class Seen:
    """A request. `status` is what it was answered; `broken`: the connection broke before all of its body had come."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes = b""
    status: int = 0
    scopes: list[str] = field(default_factory=list)  # of the query, each
    broken: bool = False
    certificate: bool = False  # it came over TLS, with a client's certificate

    @property
    def length(self) -> int:
        """Bytes of its body."""
        return int(self.headers.get("Content-Length", "0"))

    @property
    def range(self) -> str:
        return self.headers.get("Range", "")

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


@dataclass
class Reply:
    """An answer before it is sent; faults change it.

    span: the part of `body` that is sent; length: a Content-Length instead of the true one; cut: end the connection after so
    many bytes of the body; reset: end it by RST; step, pause: send so many bytes at a time, with a pause; head_pause: the
    same for the head, byte by byte; head_cut: end the connection after so many bytes of it; hold: wait for this
    before the body; stuck: after so many bytes wait for an event, then end; silent: not even a status is sent
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Path = b""
    span: tuple[int, int] | None = None
    length: int | None = None
    cut: int | None = None
    reset: bool = False
    chunked: bool = False
    silent: bool = False
    step: int = _CHUNK
    pause: float = 0
    head_pause: float = 0
    head_cut: int | None = None
    hold: threading.Event | None = None
    stuck: tuple[int, threading.Event] | None = None
    more: list[tuple[str, str]] = field(default_factory=list)  # headers that come several times

    @property
    def whole(self) -> int:
        return self.body.stat().st_size if isinstance(self.body, Path) else len(self.body)

    @property
    def data(self) -> bytes:
        """What would be sent."""
        start, stop = self.span or (0, self.whole)
        return (self.body.read_bytes() if isinstance(self.body, Path) else self.body)[start:stop]

    def pieces(self) -> Iterator[bytes]:
        start, stop = self.span or (0, self.whole)
        if isinstance(self.body, Path):
            with self.body.open("rb") as file:
                file.seek(start)
                while start < stop and (piece := file.read(min(self.step, stop - start))):
                    start += len(piece)
                    yield piece
            return
        with memoryview(self.body) as view:
            for at in range(start, stop, self.step):
                yield bytes(view[at : min(at + self.step, stop)])


Fault = Callable[[Reply, Seen], None]


def error(status: int, code: str, message: str = "", **headers: str) -> Reply:
    """An error as the specification has it."""
    body = json.dumps({"errors": [{"code": code, "message": message or code.lower().replace("_", " "), "detail": None}]})
    return Reply(status, {"Content-Type": "application/json", **headers}, body.encode())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        answer: Callable[[Seen], Reply],
        trouble: list[BaseException],
        tls: ssl.SSLContext | None,
        takes: Callable[[Seen], int | None],
    ) -> None:
        """takes: how many bytes of a request's body are read before the connection is reset; None: all of them."""
        self.answer = answer
        self.takes = takes
        self._trouble = trouble
        self._tls = tls
        self.connections = 0
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a handshake holds up nobody."""
        if self._tls is not None:
            request = self._tls.wrap_socket(request, server_side=True)
        self._open.add(request)
        self.connections += 1
        try:
            super().finish_request(request, client_address)
        finally:
            self._open.discard(request)
            if self._tls is not None:
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are no trouble; a bug of ours is."""
        found = sys.exc_info()[1]
        if found is not None and not isinstance(found, (OSError, ValueError)):
            self._trouble.append(found)

    def close_all(self) -> None:
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its name in the standard library)
        """Not on stderr."""

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        parts = urlsplit(self.path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        seen = Seen(self.command, parts.path, dict(query), self.headers)
        limit = self.server.takes(seen)
        seen.broken = limit is not None
        seen.body = self._body() if limit is None else self.rfile.read(limit)
        if isinstance(self.connection, ssl.SSLSocket):
            seen.certificate = bool(self.connection.getpeercert())
        seen.scopes = [value for name, value in query if name == "scope"]
        reply = self.server.answer(seen)
        if seen.broken:
            reply.silent, reply.reset = True, True
        self._send(reply, head=self.command == "HEAD")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        found = bytearray()
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(found)

    def _send(self, reply: Reply, *, head: bool) -> None:
        if reply.silent:
            self._end(reply)
            return
        start, stop = reply.span or (0, reply.whole)
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('?',))[0]}"]
        lines += [f"{name}: {value}" for name, value in [*reply.headers.items(), *reply.more]]
        if reply.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif reply.status not in (204, 304):
            lines.append(f"Content-Length: {stop - start if reply.length is None else reply.length}")
        data = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        step = 1 if reply.head_pause else len(data)
        if reply.head_cut is not None:
            self.wfile.write(data[: reply.head_cut])
            self._end(reply)
            return
        for at in range(0, len(data), step):
            self.wfile.write(data[at : at + step])
            time.sleep(reply.head_pause)
        if reply.hold is not None:
            reply.hold.wait(60)
        if not head and reply.status not in (204, 304):
            self._send_body(reply)
        if reply.stuck is not None:
            reply.stuck[1].wait(60)
        if (
            reply.cut is not None
            or reply.stuck is not None
            or reply.reset
            or (reply.length is not None and reply.length != stop - start)
        ):
            self._end(reply)
            return
        self.close_connection = self.headers.get("Connection", "").lower() == "close"

    def _send_body(self, reply: Reply) -> None:
        left = reply.cut if reply.cut is not None else reply.stuck[0] if reply.stuck is not None else sys.maxsize
        for piece in reply.pieces():
            sent = piece[:left]
            left -= len(sent)
            self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if reply.chunked and sent else sent)
            if left <= 0:
                return
            if reply.pause:
                time.sleep(reply.pause)
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _end(self, reply: Reply) -> None:
        self.close_connection = True
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
