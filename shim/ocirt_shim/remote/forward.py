"""A client of port-forward, served by a process of its own in the pod's network namespace: a fork of the zygote."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # (typeshed has none; `signal` loads enum)
import _socket
import gc
import posix
from errno import EINPROGRESS

from ocirt.kernel import constants as k
from ocirt.kernel import messages
from ocirt.kernel.ffi import syscall
from ocirt_shim.flow import Flow, shut
from ocirt_shim.loop import WRITE, Loop
from ocirt_shim.remote import READY, SPDY, TUNNEL, FaultError
from ocirt_shim.remote.pairs import InTunnel, OverSpdy, OverWebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ocirt_shim.remote.pairs import Pairs

_SECOND = 1_000_000_000  # nanoseconds
_LOOK = 1 * _SECOND  # between looks at whether the pod is still there
_IDLE = 4 * 3600 * _SECOND  # without a byte either way
_BUFFER = 1 << 20  # bytes that wait for the client before the pod has to
_MOST_WAITING = 1 << 24  # bytes that wait for one connection before all of the client's have to
_ADDRESSES = ((_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1"))
_IGNORED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM, _signal.SIGPIPE)


class Connection:
    """One connection to a port of the pod."""

    def __init__(self, loop: Loop, port: int, session: Session, key: int) -> None:
        self._loop = loop
        self._port = port
        self._session = session
        self._key = key
        self._addresses = list(_ADDRESSES)
        self._failures: list[str] = []
        self._socket: _socket.socket | None = None
        self._early: list[bytes] = []
        self._input_ended = self._output_ended = False
        self.has_failed = False
        self.flow: Flow | None = None
        self._try()

    def _try(self) -> None:
        """Connect to the next address."""
        while self._addresses:
            family, address = self._addresses.pop(0)
            try:
                self._socket = way = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
                way.setblocking(False)
                failure = way.connect_ex((address, self._port))
            except OSError as err:
                self._failures.append(f"{address}: {err.strerror}")
                continue
            if failure in (0, EINPROGRESS):
                self._loop.add(way.fileno(), self._connected, WRITE)
                return
            self._failed(address, failure)
        self.has_failed = True
        self._session.ended(self._key, f"cannot connect to port {self._port} in the pod: {', '.join(self._failures)}")
        self._session.forget(self._key)

    def _failed(self, address: str, failure: int) -> None:
        self._failures.append(f"{address}: {posix.strerror(failure)}")
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> None:
        way = self._socket
        assert way is not None
        self._loop.remove(way.fileno())
        failure = way.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if failure:
            self._failed(_ADDRESSES[len(_ADDRESSES) - len(self._addresses) - 1][1], failure)
            self._try()
            return
        way.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        self._socket = None
        self.flow = Flow(self._loop, way.detach(), take=self._take, writable=self._session.go_on, broken=self.close)
        if self._session.is_full:
            self.flow.hold(back=True)
        early, self._early = self._early, []
        self.flow.write(early)
        if self._input_ended:
            self.flow.end(shut)

    @property
    def waiting(self) -> int:
        """Bytes that wait for it."""
        return self.flow.queued if self.flow is not None else sum(map(len, self._early))

    def write(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.flow is None:
            self._early.append(data)
        else:
            self.flow.write([data])

    def end_input(self) -> None:
        """The client sends no more."""
        self._input_ended = True
        if self.flow is not None:
            self.flow.end(shut)
        self._end()

    def _take(self, data: bytes) -> None:
        if data:
            self._session.send(self._key, data)
            return
        self._output_ended = True
        self._session.ended(self._key)
        self._end()

    def _end(self) -> None:
        if self._input_ended and self._output_ended:
            self.close()

    def close(self) -> None:
        """Be done with it."""
        if self._socket is not None:
            self._loop.remove(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self.flow is not None:
            self.flow.close()
        if not self._output_ended:
            self._output_ended = True
            self._session.ended(self._key)
        self._session.forget(self._key)


class Session:
    """The client at the descriptor `fd`. is_there: whether the pod is."""

    def __init__(self, fd: int, asked: dict[str, Any], is_there: Callable[[], bool]) -> None:
        self.loop = Loop()
        self._is_there = is_there
        self._connections: dict[int, Connection] = {}
        self._came = 0  # bytes
        self._marks = (0, 0)
        self._quiet = 0  # nanoseconds
        self._is_held = False
        self._pairs = _pairs(asked, self)
        self._client = Flow(
            self.loop, fd, take=self._receive, writable=self.go_on, broken=self.on_gone, gone=self.on_gone, limit=_BUFFER
        )
        self._client.write([asked["answer"].encode("latin-1")])
        self.loop.after(_LOOK, self._look)
        self._pairs.begin()
        if asked["rest"]:
            self._receive(asked["rest"].encode("latin-1"))
        self._send()

    @property
    def is_full(self) -> bool:
        """Whether the pod should wait for the client."""
        return self._client.is_full

    def _receive(self, data: bytes) -> None:
        if not data:
            self.on_gone()
            return
        self._came += len(data)
        try:
            self._pairs.receive(data)
        except FaultError:
            self._pairs.close()
            self._send()
            self._client.end(lambda _: self.on_gone())
            return
        self._send()

    def _send(self) -> None:
        parts = self._pairs.outgoing[:]
        self._pairs.outgoing.clear()
        self._client.write(parts)
        if self._client.is_full:
            self._hold_pod(back=True)

    def _hold_pod(self, *, back: bool) -> None:
        for one in list(self._connections.values()):
            if one.flow is not None:
                one.flow.hold(back=back)

    def go_on(self) -> None:
        """Somebody has taken what waited for it."""
        if not self._client.is_full:
            self._hold_pod(back=False)
        self._hold_client()

    def _hold_client(self) -> None:
        held = any(one.waiting > _MOST_WAITING for one in self._connections.values())
        if held != self._is_held:
            self._is_held = held
            self._client.hold(back=held)

    def _look(self) -> None:
        """End what does not move, and what leads nowhere."""
        marks = self._client.moved, self._came
        self._quiet = self._quiet + _LOOK if marks == self._marks else 0
        self._marks = marks
        if not self._is_there() or self._quiet >= _IDLE:
            self.on_gone()
            return
        self.loop.after(_LOOK, self._look)

    # -- what the client says (`pairs.Listener`) --

    def on_open(self, key: int, port: int) -> None:
        """A connection is wanted."""
        connection = Connection(self.loop, port, self, key)
        if not connection.has_failed:
            self._connections[key] = connection

    def on_data(self, key: int, data: bytes) -> None:
        """Bytes for it."""
        if key in self._connections:
            self._connections[key].write(data)
            self._hold_client()

    def on_end(self, key: int) -> None:
        """No more will come."""
        if key in self._connections:
            self._connections[key].end_input()

    def on_reset(self, key: int) -> None:
        """It is not wanted any more."""
        if key in self._connections:
            self._connections[key].close()

    def on_gone(self) -> None:
        """None is wanted."""
        for one in list(self._connections.values()):
            one.close()
        self._client.close()
        self.loop.stop()

    # -- what the pod says --

    def send(self, key: int, data: bytes) -> None:
        """Bytes of a connection."""
        self._pairs.write(key, data)
        self._send()

    def ended(self, key: int, failure: str = "") -> None:
        """It brings no more, or it failed."""
        self._pairs.end(key, failure)
        self._send()

    def forget(self, key: int) -> None:
        """It is closed."""
        self._connections.pop(key, None)
        self._pairs.forget(key)
        self._hold_client()


def _pairs(asked: dict[str, Any], session: Session) -> Pairs:
    if asked["transport"] == SPDY:
        return OverSpdy(session)
    if asked["protocol"] == TUNNEL:
        return InTunnel(session)
    return OverWebSocket(session, asked["protocol"], asked["ports"])


def serve(fd: int, owner: int, asked: dict[str, Any]) -> None:
    """In the fork: serve the client whose connection comes over `fd`, and with it the network namespace if the pod has its own.

    asked: transport, protocol, ports, answer and rest (bytes as latin-1), path: what is there for as long as the pod is.
    """
    posix.close(owner)  # it outlives that
    posix.setsid()
    syscall("prctl", k.PR_SET_NAME, b"ocirt-forward")
    for number in _IGNORED:
        _signal.signal(number, _signal.SIG_IGN)
    gc.enable()
    _, came = messages.receive_descriptors(fd)
    if not came:
        return
    client, *namespaces = came
    for each in namespaces:
        syscall("setns", each, k.CLONE_NEWNET)
        posix.close(each)
    posix.write(fd, READY)
    posix.close(fd)
    path: str = asked["path"]
    Session(client, asked, lambda: _exists(path)).loop.run()


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True
