"""Sockets of the caller, which take one descriptor each."""

from __future__ import annotations

import posix

from ocirt.errors import Error
from ocirt.kernel import messages, unixsocket


class Socket:
    """A stream socket that takes one descriptor: connected at once, so that a wrong path fails before anything is made."""

    def __init__(self, path: str, what: str) -> None:
        """Connect. Raises Error("invalid") with `what` it is and the path."""
        try:
            self._fd = unixsocket.connect(path)
        except OSError as err:
            text = posix.strerror(err.errno or 0).lower()
            raise Error("invalid", f"{what} {path}: {text}", hint="something must listen there") from None

    def send(self, text: str, fd: int) -> None:
        """Send one message with one descriptor, which is closed then, as the socket is. Raises CallError."""
        messages.send_descriptors(self._fd, text.encode("ascii"), fd)
        posix.close(self._fd)
        posix.close(fd)
