"""Terminals on the runtime's side: handing the master away, and lending our own terminal to a container."""

from __future__ import annotations

import fcntl
import posix
import termios

from ocirt.errors import Error
from ocirt.kernel import messages, unixsocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Socket:
    """The AF_UNIX socket of --console-socket: connected at once, so that a wrong path fails before anything is made."""

    def __init__(self, path: str) -> None:
        """Connect. Raises Error("invalid") with the path."""
        try:
            self._fd = unixsocket.connect(path)
        except OSError as err:
            text = posix.strerror(err.errno or 0).lower()
            raise Error("invalid", f"console socket {path}: {text}", hint="something must listen there") from None

    def send(self, name: str, master: int) -> None:
        """Send the master: one message with its name and one descriptor. Raises CallError."""
        messages.send_descriptors(self._fd, name.encode("ascii"), master)
        posix.close(self._fd)
        posix.close(master)


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
