"""urllib3's connections, with two things more: an answer's head has a deadline, and another thread can end them.

A socket's time-out is for each byte, so a server that sends one now and then would hold a request for ever.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import MutableSet


class Connection(HTTPConnection):
    """What HTTP and HTTPS have in common. `live` are a transport's connections."""

    live: MutableSet[Connection]
    _plug: socket.socket | None = None

    def connect(self) -> None:
        """Kept where it can be found."""
        super().connect()
        self._plug = self.sock
        self.live.add(self)

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


def pools(live: MutableSet[Connection], *, verified: bool) -> dict[str, type[urllib3.HTTPConnectionPool]]:
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
    return {"http": PlainPool, "https": SecurePool}
