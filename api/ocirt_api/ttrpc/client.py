"""The side that calls. It owns no socket: what is received goes in, events come out; what is to be sent is returned."""

from __future__ import annotations

from ocirt_api import status
from ocirt_api.ttrpc import frames, states
from ocirt_api.ttrpc.envelope import KeyValue, Request, Response, Status
from ocirt_api.ttrpc.events import DataReceived, ResponseReceived
from ocirt_api.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, REQUEST, RESPONSE, Frame, FrameReader
from ocirt_api.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    ClientEvent = ResponseReceived | DataReceived

_FLAGS = {states.UNARY: 0, states.HALF: REMOTE_CLOSED, states.OPEN: REMOTE_OPEN}
_LAST_STREAM = (1 << 32) - 1


class Client:
    """One connection to a server."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._streams = states.Streams()
        self._next = 1

    @property
    def active(self) -> int:
        """How many calls are not over."""
        return len(self._streams)

    def request(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        *,
        timeout: int = 0,
        metadata: Iterable[tuple[str, str]] = (),
        kind: str = states.UNARY,
    ) -> tuple[int, bytes]:
        """Call a method: the number of the stream, and what is to be sent.

        `timeout`: nanoseconds, 0 for none. `kind`: UNARY; or a stream, OPEN if data of ours follows, HALF if not.
        Raises TooLargeError, and StateError when the connection has no number left.
        """
        stream = self._next
        if stream > _LAST_STREAM:
            raise states.StateError("this connection has had all its streams")
        pairs = [KeyValue(key=key, value=value) for key, value in metadata]
        request = Request(service=service, method=method, payload=payload, timeout_nano=timeout, metadata=pairs)
        sent = frames.encode(stream, REQUEST, _FLAGS[kind], request.encode())
        self._streams.begin(stream, kind)
        self._next += 2
        return stream, sent

    def send(self, stream: int, payload: bytes) -> bytes:
        """Send a message on an open stream. Raises TooLargeError, StateError."""
        sent = frames.encode(stream, DATA, 0, payload)
        self._streams.move(stream, states.CLIENT_DATA)
        return sent

    def finish(self, stream: int) -> bytes:
        """Send no more on an open stream; the answer may still come. Raises StateError."""
        # On its own: servers in Go refuse a last message that carries data.
        self._streams.move(stream, states.CLIENT_LAST)
        return frames.encode(stream, DATA, REMOTE_CLOSED | NO_DATA, b"")

    def forget(self, stream: int) -> None:
        """Nobody waits for this call any more. What still comes of it is dropped; the server is not told."""
        self._streams.forget(stream)

    def receive(self, data: bytes) -> list[ClientEvent]:
        """What the server has done by sending `data`. Raises ProtocolError: the connection is then to be closed."""
        found = [self._event(frame) for frame in self._reader.feed(data)]
        return [event for event in found if event is not None]

    def end(self) -> None:
        """The server has closed the connection. Raises ProtocolError if that was within a frame, or calls are not over."""
        self._reader.end()
        if self._streams:
            raise frames.ProtocolError(f"the connection ended, and {len(self._streams)} calls were not answered")

    def _event(self, frame: Frame) -> ClientEvent | None:
        stream = frame.stream
        if stream not in self._streams:
            return None  # forgotten
        if frame.data is None:
            return self._failed(stream, status.RESOURCE_EXHAUSTED, f"the answer has more than {frames.LIMIT} bytes")
        if frame.type == RESPONSE:
            return self._response(stream, frame.data)
        if frame.type == DATA:
            return self._data(stream, frame.flags, frame.data)
        return None  # a type of a later version

    def _response(self, stream: int, data: bytes) -> ResponseReceived:
        try:
            response = Response.decode(data)
        except DecodeError as error:
            return self._failed(stream, status.INTERNAL, str(error))
        self._streams.move(stream, states.RESPONSE)
        return ResponseReceived(stream, response.payload, response.status or Status())

    def _data(self, stream: int, flags: int, data: bytes) -> ClientEvent:
        last = bool(flags & REMOTE_CLOSED)
        sent = states.SERVER_LAST if last else states.SERVER_DATA
        if not self._streams.allows(stream, sent):
            return self._failed(stream, status.INTERNAL, "data came in the place of a response")
        self._streams.move(stream, sent)
        return DataReceived(stream, None if flags & NO_DATA else data, last=last)

    def _failed(self, stream: int, code: int, text: str) -> ResponseReceived:
        """End a call whose answer cannot be used."""
        self._streams.forget(stream)
        return ResponseReceived(stream, b"", Status(code=code, message=text))
