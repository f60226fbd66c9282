"""One side of the connection between a runtime and a plugin, without I/O: calls both ways over its channels.

    link = Link(serves=RUNTIME, calls=PLUGIN)
    for event in link.receive(socket.recv(65536)):
        if isinstance(event, RequestReceived):
            socket.sendall(link.respond(event.stream, answer(event.request)))

What comes back is bytes to be sent, always: nothing is kept here that the caller has to fetch.
"""

from __future__ import annotations

from ocirt_api import status
from ocirt_api.nri.mux import Channels, split
from ocirt_api.ttrpc import Client, Refused, RequestReceived, ResponseReceived, Server, StateError, TooLargeError

Event = RequestReceived | ResponseReceived | Refused


class Link:
    """`serves`, `calls`: the channels on which this side answers, and asks; the other side has them the other way round."""

    def __init__(self, *, serves: int, calls: int) -> None:
        self._serves = serves
        self._calls = calls
        self._channels = Channels((serves, calls))
        self._client = Client()
        self._server = Server()

    def request(self, service: str, method: str, payload: bytes, *, timeout: int = 0) -> tuple[int, bytes]:
        """Call a method: the call's number, and what is to be sent. `timeout`: nanoseconds, 0 for none. Raises TooLargeError."""
        stream, sent = self._client.request(service, method, payload, timeout=timeout)
        return stream, split(self._calls, sent)

    def forget(self, stream: int) -> None:
        """Nobody waits for this call any more."""
        self._client.forget(stream)

    def respond(self, stream: int, payload: bytes = b"", *, code: int = status.OK, text: str = "") -> bytes:
        """What answers a call of the other side's: with a message, or with a code that is not OK. b"" if the call is over."""
        try:
            sent = self._server.respond(stream, payload, code=code, text=text)
        except TooLargeError as err:
            sent = self._server.respond(stream, code=status.RESOURCE_EXHAUSTED, text=str(err))
        except StateError:
            return b""  # it broke a rule after its call, and was told so
        return split(self._serves, sent)

    def receive(self, data: bytes) -> list[Event]:
        """What the other side has done. A Refused event's answer is to be sent as it is. Raises ProtocolError."""
        found: list[Event] = []
        for channel, part in self._channels.receive(data):
            if channel == self._calls:
                found += [event for event in self._client.receive(part) if isinstance(event, ResponseReceived)]
                continue
            for event in self._server.receive(part):
                if isinstance(event, Refused):
                    event.answer = split(self._serves, event.answer)
                if isinstance(event, RequestReceived | Refused):  # NRI has no streams: their data is for nobody
                    found.append(event)
        return found
