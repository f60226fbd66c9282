"""Who is at work on what: a second call on the same thing is told ABORTED, and comes again (CSI, "Concurrency")."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ocirt_csi.errors import BusyError


class Keys:
    """Keys that are held, alone or with others who only look."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone: set[str] = set()
        self._shared: Counter[str] = Counter()

    @contextmanager
    def hold(self, *alone: str, shared: Iterable[str] = ()) -> Iterator[None]:
        """Hold keys in the `with`. Raises BusyError at once if somebody else has one of them."""
        looked = [key for key in shared if key not in alone]
        with self._lock:
            for key in alone:
                if key in self._alone or self._shared[key]:
                    raise BusyError("another call is at work on it", subject=key, hint="try again")
            for key in looked:
                if key in self._alone:
                    raise BusyError("another call is at work on it", subject=key, hint="try again")
            self._alone.update(alone)
            self._shared.update(looked)
        try:
            yield
        finally:
            with self._lock:
                self._alone.difference_update(alone)
                self._shared.subtract(looked)
                for key in looked:
                    if not self._shared[key]:
                        del self._shared[key]
