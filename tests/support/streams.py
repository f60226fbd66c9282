"""Clients of exec, attach and port-forward that wait: SPDY/3.1 and WebSocket."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from ocirt_shim.remote import spdy
from tests.support.patience import patience

PATIENCE = patience(30.0)
CHUNK = 1 << 16


class RefusedError(Exception):
    """The server does not upgrade. status: of HTTP; text: why."""

    def __init__(self, head: bytes, text: bytes) -> None:
        super().__init__(head, text)
        self.status = int(head.split()[1])
        self.head = head.decode()
        self.text = text.decode()


def dial(url: str) -> socket.socket:
    """A connection to where a URL leads."""
    found = urlsplit(url)
    return socket.create_connection((found.hostname, found.port), PATIENCE)


def request_head(url: str, method: str, headers: list[tuple[str, str]]) -> bytes:
    """What a client sends first."""
    found = urlsplit(url)
    lines = [f"{method} {found.path} HTTP/1.1", f"Host: {found.netloc}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


def spdy_head(url: str, *protocols: str, method: str = "POST") -> bytes:
    """Of SPDY, as kubectl and crictl have it."""
    wanted = [("X-Stream-Protocol-Version", one) for one in protocols]
    return request_head(url, method, [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), *wanted, ("Content-Length", "0")])


def websocket_head(url: str, *protocols: str, method: str = "GET") -> bytes:
    """Of WebSocket."""
    headers = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    headers.append(("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()))
    if protocols:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(protocols)))
    return request_head(url, method, headers)


def answer_of(sock: socket.socket) -> tuple[str, bytes]:
    """The server's head, and what has come after it. Raises RefusedError."""
    came = b""
    while b"\r\n\r\n" not in came:
        data = sock.recv(CHUNK)
        assert data, f"the server went away: {came!r}"
        came += data
    head, _, rest = came.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        with sock:
            while data := sock.recv(CHUNK):
                rest += data
        raise RefusedError(head, rest)
    return head.decode(), rest


class Wire:
    """A connection after its upgrade; bytes of either transport."""

    def __init__(self, sock: socket.socket, rest: bytes) -> None:
        self.socket = sock
        self.rest = rest
        self.is_closed = False

    def receive(self) -> bytes:
        """What has come; b"" at the end."""
        data, self.rest = self.rest, b""
        if not data:
            try:
                data = self.socket.recv(CHUNK)
            except ConnectionResetError:
                data = b""
        self.is_closed = not data
        return data

    def close(self) -> None:
        """Go."""
        self.socket.close()


class Client:
    """What both transports have in common. came: bytes by channel."""

    wire: Wire

    def __init__(self) -> None:
        self.came: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray(), "error": bytearray()}
        self.keep = True  # what came, and not its length alone
        self.counts = {"stdout": 0, "stderr": 0, "error": 0}

    def send(self, data: bytes) -> None:
        """Bytes for standard input."""
        raise NotImplementedError

    def end_input(self) -> None:
        """No more of them."""
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        """Another size of the terminal."""
        raise NotImplementedError

    def pump(self) -> bool:
        """Take what comes next; whether there will be more."""
        raise NotImplementedError

    def took(self, name: str, data: bytes) -> None:
        """Bytes of a channel."""
        self.counts[name] += len(data)
        if self.keep or name == "error":
            self.came[name] += data

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to have come."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert self.pump() or condition(), f"the server went away: {self.came}"
            assert time.monotonic() < end, self.came

    def until_text(self, name: str, text: bytes) -> None:
        """Wait for a text in a channel."""
        self.until(lambda: text in self.came[name])

    def finish(self) -> Any:
        """Wait for the server's end: what it said of the outcome; None if nothing."""
        while self.pump():
            pass
        self.wire.close()
        text = bytes(self.came["error"]).decode()
        return json.loads(text) if text.startswith("{") else text or None

    def close(self) -> None:
        """Go."""
        self.wire.close()


class SpdyClient(Client):
    """Of exec and attach."""

    def __init__(self, url: str, *, wanted: str = "stdin stdout stderr", protocol: str = "v4.channel.k8s.io") -> None:
        """wanted: channels beside that for errors, in words."""
        super().__init__()
        sock = dial(url)
        sock.sendall(spdy_head(url, protocol))
        self.head, rest = answer_of(sock)
        self.wire = Wire(sock, rest)
        self.connection = spdy.Connection(server=False)
        self.streams = {name: self.connection.open({"streamtype": name}) for name in ("error", *wanted.split())}
        self.names = {stream: name for name, stream in self.streams.items()}
        self.refused: list[str] = []
        self._flush()

    def _flush(self) -> None:
        parts, self.connection.outgoing[:] = self.connection.outgoing[:], []
        self.wire.socket.sendall(b"".join(parts))

    def send(self, data: bytes) -> None:
        """See `Client`."""
        self.connection.send(self.streams["stdin"], data)
        self._flush()

    def end_input(self) -> None:
        """See `Client`."""
        self.connection.send(self.streams["stdin"], b"", last=True)
        self._flush()

    def resize(self, rows: int, columns: int) -> None:
        """See `Client`."""
        self.connection.send(self.streams["resize"], json.dumps({"Width": columns, "Height": rows}).encode())
        self._flush()

    def pump(self) -> bool:
        """See `Client`."""
        data = self.wire.receive()
        for event in self.connection.receive(data) if data else ():
            if isinstance(event, spdy.Received):
                self.took(self.names[event.stream], event.data)
            elif isinstance(event, spdy.WasReset):
                self.refused.append(self.names[event.stream])
        return bool(data)


class WebSocketClient(Client):
    """The same by WebSocket."""

    def __init__(self, url: str, *, wanted: str = "", protocol: str = "v5.channel.k8s.io") -> None:
        """wanted: the server knows."""
        super().__init__()
        del wanted
        sock = dial(url)
        sock.sendall(websocket_head(url, *([protocol] if protocol else [])))
        self.head, rest = answer_of(sock)
        self.wire = Wire(sock, rest)
        self.connection = WebSocket(ConnectionType.CLIENT)
        self.in_text = "base64" in protocol
        self.messages = 0
        self._channel = -1

    def message(self, channel: int, data: bytes) -> None:
        """One message."""
        if self.in_text:
            event: Any = TextMessage(f"{channel}{base64.b64encode(data).decode()}")
        else:
            event = BytesMessage(bytes([channel]) + data)
        self.wire.socket.sendall(self.connection.send(event))

    def send(self, data: bytes) -> None:
        """See `Client`."""
        self.message(0, data)

    def end_input(self) -> None:
        """See `Client`; only version 5 has it."""
        self.message(255, b"\0")

    def resize(self, rows: int, columns: int) -> None:
        """See `Client`."""
        self.message(4, json.dumps({"Width": columns, "Height": rows}).encode())

    def took_number(self, channel: int, data: bytes) -> None:
        """The same by the channel's number."""
        self.took(("stdout", "stderr", "error")[channel - 1], data)

    def ping(self) -> None:
        """Ask for a pong."""
        self.wire.socket.sendall(self.connection.send(Ping(b"hello")))

    def pump(self) -> bool:
        """See `Client`."""
        data = self.wire.receive()
        if data:
            self.connection.receive_data(data)
        for event in self.connection.events() if data else ():
            if isinstance(event, TextMessage):
                self.messages += 1
                self.took_number(int(event.data[0]), base64.b64decode(event.data[1:]))
            elif isinstance(event, BytesMessage):
                part = bytes(event.data)
                if self._channel < 0:
                    self._channel, part = part[0], part[1:]
                    self.messages += 1
                self.took_number(self._channel, part)
                if event.message_finished:
                    self._channel = -1
            elif isinstance(event, CloseConnection):
                self.wire.socket.sendall(self.connection.send(event.response()))
                return False
        return bool(data)


class ForwardClient:
    """Of port-forward by SPDY, or SPDY in a WebSocket. A connection is named by its stream for data."""

    def __init__(self, url: str, *, tunnel: bool = False) -> None:
        sock = dial(url)
        protocol = "SPDY/3.1+portforward.k8s.io" if tunnel else "portforward.k8s.io"
        sock.sendall(websocket_head(url, protocol) if tunnel else spdy_head(url, protocol))
        self.head, rest = answer_of(sock)
        self.wire = Wire(sock, rest)
        self.connection = spdy.Connection(server=False)
        self.tunnel = WebSocket(ConnectionType.CLIENT) if tunnel else None
        self.came: dict[int, bytearray] = {}
        self.errors: dict[int, int] = {}  # by connection
        self.ended: set[int] = set()
        self.refused: set[int] = set()
        self._requests = 0

    def open_stream(self, headers: dict[str, str]) -> int:
        """Any stream."""
        stream = self.connection.open(headers)
        self.came[stream] = bytearray()
        self._flush()
        return stream

    def open(self, port: int) -> int:
        """A connection."""
        self._requests += 1
        headers = {"port": str(port), "requestid": str(self._requests)}
        error = self.open_stream({"streamtype": "error", **headers})
        self.connection.send(error, b"", last=True)
        key = self.open_stream({"streamtype": "data", **headers})
        self.errors[key] = error
        return key

    def _flush(self) -> None:
        parts, self.connection.outgoing[:] = self.connection.outgoing[:], []
        data = b"".join(parts)
        if data:
            self.wire.socket.sendall(data if self.tunnel is None else self.tunnel.send(BytesMessage(data)))

    def send(self, key: int, data: bytes, *, last: bool = False) -> None:
        """Bytes for the port."""
        self.connection.send(key, data, last=last)
        self._flush()

    def pump(self) -> bool:
        """Take what comes next; whether there will be more."""
        data = self.wire.receive()
        if not data:
            return False
        if self.tunnel is not None:
            self.tunnel.receive_data(data)
            data = b"".join(bytes(event.data) for event in self.tunnel.events() if isinstance(event, BytesMessage))
        for event in self.connection.receive(data):
            if isinstance(event, spdy.Received):
                self.came[event.stream] += event.data
                if event.last:
                    self.ended.add(event.stream)
            elif isinstance(event, spdy.WasReset):
                self.refused.add(event.stream)
        return True

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to have come."""
        while not condition():
            assert self.pump() or condition(), "the server went away"

    def until_end(self, key: int) -> None:
        """Wait for the end of a connection."""
        self.until(lambda: {key, self.errors[key]} <= self.ended)

    def until_refused(self, stream: int) -> None:
        """Wait for a stream to be given up."""
        self.until(lambda: stream in self.refused)

    def failure(self, key: int) -> str:
        """What went wrong with a connection; "" if nothing did."""
        return bytes(self.came[self.errors[key]]).decode()

    def close(self) -> None:
        """Go."""
        self.wire.close()


class OldForwardClient:
    """The channels of port-forward by WebSocket before there was a tunnel. came: bytes by channel."""

    def __init__(self, url: str, protocol: str) -> None:
        self._client = WebSocketClient(url, protocol=protocol)
        self.came: dict[int, bytearray] = {number: bytearray() for number in range(16)}
        self._client.took_number = self._take  # type: ignore[method-assign]

    def _take(self, channel: int, data: bytes) -> None:
        self.came[channel] += data

    def send(self, channel: int, data: bytes) -> None:
        """Bytes of a channel."""
        self._client.message(channel, data)

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to have come."""
        while not condition():
            assert self._client.pump() or condition(), f"the server went away: {self.came}"

    def close(self) -> None:
        """Go."""
        self._client.close()
