"""A way to end what is under way in many threads: each looks at the token between pieces of work, or is woken by it."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Cancel:
    """A token. `set` may be called from any thread and more than once."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._wakers: dict[int, Callable[[], None]] = {}
        self._next = 0

    def set(self) -> None:
        """End it all: what waits is woken."""
        with self._lock:
            self._set.set()
            wakers, self._wakers = list(self._wakers.values()), {}
        for wake in wakers:
            wake()

    @contextmanager
    def within(self) -> Iterator[Cancel]:
        """A token that is set together with this one, or alone: for a part of the whole that may fail without ending the rest."""
        inner = Cancel()
        forget = self.waker(inner.set)
        try:
            yield inner
        finally:
            forget()

    @property
    def is_set(self) -> bool:
        """Whether somebody gave up."""
        return self._set.is_set()

    def check(self) -> None:
        """Raises Error("cancelled") once it is set."""
        if self._set.is_set():
            raise Error("cancelled", "given up", hint="what is done is kept: the next try goes on from there")

    def waker(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called when the token is set, at once if it is. Returns what takes it back."""
        with self._lock:
            if not self._set.is_set():
                number = self._next = self._next + 1
                self._wakers[number] = wake
                return lambda: self._forget(number)
        wake()
        return lambda: None

    def _forget(self, number: int) -> None:
        with self._lock:
            self._wakers.pop(number, None)
