"""A WebSocket after its handshake (RFC 6455), as a server has it: messages in, in parts; messages out. No I/O."""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NORMAL, _FAULT = 1000, 1002
_LARGEST_TEXT = 1 << 20  # bytes of a message in base64, which is not read in parts
_NO_CHANNEL = -1


class FaultError(Exception):
    """The client does not speak WebSocket."""


class WebSocket:
    """What is to be sent is in `outgoing`, in order."""

    def __init__(self) -> None:
        self._connection = Connection(ConnectionType.SERVER)
        self.outgoing: list[bytes] = []
        self.is_closed = False  # the client has said that it goes

    def receive(self, data: bytes) -> Iterator[tuple[bytes, bool, bool]]:
        """Parts of messages: (bytes, whether they are text, whether the message ends). Raises FaultError."""
        if self.is_closed:
            return
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if isinstance(event, BytesMessage):
                    yield bytes(event.data), False, event.message_finished
                elif isinstance(event, TextMessage):
                    yield event.data.encode(), True, event.message_finished
                elif isinstance(event, Ping):
                    self.outgoing.append(self._connection.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self.is_closed = True
                    self._say(event.response())
                    return
        except RemoteProtocolError as err:
            self._say(CloseConnection(code=_FAULT))
            raise FaultError(str(err)) from None

    def send(self, data: bytes, *, text: bool = False) -> None:
        """A message. Nothing if the connection is closed."""
        if not self.is_closed:
            self._say(TextMessage(data.decode()) if text else BytesMessage(data))

    def close(self) -> None:
        """Say that we go."""
        if not self.is_closed:
            self._say(CloseConnection(code=_NORMAL))

    def _say(self, event: BytesMessage | TextMessage | CloseConnection) -> None:
        try:
            self.outgoing.append(self._connection.send(event))
        except LocalProtocolError:
            pass  # it was closed already


class Channels:
    """Kubernetes' channels: the first byte of a message is the channel's number, or in text its digit, before base64."""

    def __init__(self, *, in_text: bool) -> None:
        self._socket = WebSocket()
        self.outgoing = self._socket.outgoing
        self._in_text = in_text
        self._channel = _NO_CHANNEL  # of the message that has begun
        self._text = b""

    @property
    def is_closed(self) -> bool:
        """Whether the client has said that it goes."""
        return self._socket.is_closed

    def receive(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Bytes of channels. Raises FaultError."""
        for part, is_text, last in self._socket.receive(data):
            if is_text != self._in_text:
                raise FaultError("a message in text, where the protocol has none" if is_text else "a message that is no text")
            yield from self._decode(part, last=last) if is_text else self._split(part, last=last)

    def _split(self, part: bytes, *, last: bool) -> Iterator[tuple[int, bytes]]:
        if part and self._channel == _NO_CHANNEL:
            self._channel, part = part[0], part[1:]
        channel = self._channel
        if last:
            self._channel = _NO_CHANNEL
        if part:
            yield channel, part

    def _decode(self, part: bytes, *, last: bool) -> Iterator[tuple[int, bytes]]:
        self._text += part
        if len(self._text) > _LARGEST_TEXT:
            raise FaultError(f"a message of more than {_LARGEST_TEXT} bytes")
        if not last:
            return
        text, self._text = self._text, b""
        if not text:
            return
        try:
            channel, found = int(text[:1]), a2b_base64(text[1:])
        except (ValueError, Base64Error) as err:
            raise FaultError(f"a message that is not a digit and base64: {err}") from None
        yield channel, found

    def send(self, channel: int, data: bytes) -> None:
        """A message."""
        if self._in_text:
            self._socket.send(str(channel).encode() + b2a_base64(data, newline=False), text=True)
        else:
            self._socket.send(bytes([channel]) + data)

    def close(self) -> None:
        """Say that we go."""
        self._socket.close()
