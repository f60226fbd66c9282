"""The file that a container's output goes to."""

from __future__ import annotations

import posix
from time import monotonic_ns, time_ns

from ocirt_shim.lines import LIMIT, Clock, Lines

_FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
_MODE = 0o640
_SECOND = 1_000_000_000
OLD = ".1"  # behind the log's name: what the log was before the shim itself began another


class Log:
    """A log in the CRI's format at `path`; with "" nothing is written. Raises OSError if it cannot be opened.

    limit: bytes of a line's text, above which it is split
    size: bytes of the file, above which it gets the name PATH.1, in the place of an earlier one, and another is begun; 0: none.
        It goes with the kubelet's own rotation, which counts PATH.1 among the old files of the log.
    rate: bytes that are written in a second; the lines above are dropped, and a line says how many. 0: none.

    `lost` counts bytes that the disk did not take: a container does not wait for a disk that is full.
    """

    __slots__ = ("_clock", "_dropped", "_fd", "_left", "_path", "_rate", "_room", "_second", "_size", "_streams", "_torn", "lost")

    def __init__(self, path: str, limit: int = LIMIT, size: int = 0, rate: int = 0) -> None:
        self._path = path
        self._fd = -1
        self._clock = Clock()
        self._streams = {name: Lines(name, limit) for name in ("stdout", "stderr")}
        self._size = size
        self._room = 0  # bytes that the file may still get, if its size has a limit
        self._rate = rate
        self._second = 0  # the one that `_left` bytes are left of
        self._left = 0
        self._dropped = 0  # lines of this second
        self._torn = False  # whether the file ends within a line
        self.lost = 0
        if path:
            self._open()

    def _open(self) -> None:
        fd = posix.open(self._path, _FLAGS, _MODE)
        if self._fd >= 0:
            posix.close(self._fd)
        self._fd = fd
        self._torn = False
        if self._size:
            self._room = self._size - posix.fstat(fd).st_size

    def write(self, stream: str, data: bytes) -> None:
        """Write what a stream brought."""
        if self._fd >= 0:
            self._take(self._streams[stream].feed(data, self._clock.stamp(time_ns())))

    def end(self, stream: str) -> None:
        """A stream has come to its end."""
        if self._fd >= 0:
            self._take(self._streams[stream].end(self._clock.stamp(time_ns())))
            self._say_dropped()

    def _take(self, text: bytes) -> None:
        if self._rate:
            text = self._within_rate(text)
        while self._size and len(text) > self._room:
            # Whole lines only; one that is larger than a file may be has one for itself.
            at = text.rfind(b"\n", 0, max(self._room, 0)) + 1
            if not at and self._room == self._size:
                at = text.index(b"\n") + 1
            self._put(text[:at])
            text = text[at:]
            if not text or not self._begin_another():
                break
        self._put(text)

    def _begin_another(self) -> bool:
        """Whether there is room then."""
        try:
            posix.rename(self._path, self._path + OLD)
        except FileNotFoundError:
            pass  # it was renamed, and the shim is about to be told
        except OSError:
            self._room = self._size  # another try later; meanwhile nothing is lost
            return False
        try:
            self._open()
        except OSError:
            self._room = self._size
            return False
        return self._room > 0

    def _within_rate(self, text: bytes) -> bytes:
        """The lines that are written."""
        second = monotonic_ns() // _SECOND
        if second != self._second:
            self._say_dropped()
            self._second = second
            self._left = self._rate
        if len(text) > self._left:
            at = text.rfind(b"\n", 0, self._left) + 1
            self._dropped += text.count(b"\n", at)
            text = text[:at]
        self._left -= len(text)
        return text

    def _say_dropped(self) -> None:
        if self._dropped:
            words = f" stderr F ocirt: {self._dropped} lines were dropped: more than {self._rate} bytes in a second\n"
            self._dropped = 0
            self._put(self._clock.stamp(time_ns()) + words.encode())

    def _put(self, text: bytes) -> None:
        if self._torn and text:
            text = b"\n" + text
        self._room -= len(text)
        while text:
            try:
                written = posix.write(self._fd, text)
            except OSError:
                self.lost += len(text)
                return
            self._torn = text[written - 1 : written] != b"\n"
            text = text[written:]

    def reopen(self) -> None:
        """Go on in the file that has the name now, which is made if there is none. Raises OSError, and goes on where it was."""
        if self._path:
            self._open()

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1
