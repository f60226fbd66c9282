"""The shim's own log: lines in the form of containerd's, for the FIFO `log` of the first bundle, which containerd reads."""

from __future__ import annotations

import posix
from time import time_ns

from ocirt import jsonlite, state

LEVELS = ("debug", "info", "warning", "error")


class Journal:
    """A line is lost, and nothing waits, when nobody reads: containerd may be gone, and comes back to the same FIFO."""

    def __init__(self, path: str, fields: dict[str, str], *, debug: bool) -> None:
        self._path = path
        self._fields = "".join([f" {name}={_word(value)}" for name, value in fields.items()])
        self._least = 0 if debug else 1
        self._fd = -1

    def say(self, level: str, text: str) -> None:
        """Write one line, unless the level is below what is wanted."""
        if LEVELS.index(level) < self._least:
            return
        line = f'time="{state.timestamp(time_ns())}" level={level} msg={jsonlite.quote(text)}{self._fields}\n'.encode()
        for _ in range(2):
            if not self._open():
                return
            try:
                posix.write(self._fd, line)
            except BlockingIOError:
                return  # it is read no more, or slowly
            except OSError:
                self.close()  # its reader has gone: perhaps there is another
            else:
                return

    def _open(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = posix.open(self._path, posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC | posix.O_NOFOLLOW)
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Hold the FIFO no longer."""
        if self._fd >= 0:
            posix.close(self._fd)
            self._fd = -1


def _word(value: str) -> str:
    return value if value.replace("-", "").replace(".", "").replace("_", "").isalnum() else jsonlite.quote(value)
