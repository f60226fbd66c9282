"""What happened on a connection. `stream` is the number of the call."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_api.ttrpc.envelope import Request, Status


class _Event:
    """Equal if all its attributes are."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class RequestReceived(_Event):
    """A call has come in. `kind`: UNARY, or a stream that is OPEN for the client to send, or is HALF closed by it."""

    __slots__ = ("kind", "request", "stream")

    def __init__(self, stream: int, request: Request, kind: str) -> None:
        self.stream = stream
        self.request = request
        self.kind = kind


class DataReceived(_Event):
    """A message of a stream, None if there is none; `last`: the peer sends no more on it."""

    __slots__ = ("last", "payload", "stream")

    def __init__(self, stream: int, payload: bytes | None, *, last: bool) -> None:
        self.stream = stream
        self.payload = payload
        self.last = last


class ResponseReceived(_Event):
    """A call has ended: with its answer, or with a status whose code is not OK."""

    __slots__ = ("payload", "status", "stream")

    def __init__(self, stream: int, payload: bytes, status: Status) -> None:
        self.stream = stream
        self.payload = payload
        self.status = status


class Refused(_Event):
    """The client broke a rule on one stream. `answer` has to be sent; the connection goes on. An open stream is over."""

    __slots__ = ("answer", "status", "stream")

    def __init__(self, stream: int, status: Status, answer: bytes) -> None:
        self.stream = stream
        self.status = status
        self.answer = answer
