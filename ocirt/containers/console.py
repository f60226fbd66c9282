"""Lending our own terminal to a container."""

from __future__ import annotations

import fcntl
import posix
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Lent:
    """Our own terminal, in raw mode for as long as a container uses it through `master`."""

    def __init__(self, master: int) -> None:
        self.master = master
        self._kept: Any = None
        if posix.isatty(0):
            self._kept = termios.tcgetattr(0)
            self.resize()
            mode = termios.tcgetattr(0)
            _make_raw(mode)
            termios.tcsetattr(0, termios.TCSADRAIN, mode)

    def resize(self) -> None:
        """Give the container's terminal the size of ours."""
        for fd in (0, 1, 2):
            try:
                size = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
            except OSError:
                continue
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)
            return

    def restore(self) -> None:
        """Have our terminal back as it was."""
        if self._kept is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._kept)
            except (OSError, termios.error):
                pass  # it has gone away


def _make_raw(mode: list[Any]) -> None:
    """What cfmakeraw(3) does to the lists of tcgetattr."""
    mode[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
        | termios.IXON
    )  # fmt: skip
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN] = 1
    mode[6][termios.VTIME] = 0
