"""From processor time to processors: how fast it grew between two looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

SHORTEST = 1_000_000_000  # nanoseconds between two looks: over less, a rate says little


@dataclass(slots=True)
class _Looks:
    """The last look that counts, and the one before. Each: when, and the processor time so far."""

    last: tuple[int, int]
    before: tuple[int, int] | None = None


class Rates:
    """The rates of many cgroups. Threads do not share it."""

    def __init__(self) -> None:
        self._looks: dict[str, _Looks] = {}

    def see(self, name: str, at: int, used: int) -> int | None:
        """A look at a cgroup: nanoseconds of processor time a second since an earlier one; None if there is none yet.

        at: nanoseconds of the monotonic clock; used: processor time so far
        """
        looks = self._looks.get(name)
        if looks is None or used < looks.last[1]:
            # It is new, or another one of the same name.
            self._looks[name] = _Looks((at, used))
            return None
        if at - looks.last[0] >= SHORTEST:
            looks.before, looks.last = looks.last, (at, used)
        if looks.before is None or at <= looks.before[0]:
            return None
        return (used - looks.before[1]) * 1_000_000_000 // (at - looks.before[0])

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        self._looks = {name: looks for name, looks in self._looks.items() if name in names}
