"""The file that a container's output goes to."""

from __future__ import annotations

import posix
from time import time_ns

from ocirt_shim.lines import LIMIT, Clock, Lines

_FLAGS = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
_MODE = 0o640


class Log:
    """A log in the CRI's format at `path`; with "" nothing is written. Raises OSError if it cannot be opened.

    `lost` counts bytes that the disk did not take: a container does not wait for a disk that is full.
    """

    __slots__ = ("_clock", "_fd", "_path", "_streams", "lost")

    def __init__(self, path: str, limit: int = LIMIT) -> None:
        self._path = path
        self._fd = posix.open(path, _FLAGS, _MODE) if path else -1
        self._clock = Clock()
        self._streams = {name: Lines(name, limit) for name in ("stdout", "stderr")}
        self.lost = 0

    def write(self, stream: str, data: bytes) -> None:
        """Write what a stream brought."""
        if self._fd >= 0:
            self._put(self._streams[stream].feed(data, self._clock.stamp(time_ns())))

    def end(self, stream: str) -> None:
        """A stream has come to its end."""
        if self._fd >= 0:
            self._put(self._streams[stream].end(self._clock.stamp(time_ns())))

    def _put(self, text: bytes) -> None:
        while text:
            try:
                text = text[posix.write(self._fd, text) :]
            except OSError:
                self.lost += len(text)
                return

    def reopen(self) -> None:
        """Go on in the file that has the name now, which is made if there is none. Raises OSError, and goes on where it was."""
        if not self._path:
            return
        fd = posix.open(self._path, _FLAGS, _MODE)
        posix.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        """Write no more."""
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1
