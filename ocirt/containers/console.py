"""Terminals on the runtime's side: handing the master away, and lending our own terminal to a container."""

from __future__ import annotations

import fcntl
import posix
import termios
from _struct import pack

from ocirt.errors import Error
from ocirt.kernel import messages
from ocirt.kernel.ffi import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_CLOEXEC = 0o2000000


class Socket:
    """The AF_UNIX socket of --console-socket: connected at once, so that a wrong path fails before anything is made."""

    def __init__(self, path: str) -> None:
        """Connect. Raises Error("invalid") with the path."""
        address = path.encode("utf-8", "surrogateescape")
        self._fd = syscall("socket", _AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC, 0)
        near = -1
        try:
            if len(address) > 107:  # sun_path: by way of the directory's descriptor
                head, _, tail = path.rpartition("/")
                near = posix.open(head or "/", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
                address = f"/proc/self/fd/{near}/{tail}".encode("utf-8", "surrogateescape")
            sockaddr = pack("=H", _AF_UNIX) + address + b"\0"
            syscall("connect", self._fd, sockaddr, len(sockaddr))
        except OSError as err:
            posix.close(self._fd)
            text = posix.strerror(err.errno or 0).lower()
            raise Error("invalid", f"console socket {path}: {text}", hint="something must listen there") from None
        finally:
            if near >= 0:
                posix.close(near)

    def send(self, name: str, master: int) -> None:
        """Send the master: one message with its name and one descriptor. Raises CallError."""
        messages.send_descriptor(self._fd, name.encode("ascii"), master)
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
