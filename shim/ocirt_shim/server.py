"""The shim's socket: connections that speak ttrpc, and methods that answer at once or later."""

from __future__ import annotations

import _socket
import posix
from _struct import iter_unpack

from ocirt import spans
from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.message import EncodeError
from ocirt_api.ttrpc import ProtocolError, RequestReceived, Server, TooLargeError
from ocirt_api.wire import DecodeError
from ocirt_shim.loop import READ, WRITE, Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_api.message import Message
    from ocirt_api.ttrpc.events import Refused

    # what a method gets: its request, and how to answer later. It returns its answer, or None if that comes later.
    Method = Callable[[Any, "Call"], Message | None]
    Find = Callable[[str, str], tuple[type[Message], Method] | None]  # by the names of service and method

_CHUNK = 1 << 16
_BACKLOG = 16
_PATIENCE = 1.0  # seconds that a client may take to read the rest: others may be waiting
_BESIDE = _socket.CMSG_SPACE(4 * 4)  # bytes: for a few descriptors
_MSG_CMSG_CLOEXEC = 0x40000000


class Call:
    """A call that is to be answered once."""

    __slots__ = ("_connection", "_stream")

    def __init__(self, connection: Connection, stream: int) -> None:
        self._connection = connection
        self._stream = stream

    def answer(self, message: Message) -> None:
        """The answer. One that is too large is a failure."""
        try:
            self._connection.respond(self._stream, message.encode())
        except (TooLargeError, EncodeError) as err:
            self.fail(Error("internal", str(err)))

    def payload(self) -> bytes:
        """The request as it came, while the method is called."""
        return self._connection.payload

    def descriptor(self) -> int:
        """The descriptor that came with the call: the first of those that nobody took. Raises Error."""
        return self._connection.descriptor()

    def fail(self, err: Exception) -> None:
        """A failure, in words."""
        if isinstance(err, Error):
            code, text = status.of(err.code), str(err)
        elif isinstance(err, OSError):
            from ocirt.cli.log import describe  # noqa: PLC0415  (only for a failure)

            code, text = status.UNKNOWN, describe(err)
        elif isinstance(err, (DecodeError, ValueError)):
            code, text = status.INVALID_ARGUMENT, str(err)
        else:
            code, text = status.INTERNAL, f"{type(err).__name__}: {err} (this is a bug in ocirt)"
        self._connection.respond(self._stream, b"", code=code, text=text)


class Connection:
    """One client."""

    def __init__(
        self,
        loop: Loop,
        sock: _socket.socket,
        find: Find,
        on_close: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_close = on_close
        self._find = find
        self._server = Server()
        self._out = b""
        self._descriptors: list[int] = []
        self.payload = b""  # of the request that is being looked at
        self._closed = False
        sock.setblocking(False)
        loop.add(sock.fileno(), self._move)

    def _move(self) -> None:
        self._flush()
        if self._closed:
            return
        # Once: what is left is told of again, and a read too many is an exception, which is not for nothing.
        try:
            data, beside, _, _ = self._socket.recvmsg(_CHUNK, _BESIDE, _MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, beside = b"", []
        for level, kind, packed in beside:
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
                self._descriptors += [number for (number,) in iter_unpack("i", packed[: len(packed) // 4 * 4])]
        if data:
            self.take(data)
        else:
            self.close()

    def descriptor(self) -> int:
        """See `Call`."""
        if not self._descriptors:
            raise Error("invalid", "no descriptor came with the call")
        return self._descriptors.pop(0)

    def take(self, data: bytes) -> None:
        """What the client has sent."""
        try:
            events = self._server.receive(data)
        except ProtocolError:
            self.close()
            return
        for event in events:
            if self._closed:
                return
            if isinstance(event, RequestReceived):
                self._dispatch(event)
            elif getattr(event, "answer", None):
                refused: Refused = event  # type: ignore[assignment]
                self._send(refused.answer)

    def _dispatch(self, event: RequestReceived) -> None:
        call = Call(self, event.stream)
        request = event.request
        found = self._find(request.service, request.method)
        try:
            if found is None:
                raise Error("unsupported", f"no method {request.service}/{request.method}")
            kind, method = found
            began = spans.now()
            self.payload = request.payload
            answer = method(kind.decode(request.payload), call)
            spans.add("shim", request.method, began)
        except Exception as err:  # noqa: BLE001  (whatever it is, the client is told)
            call.fail(err)
            return
        finally:
            self.payload = b""
        if answer is not None:
            call.answer(answer)

    def respond(self, stream: int, payload: bytes, *, code: int = status.OK, text: str = "") -> None:
        """End a call. Nothing if the client is gone. Raises TooLargeError."""
        if not self._closed:
            self._send(self._server.respond(stream, payload, code=code, text=text))

    def _send(self, data: bytes) -> None:
        self._out += data
        self._flush()

    def _flush(self) -> None:
        try:
            while self._out and not self._closed:
                self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._closed:
            self._loop.change(self._socket.fileno(), READ | WRITE if self._out else READ)

    def close(self) -> None:
        """Be done with it."""
        if not self._closed:
            self._closed = True
            self._loop.remove(self._socket.fileno())
            try:
                self._socket.shutdown(_socket.SHUT_RDWR)  # a fork that is under way has it, too
            except OSError:
                pass
            self._socket.close()
            for fd in self._descriptors:
                posix.close(fd)
            self._descriptors = []
            self._on_close()

    def finish(self) -> None:
        """Send what is left, waiting a little for it, and close."""
        if not self._closed:
            self._socket.settimeout(_PATIENCE)
            try:
                self._socket.sendall(self._out)
            except OSError:
                pass
            self.close()


def _nothing() -> None:
    pass


class Listener:
    """The socket at a path; new clients speak to what `find` finds. path: "" if there is none yet; see `listen`."""

    def __init__(self, loop: Loop, path: str, find: Find) -> None:
        """Raises OSError."""
        self._loop = loop
        self._path = ""
        self._find = find
        self.on_close: Callable[[], object] = _nothing  # called when a connection has ended that was taken here
        self.connections: list[Connection] = []
        if path:
            self.listen(path)

    def listen(self, path: str) -> None:
        """Make the socket. Raises OSError."""
        self._path = path
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        mask = posix.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            posix.umask(mask)
        self._socket.listen(_BACKLOG)
        self._socket.setblocking(False)
        self._loop.add(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # (typeshed has it in `socket` alone)
        except OSError:
            return  # the client has gone again, or there are too many open files
        self.adopt(_socket.socket(fileno=fd), self.on_close)

    def adopt(self, sock: _socket.socket, on_close: Callable[[], object]) -> None:
        """Serve a connection that came another way; `on_close` is called once, at its end."""
        posix.set_inheritable(sock.fileno(), False)
        self.connections = [one for one in self.connections if not one._closed]
        self.connections.append(Connection(self._loop, sock, self._find, on_close))

    def close(self) -> None:
        """Take no more, and finish what is to be sent."""
        if self._path:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            try:
                posix.unlink(self._path)
            except FileNotFoundError:
                pass
        for one in self.connections:
            one.finish()
