"""Sockets of others in the file system (unix(7))."""

from __future__ import annotations

import posix
from _struct import pack

from ocirt.errors import Error
from ocirt.kernel import messages
from ocirt.kernel.ffi import syscall

_AF_UNIX = 1
SOCK_STREAM = 1
SOCK_DGRAM = 2
_SOCK_CLOEXEC = 0o2000000
_LONGEST = 107  # bytes of sun_path, without its NUL


def make(kind: int) -> int:
    """A socket, close-on-exec. Raises CallError."""
    return syscall("socket", _AF_UNIX, kind | _SOCK_CLOEXEC, 0)


def use(call: str, fd: int, path: bytes) -> None:
    """connect(2) or bind(2) `fd`; a path of any length, or a name that begins with `@` for an abstract one. Raises OSError."""
    near = -1
    try:
        if path[:1] == b"@":
            address = b"\0" + path[1:]
        elif len(path) > _LONGEST:  # by way of the directory's descriptor
            head, _, tail = path.rpartition(b"/")
            near = posix.open(head or b"/", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            address = b"/proc/self/fd/%d/%s\0" % (near, tail)
        else:
            address = path + b"\0"
        sockaddr = pack("=H", _AF_UNIX) + address
        syscall(call, fd, sockaddr, len(sockaddr))
    finally:
        if near >= 0:
            posix.close(near)


class Socket:
    """A stream socket that takes one descriptor: connected at once, so that a wrong path fails before anything is made."""

    def __init__(self, path: str, what: str) -> None:
        """Connect. Raises Error("invalid") with `what` it is and the path."""
        self._fd = make(SOCK_STREAM)
        try:
            use("connect", self._fd, path.encode("utf-8", "surrogateescape"))
        except OSError as err:
            posix.close(self._fd)
            text = posix.strerror(err.errno or 0).lower()
            raise Error("invalid", f"{what} {path}: {text}", hint="something must listen there") from None

    def send(self, text: str, fd: int) -> None:
        """Send one message with one descriptor, which is closed then, as the socket is. Raises CallError."""
        messages.send_descriptor(self._fd, text.encode("ascii"), fd)
        posix.close(self._fd)
        posix.close(fd)
