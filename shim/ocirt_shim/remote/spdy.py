"""SPDY/3.1 without I/O: bytes in, events out; both sides (draft-mbelshe-httpbis-spdy-00; facts of the peers: moby/spdystream).

Nobody who speaks it to a kubelet keeps to windows, so WINDOW_UPDATE is neither sent nor heeded, as is SETTINGS.
"""

from __future__ import annotations

from _struct import Struct
from zlib import Z_SYNC_FLUSH, compressobj, decompressobj
from zlib import error as ZlibError

from ocirt_shim.remote import FaultError
from ocirt_shim.remote.spdywords import DICTIONARY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Headers = Mapping[str, str]

VERSION = 3
LARGEST = (1 << 24) - 1  # bytes of a frame
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN, _UNIDIRECTIONAL = 1, 2
_CONTROL = 1 << 31
_ID = _CONTROL - 1
_HEAD = Struct(">II")
_NUMBER = Struct(">I")
_PAIR = Struct(">II")
_LARGEST_CONTROL = 1 << 16  # bytes; a head of HTTP, which none of ours comes near
_LARGEST_HEADERS = 1 << 18  # the same, inflated
_MOST_STREAMS = 1 << 12
_CLOSED = (False, False)


class ProtocolError(FaultError):
    """The peer does not speak SPDY/3. The connection is of no use any more."""


class Event:
    """What a peer did on `stream`."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __repr__(self) -> str:
        names = [name for kind in reversed(type(self).__mro__) for name in getattr(kind, "__slots__", ())]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]


class HeadersReceived(Event):
    """Headers came; `last`: nothing else will on this stream. Names are in lower case."""

    __slots__ = ("headers", "last")

    def __init__(self, stream: int, headers: Headers, *, last: bool) -> None:
        super().__init__(stream)
        self.headers = headers
        self.last = last


class Opened(HeadersReceived):
    """The peer has opened a stream."""

    __slots__ = ()


class Replied(HeadersReceived):
    """The peer has accepted a stream."""

    __slots__ = ()


class Received(Event):
    """Bytes came; `last`: no more will on this stream. A frame may come in parts."""

    __slots__ = ("data", "last")

    def __init__(self, stream: int, data: bytes, *, last: bool) -> None:
        super().__init__(stream)
        self.data = data
        self.last = last


class WasReset(Event):
    """The peer has given up a stream, both ways. It may never have been opened."""

    __slots__ = ("status",)

    def __init__(self, stream: int, status: int) -> None:
        super().__init__(stream)
        self.status = status


class WentAway(Event):
    """The peer opens no more streams; `stream` is the last of ours that it looked at."""

    __slots__ = ()


class Connection:
    """One side. What is to be sent is in `outgoing`, in order: whoever sends it takes it out.

    server: the side whose streams have even numbers.
    """

    def __init__(self, *, server: bool) -> None:
        self.outgoing: list[bytes] = []
        self._mine = 2 if server else 1  # the next stream of ours
        self._theirs = 0  # the last one of the peer's
        self._parity = 1 if server else 0  # of the peer's numbers
        self._came = b""  # less than a head, or a control frame that is not whole
        self._left = 0  # bytes of a data frame that has begun
        self._frame = (0, False)  # its stream, and whether it is the last one
        # Streams, by whether (we, the peer) may still send on them.
        self._open: dict[int, tuple[bool, bool]] = {}
        self._deflate = compressobj(zdict=DICTIONARY)
        self._inflate = decompressobj(zdict=DICTIONARY)

    # -- what we do --

    def open(self, headers: Headers, *, last: bool = False) -> int:
        """Open a stream: its number."""
        stream, self._mine = self._mine, self._mine + 2
        self._open[stream] = (not last, True)
        self._control(_SYN_STREAM, _FIN if last else 0, _PAIR.pack(stream, 0) + b"\0\0" + self._pack(headers))
        return stream

    def reply(self, stream: int, headers: Headers | None = None, *, last: bool = False) -> None:
        """Accept a stream of the peer's."""
        self._control(_SYN_REPLY, _FIN if last else 0, _NUMBER.pack(stream) + self._pack(headers or {}))
        if last:
            self._sent_last(stream)

    def send(self, stream: int, data: bytes, *, last: bool = False) -> None:
        """Send bytes; `last`: and no more on this stream. Nothing on one on which we may not send (it was reset)."""
        if not self._open.get(stream, _CLOSED)[0]:
            return
        while len(data) > LARGEST:
            self.outgoing += [_HEAD.pack(stream, LARGEST), data[:LARGEST]]
            data = data[LARGEST:]
        self.outgoing.append(_HEAD.pack(stream, (_FIN << 24 if last else 0) | len(data)))
        if data:
            self.outgoing.append(data)
        if last:
            self._sent_last(stream)

    def reset(self, stream: int, status: int = CANCEL) -> None:
        """Give up a stream, both ways."""
        self._open.pop(stream, None)
        self._control(_RST_STREAM, 0, _PAIR.pack(stream, status))

    def ping(self, number: int) -> None:
        """Ask for an answer. The number has the parity of our streams."""
        self._control(_PING, 0, _NUMBER.pack(number))

    def go_away(self, status: int = 0) -> None:
        """Say that we look at no new streams. status: 0, or 1 for a fault of the peer's."""
        self._control(_GOAWAY, 0, _PAIR.pack(self._theirs, status))

    # -- what the peer does --

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the connection, however they are cut. Raises ProtocolError, and then takes no more."""
        events: list[Event] = []
        came = self._came + data if self._came else data
        at = 0
        while True:
            if self._left:
                part = came[at : at + self._left]
                if not part:
                    break
                at += len(part)
                self._left -= len(part)
                self._data(events, part)
                continue
            if len(came) - at < _HEAD.size:
                break
            first, second = _HEAD.unpack_from(came, at)
            size, flags = second & LARGEST, second >> 24
            if not first & _CONTROL:
                at += _HEAD.size
                self._frame = first, bool(flags & _FIN)
                self._left = size
                if not size:
                    self._data(events, b"")
                continue
            if first >> 16 != 0x8000 | VERSION:
                raise ProtocolError(f"version {first >> 16 & 0x7FFF}, not {VERSION}")
            if size > _LARGEST_CONTROL:
                raise ProtocolError(f"a control frame of {size} bytes")
            if len(came) - at < _HEAD.size + size:
                break
            self._take(events, first & 0xFFFF, flags, came[at + _HEAD.size : at + _HEAD.size + size])
            at += _HEAD.size + size
        self._came = came[at:]
        return events

    def _data(self, events: list[Event], part: bytes) -> None:
        stream, fin = self._frame
        last = fin and not self._left
        if not self._open.get(stream, _CLOSED)[1]:
            if not self._left and not self._was(stream):
                self.reset(stream, INVALID_STREAM)
            return  # what was on its way when the stream was given up
        if last:
            self._got_last(stream)
        if part or last:
            events.append(Received(stream, part, last=last))

    def _take(self, events: list[Event], kind: int, flags: int, body: bytes) -> None:
        if kind in (_SETTINGS, _WINDOW_UPDATE):
            return
        least = {_SYN_STREAM: 10, _SYN_REPLY: 4, _RST_STREAM: 8, _PING: 4, _GOAWAY: 8, _HEADERS: 4}.get(kind)
        if least is None:
            return  # section 2.2.1: a control frame that one does not know is passed over
        if len(body) < least:
            raise ProtocolError(f"a control frame of type {kind} with {len(body)} bytes")
        number = _NUMBER.unpack_from(body)[0] & _ID
        last = bool(flags & _FIN)
        if kind == _SYN_STREAM:
            headers = self._unpack(body[10:])
            self._begin(number, last=last, silent=bool(flags & _UNIDIRECTIONAL))
            events.append(Opened(number, headers, last=last))
        elif kind in (_SYN_REPLY, _HEADERS):
            headers = self._unpack(body[4:])
            if number not in self._open:
                return
            if last:
                self._got_last(number)
            events.append((Replied if kind == _SYN_REPLY else HeadersReceived)(number, headers, last=last))
        elif kind == _RST_STREAM:
            self._open.pop(number, None)
            events.append(WasReset(number, _NUMBER.unpack_from(body, 4)[0]))
        elif kind == _PING:
            if number % 2 == self._parity:
                self._control(_PING, 0, body[:4])
        else:
            events.append(WentAway(number))

    def _begin(self, stream: int, *, last: bool, silent: bool) -> None:
        if stream % 2 != self._parity or stream <= self._theirs:
            raise ProtocolError(f"stream {stream} after {self._theirs}")
        if len(self._open) >= _MOST_STREAMS:
            raise ProtocolError(f"more than {_MOST_STREAMS} streams at once")
        self._theirs = stream
        if not (last and silent):
            self._open[stream] = (not silent, not last)

    def _was(self, stream: int) -> bool:
        """Whether there ever was such a stream."""
        return 0 < stream <= self._theirs if stream % 2 == self._parity else 0 < stream < self._mine

    def _sent_last(self, stream: int) -> None:
        self._keep(stream, (False, self._open.get(stream, _CLOSED)[1]))

    def _got_last(self, stream: int) -> None:
        self._keep(stream, (self._open.get(stream, _CLOSED)[0], False))

    def _keep(self, stream: int, state: tuple[bool, bool]) -> None:
        if any(state):
            self._open[stream] = state
        else:
            self._open.pop(stream, None)

    # -- frames --

    def _control(self, kind: int, flags: int, body: bytes) -> None:
        self.outgoing.append(_HEAD.pack(_CONTROL | VERSION << 16 | kind, flags << 24 | len(body)) + body)

    def _pack(self, headers: Headers) -> bytes:
        parts = [_NUMBER.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += [_NUMBER.pack(len(text)), text]
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(Z_SYNC_FLUSH)

    def _unpack(self, body: bytes) -> Headers:
        try:
            data = self._inflate.decompress(body, _LARGEST_HEADERS)
        except ZlibError as err:
            raise ProtocolError(f"headers that cannot be inflated: {err}") from None
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise ProtocolError("headers that are too large, or end the compression")
        found: dict[str, str] = {}
        try:
            texts = _texts(data)
            for name, value in zip(texts, texts, strict=True):
                found[name.lower()] = value
        except ValueError as err:
            raise ProtocolError(f"headers that cannot be read: {err}") from None
        return found


def _texts(data: bytes) -> Iterable[str]:
    """Names and values in turn. Raises ValueError."""
    size = _NUMBER.size
    if len(data) < size:
        raise ValueError("they end too early")
    at = size
    for _ in range(2 * _NUMBER.unpack_from(data)[0]):
        if len(data) < at + size:
            raise ValueError("they end too early")
        length = _NUMBER.unpack_from(data, at)[0]
        at += size
        if len(data) < at + length:
            raise ValueError("one of them is too long")
        yield data[at : at + length].decode()
        at += length
    if at != len(data):
        raise ValueError("something comes after them")
