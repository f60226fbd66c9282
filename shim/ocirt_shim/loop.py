"""A loop over poll(2): callbacks by descriptor, and a few deadlines. One thread, nothing else."""

from __future__ import annotations

import select
from time import monotonic_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
_MS = 1_000_000


class Loop:
    """Calls what was asked for, until `stop`."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._calls: dict[int, Callable[[], object]] = {}
        self._deadlines: dict[object, tuple[int, Callable[[], object]]] = {}
        self._stopped = False

    def add(self, fd: int, call: Callable[[], object], events: int = READ) -> None:
        """Call when the descriptor can be read (or `events`); one call for each descriptor."""
        self._calls[fd] = call
        self._poll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        """Wait for other events."""
        self._poll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Call no more; nothing if it is not watched."""
        if self._calls.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, nanoseconds: int, call: Callable[[], object]) -> object:
        """Call once, later; what it returns is for `cancel`."""
        token = object()
        self._deadlines[token] = monotonic_ns() + nanoseconds, call
        return token

    def cancel(self, token: object) -> None:
        """Take back `after`; nothing if it was called."""
        self._deadlines.pop(token, None)

    def stop(self) -> None:
        """Let `run` return after the callbacks of this round."""
        self._stopped = True

    def run(self) -> None:
        """Until `stop`. Raises what a callback raises."""
        while not self._stopped:
            came = [(fd, self._calls.get(fd)) for fd, _ in self._poll.poll(self._patience())]
            for fd, call in came:
                # An earlier one of this round may have removed it, and its number may be another one's by now.
                if call is not None and self._calls.get(fd) is call:
                    call()
            if self._deadlines:
                now = monotonic_ns()
                for token in [token for token, (when, _) in self._deadlines.items() if when <= now]:
                    found = self._deadlines.pop(token, None)
                    if found is not None:
                        found[1]()

    def _patience(self) -> float | None:
        if not self._deadlines:
            return None
        left = min([when for when, _ in self._deadlines.values()]) - monotonic_ns()
        return max(0, -(-left // _MS))
