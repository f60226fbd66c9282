"""The nearest known name, for hints. Loaded only when there is something to say."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def distance(one: str, other: str) -> int:
    """Edits that turn `one` into `other`: insert, delete, replace, exchange two neighbours (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, goal in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != goal))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == goal:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, "" when none is near (more than a third of its letters differ)."""
    best, found = 1 + len(name) // 3, ""
    lower = name.lower()
    if len(name) <= 64:  # the cost is the product of the lengths
        for other in known:
            if abs(len(other) - len(name)) < best + 1 and (cost := distance(lower, other.lower())) < best:
                best, found = cost, other
    return found


def nearest_after(prefix: str, name: str, known: Iterable[str]) -> str:
    """`nearest` among names that all begin with `prefix`, which `name` may lack and which must not make it look near."""
    found = nearest(name.upper().removeprefix(prefix), [other.removeprefix(prefix) for other in known])
    return prefix + found if found else ""
