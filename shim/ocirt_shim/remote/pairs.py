"""The connections of a port-forward, whatever carries them (no I/O): a port, bytes both ways, ends, a text if it fails."""

from __future__ import annotations

from ocirt_shim.remote import FaultError, spdy, websocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Listener(Protocol):
        """What a client's words lead to; `key` names a connection."""

        def on_open(self, key: int, port: int) -> object:
            """One is wanted."""

        def on_data(self, key: int, data: bytes) -> object:
            """Bytes for it."""

        def on_end(self, key: int) -> object:
            """No more will come."""

        def on_reset(self, key: int) -> object:
            """It is not wanted any more."""

        def on_gone(self) -> object:
            """None is."""

    class Pairs(Protocol):
        """One client. Bytes that go to it are in `outgoing`."""

        outgoing: list[bytes]

        def begin(self) -> None:
            """The upgrade was answered."""

        def receive(self, data: bytes) -> None:
            """Bytes of the client. Raises FaultError."""

        def write(self, key: int, data: bytes) -> None:
            """Bytes of a connection."""

        def end(self, key: int, failure: str = "") -> None:
            """There are no more of them; or it failed."""

        def forget(self, key: int) -> None:
            """It is closed on both sides."""

        def close(self) -> None:
            """The last word."""


_MOST_PORT = 0xFFFF
_PORT = 2  # bytes
_ERROR, _DATA = "error", "data"


class OverSpdy:
    """A stream for data and one for errors, both opened by the client with the same header `requestid`; the key is the data's."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._connection = spdy.Connection(server=True)
        self.outgoing = self._connection.outgoing
        self._waiting: dict[str, dict[str, int]] = {}  # by request: the stream that is there
        self._errors: dict[int, int] = {}  # by key

    def begin(self) -> None:
        """The client opens its streams."""

    def receive(self, data: bytes) -> None:
        """See `Pairs`."""
        for event in self._connection.receive(data):
            if isinstance(event, spdy.Opened):
                self._open(event)
            elif event.stream not in self._errors:
                continue
            elif isinstance(event, spdy.Received):
                if event.data:
                    self._listener.on_data(event.stream, event.data)
                if event.last:
                    self._listener.on_end(event.stream)
            elif isinstance(event, spdy.WasReset):
                self._listener.on_reset(event.stream)

    def _open(self, event: spdy.Opened) -> None:
        kind = event.headers.get("streamtype", "")
        port = event.headers.get("port", "")
        # Clients of before there were ids open the stream of errors first, and that of data next.
        request = event.headers.get("requestid") or f"stream {event.stream if kind == _ERROR else event.stream - 2}"
        pair = self._waiting.setdefault(request, {})
        is_port = port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= _MOST_PORT
        if kind not in (_ERROR, _DATA) or kind in pair or not is_port:
            self._connection.reset(event.stream, spdy.REFUSED_STREAM)
            if not pair:
                del self._waiting[request]
            return
        self._connection.reply(event.stream)
        pair[kind] = event.stream
        if len(pair) == len((_ERROR, _DATA)):
            del self._waiting[request]
            key = pair[_DATA]
            self._errors[key] = pair[_ERROR]
            self._listener.on_open(key, int(port))

    def write(self, key: int, data: bytes) -> None:
        """See `Pairs`."""
        self._connection.send(key, data)

    def end(self, key: int, failure: str = "") -> None:
        """See `Pairs`. Bytes for it may come for longer."""
        if key in self._errors:
            self._connection.send(self._errors[key], failure.encode(), last=True)
        self._connection.send(key, b"", last=True)

    def forget(self, key: int) -> None:
        """See `Pairs`."""
        self._errors.pop(key, None)

    def close(self) -> None:
        """See `Pairs`."""
        self._connection.go_away()


class InTunnel:
    """SPDY whose bytes are the contents of a WebSocket's messages (KEP-4006)."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._socket = websocket.WebSocket()
        self.outgoing = self._socket.outgoing
        self._pairs = OverSpdy(listener)

    def begin(self) -> None:
        """The client opens its streams."""

    def receive(self, data: bytes) -> None:
        """See `Pairs`."""
        for part, is_text, _ in self._socket.receive(data):
            if is_text:
                raise FaultError("a message in text, where the protocol has none")
            self._pairs.receive(part)
        self._wrap()
        if self._socket.is_closed:
            self._listener.on_gone()

    def write(self, key: int, data: bytes) -> None:
        """See `Pairs`."""
        self._pairs.write(key, data)
        self._wrap()

    def end(self, key: int, failure: str = "") -> None:
        """See `Pairs`."""
        self._pairs.end(key, failure)
        self._wrap()

    def forget(self, key: int) -> None:
        """See `Pairs`."""
        self._pairs.forget(key)

    def close(self) -> None:
        """See `Pairs`."""
        self._pairs.close()
        self._wrap()
        self._socket.close()

    def _wrap(self) -> None:
        parts = self._pairs.outgoing
        if parts:
            self._socket.send(b"".join(parts))
            parts.clear()


class OverWebSocket:
    """Before there was a tunnel: ports that were named before, and two channels for each, whose first message is its port."""

    def __init__(self, listener: Listener, protocol: str, ports: list[int]) -> None:
        self._listener = listener
        self._channels = websocket.Channels(in_text="base64" in protocol)
        self.outgoing = self._channels.outgoing
        self._ports = ports
        self._open = set(range(len(ports)))

    def begin(self) -> None:
        """Every port is connected to at once."""
        for number, port in enumerate(self._ports):
            for channel in (2 * number, 2 * number + 1):
                self._channels.send(channel, port.to_bytes(_PORT, "little"))
        for number, port in enumerate(self._ports):
            self._listener.on_open(number, port)

    def receive(self, data: bytes) -> None:
        """See `Pairs`."""
        for channel, part in self._channels.receive(data):
            number, is_error = divmod(channel, 2)
            if number in self._open and not is_error and part:
                self._listener.on_data(number, part)
        if self._channels.is_closed:
            self._listener.on_gone()

    def write(self, key: int, data: bytes) -> None:
        """See `Pairs`."""
        self._channels.send(2 * key, data)

    def end(self, key: int, failure: str = "") -> None:
        """See `Pairs`. The protocol has no end of one connection: the last one ends all."""
        self._open.discard(key)
        if failure:
            self._channels.send(2 * key + 1, failure.encode())
        if not self._open:
            self._channels.close()

    def forget(self, key: int) -> None:
        """See `Pairs`."""
        self._open.discard(key)

    def close(self) -> None:
        """See `Pairs`."""
        self._channels.close()
