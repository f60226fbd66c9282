"""Work that several clients may wait for: it is done once, and given up when nobody waits for it any more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


@dataclass(slots=True)
class _Flight(Generic[V]):
    task: asyncio.Task[V]
    waiting: int = 0


class Joined(Generic[K, V]):
    """Running work by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: K, start: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What `start` returns or raises; of those that ask with an equal key meanwhile, the first one's.

        Who is cancelled ends its own waiting alone, unless it is the last: then the work is cancelled.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(start()))
            flight.task.add_done_callback(lambda task: self._ended(key, task))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                # Who comes next begins anew: this one has been told to end.
                del self._flights[key]
                flight.task.cancel()

    def _ended(self, key: K, task: asyncio.Task[V]) -> None:
        if not task.cancelled():
            task.exception()  # perhaps nobody waits who would hear of it
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
