"""The outer ends of a process's streams."""

from __future__ import annotations

import _socket
import posix
from errno import EIO

from ocirt.kernel import messages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_shim.loop import Loop

_CHUNK = 1 << 16
_AGAIN = 100_000_000  # nanoseconds until another look at a terminal that nobody has open
_ROUNDS = 16  # chunks in a row, the largest pipe's: one stream does not keep all others waiting


class Output:
    """What comes out of a pipe or a terminal goes to `take`; b"" once, at its end.

    A terminal that nobody has open at the moment may be opened again: it has no end before `finish`.
    """

    __slots__ = ("_finishes", "_held", "_loop", "_take", "fd")

    def __init__(self, loop: Loop, fd: int, take: Callable[[bytes], object]) -> None:
        self._loop = loop
        self._take = take
        self.fd = fd
        self._held = self._finishes = False
        posix.set_blocking(fd, False)
        loop.add(fd, self.move)

    def hold(self, *, back: bool) -> None:
        """Let the writer wait, or go on."""
        if back == self._held or self.fd < 0:
            return
        self._held = back
        if back:
            self._loop.remove(self.fd)
        else:
            self._loop.add(self.fd, self.move)

    def move(self) -> None:
        """Take what is there, or a part of it, of which the loop tells again. Never waits."""
        self._move(everything=False)

    def _move(self, *, everything: bool) -> None:
        for _ in range(_ROUNDS):
            if self.fd < 0:
                return
            try:
                data = posix.read(self.fd, _CHUNK)
            except BlockingIOError:
                return
            except OSError as err:
                if err.errno != EIO:  # a terminal whose other side is closed
                    raise
                if not self._finishes:
                    self.hold(back=True)
                    self._loop.after(_AGAIN, lambda: self.hold(back=False))
                    return
                data = b""
            take = self._take
            if not data:
                self.close()
            take(data)
            if len(data) < _CHUNK and not everything:
                return

    def drain(self) -> None:
        """All that is there now: what a pipe holds at most. Its writer may go on for ever."""
        self._move(everything=True)

    def finish(self) -> None:
        """The same, when its program has ended."""
        self._finishes = True
        self._move(everything=True)

    def close(self) -> None:
        """Take no more."""
        if self.fd >= 0:
            self._loop.remove(self.fd)
            posix.close(self.fd)
            self.fd = -1
            self._take = _nobody  # who took has this, too: neither would ever be freed


def _nobody(_: bytes) -> None:
    """Takes nothing any more."""


class Input:
    """Bytes for a process's standard input, then its end. One that reads nothing is not waited for."""

    __slots__ = ("_data", "_fd", "_loop")

    def __init__(self, loop: Loop, fd: int, data: bytes) -> None:
        self._loop = loop
        self._fd = fd
        self._data = data
        posix.set_blocking(fd, False)
        loop.add(fd, self._move, 4)  # POLLOUT

    def _move(self) -> None:
        try:
            self._data = self._data[posix.write(self._fd, self._data[:_CHUNK]) :] if self._data else b""
        except BlockingIOError:
            return
        except OSError:
            self._data = b""  # it reads no more
        if not self._data:
            self.close()

    def close(self) -> None:
        """Let the process see the end."""
        if self._fd >= 0:
            self._loop.remove(self._fd)
            posix.close(self._fd)
            self._fd = -1


def pipe(*, outward: bool) -> tuple[int, int]:
    """(inner end, outer end) of a pipe, close-on-exec; `outward`: the process writes."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    return (writer, reader) if outward else (reader, writer)


def pair() -> tuple[int, int]:
    """Two ends of one stream socket, close-on-exec."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    return one.detach(), other.detach()


def consoles(way: int) -> tuple[int, ...]:
    """The terminal's master that came over a socket, which is closed; nothing if its maker did not come that far."""
    posix.set_blocking(way, False)
    try:
        _, came = messages.receive_descriptors(way)
    except OSError:
        came = ()
    posix.close(way)
    return came


def null() -> int:
    """/dev/null for a stream that nobody has."""
    return posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)
