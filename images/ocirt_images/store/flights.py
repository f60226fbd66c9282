"""Single flight: of all threads and processes that want to make the same thing, one does, and the others wait for it.

Who holds the lock of a name is its owner. It is a flock on a file, so the kernel takes it from a dead owner and gives it to the
next; the file's first eight bytes say how far the owner is. An owner who leaves unlinks the file, so a lock file without an owner
means that somebody was killed (see recovery.py).
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ocirt_images.store.changes import Changes

Waiting = Callable[[int], None]
TICK = 0.25  # seconds between two calls of `waiting`
_POLL = 0.02  # seconds between two looks at another process's lock
_PROGRESS = struct.Struct("=Q")


class Flights:
    """The locks of one store, for the threads of this process and against other processes."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._guard = threading.Lock()
        self._threads: dict[Path, _Turn] = {}

    def take(self, path: Path, waiting: Waiting | None = None) -> Flight:
        """Becomes the owner, as soon as there is no other.

        waiting: called about four times a second while there is one, with the number it last reported.
        """
        flight = self._take(path, waiting or (lambda _: None))
        if flight is None:  # it only gives up when it must not wait
            raise AssertionError(path)
        return flight

    def try_take(self, path: Path) -> Flight | None:
        """Becomes the owner, unless there is one."""
        return self._take(path, None)

    def _take(self, path: Path, waiting: Waiting | None) -> Flight | None:
        with self._guard:
            turn = self._threads.setdefault(path, _Turn())
            turn.users += 1
        try:
            while not turn.lock.acquire(blocking=waiting is not None, timeout=TICK if waiting else -1):
                if waiting is None:
                    self._leave(path, turn)
                    return None
                waiting(progress(path))
        except BaseException:
            self._leave(path, turn)
            raise
        try:
            descriptor = self._flock(path, waiting)
        except BaseException:
            turn.lock.release()
            self._leave(path, turn)
            raise
        if descriptor is None:
            turn.lock.release()
            self._leave(path, turn)
            return None
        return Flight(self, path, descriptor)

    def _flock(self, path: Path, waiting: Waiting | None) -> int | None:
        """A descriptor that has the lock of the file that is at `path` now."""
        said = time.monotonic()
        while True:
            descriptor = self._changes.create(path)
            try:
                while not _flock(descriptor):
                    if waiting is None:
                        os.close(descriptor)
                        return None
                    time.sleep(_POLL)
                    if time.monotonic() - said >= TICK:
                        said = time.monotonic()
                        waiting(progress(path))
                if _same(descriptor, path):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its owner unlinked it before we had it

    def _leave(self, path: Path, turn: _Turn) -> None:
        with self._guard:
            turn.users -= 1
            if not turn.users:
                del self._threads[path]

    def _end(self, path: Path, descriptor: int) -> None:
        try:
            # Unlinked before it is unlocked: who gets the lock then sees that the file is gone, and makes a new one.
            self._changes.unlink(path)
        finally:
            os.close(descriptor)
            with self._guard:
                turn = self._threads[path]
            turn.lock.release()
            self._leave(path, turn)

    def _report(self, path: Path, descriptor: int, number: int) -> None:
        self._changes.write_at(descriptor, _PROGRESS.pack(number), 0, path)


class Flight:
    """What an owner holds. Any thread may end it."""

    def __init__(self, flights: Flights, path: Path, descriptor: int) -> None:
        self._flights = flights
        self._path = path
        self._descriptor = descriptor

    def report(self, number: int) -> None:
        """Tells those who wait how far it is; cheap enough to be called for every piece."""
        if self._descriptor >= 0:
            self._flights._report(self._path, self._descriptor, number)

    def end(self) -> None:
        """The next one may go on. Does nothing the second time."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._flights._end(self._path, descriptor)


class _Turn:
    """The lock between this process's threads, and how many of them hold or want it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


def progress(path: Path) -> int:
    """What the owner last reported; 0 if there was nothing."""
    try:
        with path.open("rb") as file:
            return int(_PROGRESS.unpack(file.read(_PROGRESS.size))[0])
    except (OSError, struct.error):
        return 0


def locked(descriptor: int, path: Path) -> bool:
    """Takes the lock of an open lock file, unless somebody has it or has just unlinked it."""
    return _flock(descriptor) and _same(descriptor, path)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
