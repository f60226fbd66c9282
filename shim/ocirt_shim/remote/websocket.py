"""A WebSocket after its handshake (RFC 6455, section 5), as a server has it: messages in, in parts; messages out. No I/O.

Not by wsproto, which the tests hold it against: what that loads (enum, dataclasses, re, …) costs each shim a quarter of a MiB, as
whatever the zygote has loaded leaves it with pages to copy.
"""

from __future__ import annotations

from _struct import Struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from ocirt_shim.remote import FaultError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _RESERVED, _OPCODE, _CONTROL = 0x80, 0x70, 0x0F, 0x08
_MASKED, _LENGTH = 0x80, 0x7F
_IN_16_BITS, _IN_64_BITS = 126, 127
_U16, _U64 = Struct(">H"), Struct(">Q")
_KEY = 4  # bytes
_LARGEST_CONTROL = 125  # bytes
_NORMAL, _FAULT = 1000, 1002
_LARGEST_TEXT = 1 << 20  # bytes of a message in base64, which is not read in parts
_NO_CHANNEL = -1


class WebSocket:
    """What is to be sent is in `outgoing`, in order: whoever sends it takes it out."""

    def __init__(self) -> None:
        self.outgoing: list[bytes] = []
        self.is_closed = False  # the client has said that it goes
        self._came = b""
        self._message = _CONTINUATION  # the kind of the message that has begun; else this
        self._kind = _CONTINUATION  # of the frame whose payload comes
        self._last = False
        self._left = -1  # bytes of its payload; -1: no frame has begun
        self._key = b""
        self._control = b""
        self._has_closed = False

    def receive(self, data: bytes) -> Iterator[tuple[bytes, bool, bool]]:
        """Parts of messages: (bytes, whether they are text, whether the message ends). Raises FaultError."""
        came = self._came + data if self._came else data
        at = 0
        try:
            while not self.is_closed:
                if self._left < 0:
                    size = self._begin(came, at)
                    if not size:
                        break
                    at += size
                part = came[at : at + self._left]
                if not part and self._left:
                    break
                at += len(part)
                self._left -= len(part)
                part, self._key = _unmasked(part, self._key)
                if self._kind & _CONTROL:
                    self._take_control(part)
                else:
                    yield self._take(part)
                if not self._left:
                    self._left = -1
        except FaultError:
            self._close(_FAULT)
            raise
        self._came = came[at:]

    def _begin(self, came: bytes, at: int) -> int:
        """A frame's head: how long it is, 0 if it is not whole."""
        if len(came) - at < 2:
            return 0
        first, second = came[at], came[at + 1]
        kind, last, length = first & _OPCODE, bool(first & _FIN), second & _LENGTH
        if first & _RESERVED or kind not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            raise FaultError(f"a frame that begins with {first:#04x}")
        if not second & _MASKED:
            raise FaultError("a frame of a client has to be masked")
        size = 2
        for code, form, least in ((_IN_16_BITS, _U16, _IN_16_BITS), (_IN_64_BITS, _U64, 1 << 16)):
            if second & _LENGTH == code:
                if len(came) - at < size + form.size:
                    return 0
                (length,) = form.unpack_from(came, at + size)
                size += form.size
                if length < least or length >> 63:
                    raise FaultError(f"a frame whose length is given as {length}")
        if kind & _CONTROL:
            if not last or length > _LARGEST_CONTROL:
                raise FaultError("a control frame in parts, or a long one")
        elif (kind == _CONTINUATION) != (self._message != _CONTINUATION):
            raise FaultError("a message within another" if kind else "the rest of no message")
        if len(came) - at < size + _KEY:
            return 0
        self._key = came[at + size : at + size + _KEY]
        self._kind, self._last, self._left, self._control = kind, last, length, b""
        if kind in (_TEXT, _BINARY):
            self._message = kind
        return size + _KEY

    def _take(self, part: bytes) -> tuple[bytes, bool, bool]:
        message = self._message
        last = self._last and not self._left
        if last:
            self._message = _CONTINUATION
        return part, message == _TEXT, last

    def _take_control(self, part: bytes) -> None:
        self._control += part
        if self._left:
            return
        if self._kind == _PING:
            self._frame(_PONG, self._control)
        elif self._kind == _CLOSE:
            if len(self._control) == 1:
                raise FaultError("half of a reason to close")
            self.is_closed = True
            if not self._has_closed:
                self._frame(_CLOSE, self._control[:2])

    def send(self, data: bytes, *, text: bool = False) -> None:
        """A message. Nothing if the connection is closed."""
        if not self.is_closed and not self._has_closed:
            self._frame(_TEXT if text else _BINARY, data)

    def close(self) -> None:
        """Say that we go."""
        self._close(_NORMAL)

    def _close(self, code: int) -> None:
        if not self.is_closed and not self._has_closed:
            self._has_closed = True
            self._frame(_CLOSE, _U16.pack(code))

    def _frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < _IN_16_BITS:
            head = bytes((_FIN | kind, size))
        elif size < 1 << 16:
            head = bytes((_FIN | kind, _IN_16_BITS)) + _U16.pack(size)
        else:
            head = bytes((_FIN | kind, _IN_64_BITS)) + _U64.pack(size)
        self.outgoing += [head, data] if data else [head]


def _unmasked(data: bytes, key: bytes) -> tuple[bytes, bytes]:
    """Bytes without their mask, and the key for those that come next (section 5.3). As one number, as loops are slow."""
    size = len(data)
    if not size:
        return b"", key
    mask = (key * (size // _KEY + 1))[:size]
    plain = (int.from_bytes(data, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
    turn = size % _KEY
    return plain, key[turn:] + key[:turn]


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
            channel, found = int(text[:1]), a2b_base64(text[1:], strict_mode=True)
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
