"""A part of a file as the body of a request."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable


class Part(io.RawIOBase):
    """Bytes `start` to `stop` of a file. The descriptor stays open, and its position is not used: threads may share it.

    moved: called before each piece with the position in the file; what it raises ends the request
    """

    def __init__(self, descriptor: int, start: int, stop: int, moved: Callable[[int], None], subject: str) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = start
        self._stop = stop
        self._moved = moved
        self._subject = subject

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed has a wider type
        """Raises Error("corrupt") for a file that is shorter than it was, Error("kernel") for one that cannot be read."""
        self._moved(self._at)
        with memoryview(buffer) as view:
            count = min(len(view), self._stop - self._at)
            if not count:
                return 0
            try:
                done = os.preadv(self._descriptor, [view[:count]], self._at)
            except OSError as err:  # which would look like a broken connection
                raise Error("kernel", "its file cannot be read", subject=self._subject, cause=err.strerror or "") from err
        if not done:
            raise Error("corrupt", f"its file ends after {self._at} bytes", subject=self._subject, hint="ocirt fsck --repair")
        self._at += done
        return done
