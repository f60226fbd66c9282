"""Bytes from one descriptor to another, at the pace of who reads."""

from __future__ import annotations

import posix
from errno import EIO

from ocirt_shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_shim.loop import Loop

_CHUNK = 1 << 16
_ROUNDS = 16  # chunks in a row: one stream does not keep all others waiting


class Relay:
    """Both descriptors are the relay's, and closed at the source's end; `over` is then called, once.

    What a target takes no more is dropped: no program waits for a disk that is full, or for another that has ended.
    `stops`: then the relay ends instead, and whoever writes to the source sees that.
    """

    __slots__ = ("_data", "_last", "_loop", "_over", "_source", "_stops", "_target", "lost")

    def __init__(
        self, loop: Loop, source: int, target: int, over: Callable[[], object] = lambda: None, *, stops: bool = False
    ) -> None:
        self._loop = loop
        self._source = source
        self._target = target
        self._over = over
        self._stops = stops
        self._data = b""
        self._last = False
        self.lost = 0  # bytes that the target did not take
        for fd in (source, target):
            posix.set_blocking(fd, False)
        loop.add(source, self._move, READ)

    @property
    def open(self) -> bool:
        """Whether something may still come."""
        return self._source >= 0

    def _move(self) -> None:
        for _ in range(_ROUNDS):
            if self._source < 0 or not self._write():
                return
            try:
                self._data = posix.read(self._source, _CHUNK)
            except BlockingIOError:
                if self._last:
                    self.close()
                return
            except OSError as err:
                if err.errno != EIO:  # a terminal whose other side is closed
                    raise
            if not self._data:
                self.close()
                return
        self._write()

    def _write(self) -> bool:
        """Give the target what was read; whether it has taken all of it."""
        try:
            while self._data:
                self._data = self._data[posix.write(self._target, self._data) :]
        except BlockingIOError:
            # One call for each descriptor: the source waits meanwhile.
            self._loop.remove(self._source)
            self._loop.add(self._target, self._resume, WRITE)
            return False
        except OSError:
            self.lost += len(self._data)
            self._data = b""
            if self._stops:
                self.close()
                return False
        return True

    def _resume(self) -> None:
        self._loop.remove(self._target)
        self._loop.add(self._source, self._move, READ)
        self._move()

    def settle(self) -> None:
        """Who writes has ended: move on what is there now, and be done. Others may hold the source for ever."""
        self._last = True
        if not self._data:
            self._move()

    def close(self) -> None:
        """Be done, and lose what was not taken."""
        if self._source < 0:
            return
        for fd in (self._source, self._target):
            self._loop.remove(fd)
            posix.close(fd)
        self._source = self._target = -1
        over, self._over = self._over, _nothing
        over()


def _nothing() -> None:
    pass
