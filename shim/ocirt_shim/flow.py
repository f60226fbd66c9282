"""Descriptors that do not wait: what comes from one, what goes into one, and how a full one holds back the other side."""

from __future__ import annotations

import _socket
import posix
import select
from errno import EAGAIN

from ocirt_shim.loop import READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ocirt_shim.loop import Loop

_CHUNK = 1 << 17
_VECTORS = 64  # buffers of one writev(2)
_GONE = 0x2000 | select.POLLHUP | select.POLLERR  # POLLRDHUP, which select names since Python 3.14 only


class Flow:
    """One descriptor, both ways, of which each may be unused.

    take: gets what can be read; b"" once, at the end.
    writable: called when what waits to be written has fallen below `limit` again.
    broken: called once when nothing can be written any more.
    gone: of a socket: called when the peer has gone while nothing is read from it.
    """

    def __init__(
        self,
        loop: Loop,
        fd: int,
        *,
        take: Callable[[bytes], object] | None = None,
        writable: Callable[[], object] = lambda: None,
        broken: Callable[[], object] = lambda: None,
        gone: Callable[[], object] | None = None,
        limit: int = 1 << 20,
    ) -> None:
        self.fd = fd
        self.queued = 0  # bytes
        self.moved = 0  # bytes that were written
        self._loop = loop
        self._take = take
        self._writable = writable
        self._broken = broken
        self._gone = gone
        self._limit = limit
        self._queue: list[bytes] = []
        self._reads = take is not None
        self._is_broken = False
        self._ending: Callable[[int], object] | None = None
        self._watched = 0
        posix.set_blocking(fd, False)
        self._watch()

    @property
    def is_full(self) -> bool:
        """Whether those who write to it should wait."""
        return self.queued > self._limit

    def hold(self, *, back: bool) -> None:
        """Read no more, or again."""
        self._reads = not back and self._take is not None
        self._watch()

    def read(self) -> bool:
        """Take what is there, up to a chunk; whether there was anything."""
        if self._take is None or self.fd < 0:
            return False
        try:
            data = posix.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError as err:
            if err.errno == EAGAIN:
                return False
            data = b""  # EIO: a terminal whose other side is closed; ECONNRESET
        if not data:
            take, self._take, self._reads = self._take, None, False
            self._watch()
            take(b"")
            return False
        self._take(data)
        return True

    def write(self, parts: Iterable[bytes]) -> None:
        """Write now or later."""
        if self._is_broken or self.fd < 0:
            return
        for part in parts:
            if part:
                self._queue.append(part)
                self.queued += len(part)
        self.flush()

    def flush(self) -> None:
        """Write what can be."""
        was_full = self.is_full
        try:
            while self._queue:
                self._forget(posix.writev(self.fd, self._queue[:_VECTORS]))
        except BlockingIOError:
            pass
        except OSError as err:
            if err.errno != EAGAIN:
                self._break()
                return
        self._watch()
        if was_full and not self.is_full:
            self._writable()
        if not self._queue:
            self._finish()

    def _forget(self, count: int) -> None:
        self.queued -= count
        self.moved += count
        queue = self._queue
        whole = 0
        while whole < len(queue) and count >= len(queue[whole]):
            count -= len(queue[whole])
            whole += 1
        del queue[:whole]
        if count:
            queue[0] = queue[0][count:]

    def end(self, how: Callable[[int], object]) -> None:
        """After all was written call `how` with the descriptor, once."""
        self._ending = how
        if not self._queue:
            self._finish()

    def _finish(self) -> None:
        if self._ending is not None and self.fd >= 0:
            how, self._ending = self._ending, None
            how(self.fd)

    def _break(self) -> None:
        self._queue.clear()
        self.queued = 0
        if not self._is_broken:
            self._is_broken = True
            self._watch()
            self._finish()
            self._broken()

    def close(self) -> None:
        """Be done with it; what was not written is lost."""
        if self.fd >= 0:
            if self._watched:
                self._loop.remove(self.fd)
                self._watched = 0
            posix.close(self.fd)
            self.fd = -1

    def _watch(self) -> None:
        if self.fd < 0:
            return
        wanted = (READ if self._reads else 0) | (WRITE if self._queue else 0)
        if not self._reads and self._take is not None and self._gone is not None:
            wanted |= _GONE
        if wanted == self._watched:
            return
        # Not by asking for nothing: poll(2) tells of an end in any case, again and again.
        if not wanted:
            self._loop.remove(self.fd)
        elif not self._watched:
            self._loop.add(self.fd, self._move, wanted)
        else:
            self._loop.change(self.fd, wanted)
        self._watched = wanted

    def _move(self) -> None:
        if self._queue:
            self.flush()
        if self._reads:
            self.read()
        elif self._gone is not None and self.fd >= 0 and _has_gone(self.fd):
            gone, self._gone = self._gone, None
            gone()


def _has_gone(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, _GONE)
    return bool(poll.poll(0))


def shut(fd: int, how: int = _socket.SHUT_WR) -> None:
    """shutdown(2), whoever else has the socket. Nothing if the peer is gone."""
    way = _socket.socket(fileno=posix.dup(fd))
    try:
        way.shutdown(how)
    except OSError:
        pass
    way.close()
