"""urllib3's connections, with two things more: an answer's head has a deadline, and another thread can end them, all or those
that are used for one purpose.

A socket's time-out is for each byte, so a server that sends one now and then would hold a request for ever.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

_asking = threading.local()


class Live:
    """The connections that are open. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    def add(self, connection: Connection) -> None:
        """One more."""
        with self._lock:
            self._connections.add(connection)

    def interrupt(self, ended: threading.Event | None = None) -> None:
        """End those that are used until `ended` is set, or all: who reads or writes by them sees an end."""
        with self._lock:
            found = [one for one in self._connections if ended is None or one.ended is ended]
        for connection in found:
            connection.interrupt()


@contextmanager
def used_until(ended: threading.Event | None) -> Iterator[None]:
    """What this thread asks for meanwhile is wanted until `ended` is set; who sets it calls `Live.interrupt` after that."""
    _asking.ended = ended
    try:
        yield
    finally:
        _asking.ended = None


class Connection(HTTPConnection):
    """What HTTP and HTTPS have in common. live: a transport's connections; stall: seconds that a piece of a request may take."""

    live: Live
    stall: float
    ended: threading.Event | None = None  # of whom it was used for last
    _plug: socket.socket | None = None

    def connect(self) -> None:
        """Kept where it can be found."""
        super().connect()
        self._plug = self.sock
        self.live.add(self)

    def request(self, *args: Any, **named: Any) -> None:
        """Raises ConnectionAbortedError if nobody wants an answer any more."""
        self.ended = getattr(_asking, "ended", None)
        if self.sock is None:
            self.connect()  # so that it is among the live before the look at who has ended
        if self.ended is not None and self.ended.is_set():
            self.close()
            raise ConnectionAbortedError
        self.timeout = self.stall  # urllib3 would go on with that for making a connection
        super().request(*args, **named)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        """Raises TimeoutError after the time-out, however much has come of the head."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self.interrupt()

        timer = threading.Timer(self.timeout or threading.TIMEOUT_MAX, give_up)
        timer.daemon = True
        timer.start()
        try:
            found = super().getresponse()
        finally:
            timer.cancel()
        if late.is_set():  # a head that ends early looks like a whole one
            found.close()
            self.close()
            raise TimeoutError
        return found

    def interrupt(self) -> None:
        """From another thread: who reads or writes sees the end of the connection."""
        if self._plug is None:
            return
        try:
            # Below TLS, whose state belongs to the thread that uses it.
            socket.socket.shutdown(self._plug, socket.SHUT_RDWR)
        except (OSError, TypeError):
            pass  # it is closed, or tunnelled through another one, which is among the live as well


def pools(live: Live, *, verified: bool, stall: float) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Pools whose connections are added to `live`, by URL scheme; for a PoolManager."""

    class Plain(Connection):
        pass

    class Secure(Connection, HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            if not verified:
                self.is_verified = True  # it only decides about a warning, and the user knows

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Secure

    Plain.live = Secure.live = live
    Plain.stall = Secure.stall = stall
    return {"http": PlainPool, "https": SecurePool}
