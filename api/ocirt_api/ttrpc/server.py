"""The side that answers. It owns no socket: what is received goes in, events come out; what is to be sent is returned."""

from __future__ import annotations

from ocirt_api import status
from ocirt_api.ttrpc import frames, states
from ocirt_api.ttrpc.envelope import Request, Response, Status
from ocirt_api.ttrpc.events import DataReceived, Refused, RequestReceived
from ocirt_api.ttrpc.frames import DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, REQUEST, RESPONSE, Frame, FrameReader
from ocirt_api.wire import DecodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    ServerEvent = RequestReceived | DataReceived | Refused

_KINDS = {0: states.UNARY, REMOTE_CLOSED: states.HALF, REMOTE_OPEN: states.OPEN}


class Server:
    """One connection of a client."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._streams = states.Streams()
        self._newest = 0  # the number of the last request

    @property
    def active(self) -> int:
        """How many calls are not over."""
        return len(self._streams)

    def receive(self, data: bytes) -> list[ServerEvent]:
        """What the client has done by sending `data`. Raises ProtocolError: the connection is then to be closed."""
        found = [self._event(frame) for frame in self._reader.feed(data)]
        return [event for event in found if event is not None]

    def end(self) -> None:
        """The client has closed the connection. Raises ProtocolError if that was within a frame."""
        self._reader.end()

    def respond(self, stream: int, payload: bytes = b"", *, code: int = status.OK, text: str = "") -> bytes:
        """End a call: with an answer, or with a code that is not OK. Raises TooLargeError (the call goes on), StateError."""
        response = Response(payload=payload, status=Status(code=code, message=text) if code else None)
        sent = frames.encode(stream, RESPONSE, 0, response.encode())
        self._streams.move(stream, states.RESPONSE)
        return sent

    def send(self, stream: int, payload: bytes | None, *, last: bool = False) -> bytes:
        """Send a message on a stream; `last`: and end it. None: only end it. Raises TooLargeError, StateError."""
        sent = frames.encode(stream, DATA, last * REMOTE_CLOSED | (payload is None) * NO_DATA, payload or b"")
        self._streams.move(stream, states.SERVER_LAST if last else states.SERVER_DATA)
        return sent

    def forget(self, stream: int) -> None:
        """Nothing more will be sent on a stream, not even its end."""
        self._streams.forget(stream)

    def _event(self, frame: Frame) -> ServerEvent | None:
        if frame.data is None:
            return self._refuse(frame.stream, status.RESOURCE_EXHAUSTED, f"a message has at most {frames.LIMIT} bytes")
        if frame.stream % 2 != 1:
            return self._refuse(frame.stream, status.INVALID_ARGUMENT, "the streams of a client have odd numbers")
        if frame.type == REQUEST:
            return self._request(frame.stream, frame.flags, frame.data)
        if frame.type == DATA:
            return self._data(frame.stream, frame.flags, frame.data)
        return None  # a type of a later version

    def _request(self, stream: int, flags: int, data: bytes) -> RequestReceived | Refused:
        if stream <= self._newest:
            return self._refuse(stream, status.INVALID_ARGUMENT, "the number of a stream is above all before it")
        self._newest = stream
        kind = _KINDS.get(flags & (REMOTE_CLOSED | REMOTE_OPEN))
        if kind is None:
            return self._refuse(stream, status.INVALID_ARGUMENT, "a request is open or closed, not both")
        try:
            request = Request.decode(data)
        except DecodeError as error:
            return self._refuse(stream, status.INVALID_ARGUMENT, str(error))
        self._streams.begin(stream, kind)
        return RequestReceived(stream, request, kind)

    def _data(self, stream: int, flags: int, data: bytes) -> DataReceived | Refused:
        last = bool(flags & REMOTE_CLOSED)
        sent = states.CLIENT_LAST if last else states.CLIENT_DATA
        if not self._streams.allows(stream, sent):
            why = "no data may follow on this stream" if stream in self._streams else "this stream is no longer active"
            return self._refuse(stream, status.INVALID_ARGUMENT, why)
        self._streams.move(stream, sent)
        return DataReceived(stream, None if flags & NO_DATA else data, last=last)

    def _refuse(self, stream: int, code: int, text: str) -> Refused:
        self._streams.forget(stream)
        found = Status(code=code, message=text)
        return Refused(stream, found, frames.encode(stream, RESPONSE, 0, Response(status=found).encode()))
