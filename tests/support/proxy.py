"""A TCP proxy on loopback that breaks connections: between a client and a server that somebody else wrote."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType


class Proxy:
    """Hands on what comes to `address`, to `target` and back. A context manager.

    breaks: for each of the first connections that send more than so many bytes, how many they may before they are reset
    """

    def __init__(self, target: str, breaks: list[int]) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._breaks = breaks
        self.broken = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = {self._listener}
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        with self._lock:
            for one in self._open:
                _end(one)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open |= {client, server}
            for pair in ((client, server, True), (server, client, False)):
                thread = threading.Thread(target=self._hand_on, args=pair)
                thread.start()
                self._threads.append(thread)

    def _hand_on(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        sent = 0
        try:
            while data := source.recv(64 << 10):
                sent += len(data)
                if counts and self._is_too_much(sent):
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                sink.sendall(data)
        except OSError:
            pass
        with self._lock:
            for one in (source, sink):
                _end(one)
                if one in self._open:
                    self._open.discard(one)
                    one.close()

    def _is_too_much(self, sent: int) -> bool:
        with self._lock:
            if not self._breaks or sent <= self._breaks[0]:
                return False
            del self._breaks[0]
            self.broken += 1
            return True


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
