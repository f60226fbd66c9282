"""What somebody meant who wrote something else."""

from __future__ import annotations

from difflib import get_close_matches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The most similar one of `known`, upper and lower case counting as the same; "" if none is similar."""
    names = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), names, 1, 0.6)
    return names[found[0]] if found else ""
