"""Events on their way to containerd: one after the other, again until containerd has taken them, also over its restart."""

from __future__ import annotations

import _socket
from time import time_ns

from ocirt_api.messages import events
from ocirt_api.messages.google import Any, Timestamp
from ocirt_api.ttrpc import Client, ProtocolError, ResponseReceived
from ocirt_shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_api.message import Message
    from ocirt_shim.loop import Loop
    from ocirt_shim.task.journal import Journal

LIMIT = 2048  # events that wait; what comes after them is lost
_SECOND = 1_000_000_000  # nanoseconds
_FIRST, _LONGEST = _SECOND // 20, 2 * _SECOND  # between two attempts
_PATIENCE = 5 * _SECOND  # for an answer
_REFUSALS = 5  # of one event by a containerd that answers, and then it is dropped
_CHUNK = 1 << 16
_METADATA = "containerd-namespace-ttrpc"


class Publisher:
    """Sends to the ttrpc socket at `address` ("unix://PATH", or the path alone); "": there is nobody to tell."""

    def __init__(self, loop: Loop, address: str, namespace: str, journal: Journal) -> None:
        self._loop = loop
        self._path = address.removeprefix("unix://")
        self._namespace = namespace
        self._journal = journal
        self._queue: list[tuple[str, bytes]] = []
        self._socket: _socket.socket | None = None
        self._client = Client()
        self._out = b""
        self._stream = 0  # of the event on its way, the first of the queue; 0: none is
        self._refused = 0  # how often
        self._pause = _FIRST
        self._timer: object = None
        self._then: Callable[[], object] | None = None

    def publish(self, event: Message) -> None:
        """Send an event, some time. Never waits."""
        if not self._path:
            return
        topic = events.TOPICS[type(event)]
        if len(self._queue) >= LIMIT:
            self._journal.say("error", f"too many events wait for containerd: {topic} is lost")
            return
        envelope = events.Envelope(timestamp=Timestamp.of(time_ns()), namespace=self._namespace, topic=topic, event=Any.of(event))
        self._queue.append((topic, events.ForwardRequest(envelope=envelope).encode()))
        if len(self._queue) == 1 and self._timer is None:
            self._send()

    def finish(self, patience: int, then: Callable[[], object]) -> None:
        """Call `then` when all events were taken, or after so many nanoseconds."""

        def once() -> None:
            if self._then is not None:
                self._then = None
                self._close()
                then()

        self._then = once
        if self._queue:
            self._loop.after(patience, once)
        else:
            once()

    def _send(self) -> None:
        """Begin with the first of the queue."""
        self._timer = None
        if not self._queue or self._stream:
            return
        try:
            if self._socket is None:
                self._connect()
        except OSError as err:
            self._journal.say("debug", f"containerd cannot be told of {self._queue[0][0]} yet: {err.strerror}")
            self._again()
            return
        self._stream, data = self._client.request(
            *events.FORWARD, self._queue[0][1], timeout=_PATIENCE, metadata=[(_METADATA, self._namespace)]
        )
        self._out += data
        self._timer = self._loop.after(_PATIENCE, self._lose)
        self._flush()

    def _connect(self) -> None:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        self._socket, self._client, self._out = sock, Client(), b""
        self._loop.add(sock.fileno(), self._move)

    def _flush(self) -> None:
        sock = self._socket
        assert sock is not None
        try:
            while self._out:
                self._out = self._out[sock.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._lose()
            return
        self._loop.change(sock.fileno(), READ | WRITE if self._out else READ)

    def _move(self) -> None:
        if self._out:
            self._flush()
        while self._socket is not None:
            try:
                data = self._socket.recv(_CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            try:
                answers = self._client.receive(data) if data else []
            except ProtocolError:
                data = b""
            if not data:
                self._lose()
                return
            for answer in answers:
                if isinstance(answer, ResponseReceived) and answer.stream == self._stream:
                    self._answered(answer)

    def _answered(self, answer: ResponseReceived) -> None:
        self._stream = 0
        self._loop.cancel(self._timer)
        self._timer = None
        if answer.status.code:
            self._refused += 1
            text = f"containerd does not take {self._queue[0][0]}: {answer.status.message}"
            self._journal.say("warning", text)
            if self._refused < _REFUSALS:
                self._again()
                return
        self._refused, self._pause = 0, _FIRST
        self._queue.pop(0)
        if self._queue:
            self._send()
        elif self._then is not None:
            self._then()

    def _lose(self) -> None:
        """The connection is of no use any more."""
        self._close()
        if self._queue:
            self._again()

    def _close(self) -> None:
        self._loop.cancel(self._timer)
        self._timer, self._stream = None, 0
        if self._socket is not None:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _again(self) -> None:
        self._loop.cancel(self._timer)
        self._timer = self._loop.after(self._pause, self._send)
        self._pause = min(2 * self._pause, _LONGEST)
