"""The compressed bytes of a layer: a file, which may still be growing while somebody else downloads it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ocirt_images.apply.names import Malformed

if TYPE_CHECKING:
    from hashlib import _Hash


class Growing:
    """How far a file has grown, told by who writes it to who reads it, which may be another process.

    The writer calls `advance` with the number of bytes from the start that are there and will not change; when that is `size`,
    the reader has all. No call blocks. `abandon` ends a reader that waits.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._told = 0
        self._lock = threading.Lock()
        # The kernel adds up what is written to it: the reader gets everything since it last looked with one read.
        self._counter = os.eventfd(0, os.EFD_CLOEXEC)

    def advance(self, valid: int) -> None:
        """The first `valid` bytes are in the file. Any thread may say so, in any order."""
        with self._lock:
            valid = min(valid, self.size)
            if valid > self._told and self._counter >= 0:
                os.eventfd_write(self._counter, valid - self._told)
                self._told = valid

    def abandon(self) -> None:
        """Nothing more comes: a reader that needs more fails."""
        with self._lock:
            if self._counter >= 0 and self._told <= self.size:
                os.eventfd_write(self._counter, self.size + 1)
                self._told = self.size + 1

    def fileno(self) -> int:
        """The descriptor from which the reader learns of it."""
        return self._counter

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            if self._counter >= 0:
                os.close(self._counter)
                self._counter = -1

    def __del__(self) -> None:
        self.close()


class Source:
    """A raw file as decompressors read it: `read`, hashing on the way, never beyond what is valid.

    `counter` is a Growing's descriptor (-1: the file is whole), `size` what the file has or will have. Raises Malformed when it
    has less, or when its writer gave up.
    """

    def __init__(self, fd: int, size: int, counter: int = -1, hasher: _Hash | None = None) -> None:
        self._fd = fd
        self._size = size
        self._counter = counter
        self._valid = size if counter < 0 else 0
        self.hasher = hasher
        self.position = 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes (all that are there now, if negative), waiting until there are some; none at the end."""
        wanted = self._wait()
        data = os.pread(self._fd, wanted if size < 0 else min(size, wanted), self.position)
        self._took(data, wanted)
        return data

    def readinto(self, buffer: memoryview) -> int:
        """The same into a buffer. How many bytes that were."""
        wanted = self._wait()
        view = memoryview(buffer)[:wanted]
        size = os.preadv(self._fd, [view], self.position)
        self._took(view[:size], wanted)
        return size

    def _wait(self) -> int:
        """How many bytes there are to read, once there are some; 0 at the end."""
        while self.position >= self._valid:
            if self.position >= self._size:
                return 0
            self._valid += os.eventfd_read(self._counter)
            if self._valid > self._size:
                raise Malformed(f"the download ended after {self.position} of {self._size} bytes")
        return self._valid - self.position

    def _took(self, data: bytes | memoryview, wanted: int) -> None:
        if wanted and not data:
            raise Malformed(f"the layer has {self.position} bytes, not {self._size}")
        self.position += len(data)
        if self.hasher is not None:
            self.hasher.update(data)
