"""The head of a request at the stream port, however it is cut (no I/O)."""

from __future__ import annotations

import h11

from ocirt_cri.streams.upgrade import Refused
from ocirt_shim.remote import ATTACH, EXEC, PORT_FORWARD

LARGEST = 1 << 16  # bytes
_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    426: "Upgrade Required",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
}


class Head:
    """A request, once `feed` says that it is whole. rest: what came after it."""

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST)
        self._request: h11.Request | None = None
        self.rest = b""

    def feed(self, data: bytes) -> bool:
        """Take bytes; b"" is the end. Raises Refused."""
        try:
            self._connection.receive_data(data)
            while True:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    return False
                if isinstance(event, h11.Request):
                    self._request = event
                elif isinstance(event, h11.Data):
                    raise Refused(400, "a body is not expected")
                elif isinstance(event, h11.EndOfMessage):
                    self.rest = self._connection.trailing_data[0]
                    return True
                else:
                    raise Refused(400, "the request is not whole")
        except h11.RemoteProtocolError as err:
            raise Refused(err.error_status_hint, str(err)) from None

    @property
    def method(self) -> str:
        """GET or another."""
        assert self._request is not None
        return self._request.method.decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names in lower case."""
        assert self._request is not None
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._request.headers]

    def route(self) -> tuple[str, str]:
        """(kind, token) of /KIND/TOKEN. Raises Refused."""
        assert self._request is not None
        path = self._request.target.decode("latin-1").partition("?")[0]
        _, kind, token, *more = [*path.split("/"), "", ""]
        if kind not in (EXEC, ATTACH, PORT_FORWARD) or not token or any(more):
            raise Refused(404, "there is nothing at this path")
        return kind, token


def refusal(why: Refused) -> bytes:
    """The answer to who is refused."""
    text = f"{why.text}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(text))),
        ("Connection", "close"),
        *why.headers,
    ]
    lines = [f"HTTP/1.1 {why.status} {_REASONS.get(why.status, 'Refused')}", *(f"{name}: {value}" for name, value in headers)]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + text
