"""Sockets with names (unix(7)), over the kernel: the module `socket` costs 11 ms to import.

Every function raises CallError or OSError.
"""

from __future__ import annotations

import posix
from _struct import pack

from ocirt.kernel.ffi import syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_AF_UNIX = 1
STREAM = 1
DATAGRAM = 2
SEQPACKET = 5
_SOCK_CLOEXEC = 0o2000000
_LONGEST = 107  # sun_path, without a NUL


def connect(path: str, kind: int = STREAM) -> int:
    """A socket that is connected to the one at `path`."""
    return _named(path, kind, lambda fd, address: syscall("connect", fd, address, len(address)))


def bind(path: str, kind: int) -> int:
    """A socket that is made at `path`, as the umask has it."""
    return _named(path, kind, lambda fd, address: syscall("bind", fd, address, len(address)))


def listen(path: str, kind: int = STREAM) -> int:
    """A socket that is made at `path`, for connections; only its owner may connect."""

    def bind(fd: int, address: bytes) -> None:
        syscall("fchmod", fd, 0o600)  # the mode that bind(2) makes it with
        syscall("bind", fd, address, len(address))
        syscall("listen", fd, 1)

    return _named(path, kind, bind)


def accept(fd: int) -> int:
    """The next connection, when there is one."""
    return syscall("accept4", fd, 0, 0, _SOCK_CLOEXEC)


def _named(path: str, kind: int, action: Callable[[int, bytes], object]) -> int:
    """`action` on a new socket and an address: of a path of any length, or of an abstract name, which begins with `@`."""
    name = path.encode("utf-8", "surrogateescape")
    fd, near = syscall("socket", _AF_UNIX, kind | _SOCK_CLOEXEC, 0), -1
    try:
        if name[:1] == b"@":
            action(fd, pack("=H", _AF_UNIX) + b"\0" + name[1:])
            return fd
        if len(name) > _LONGEST:  # by way of the directory's descriptor
            head, _, tail = name.rpartition(b"/")
            near = posix.open(head or b"/", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            name = b"/proc/self/fd/%d/%s" % (near, tail)
        action(fd, pack("=H", _AF_UNIX) + name + b"\0")
    except BaseException:
        posix.close(fd)
        raise
    finally:
        if near >= 0:
            posix.close(near)
    return fd
