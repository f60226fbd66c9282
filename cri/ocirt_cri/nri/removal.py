"""The mark of NRI for "take this away": a "-" in front of a name, as in a path, a key or a type."""

from __future__ import annotations

MARK = "-"


def is_removal(name: str) -> bool:
    """Whether a name says that the thing goes."""
    return name.startswith(MARK)


def bare(name: str) -> str:
    """The thing's own name."""
    return name.removeprefix(MARK)
