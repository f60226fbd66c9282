"""Errors that name a field of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 80  # characters of a value that an error repeats


def invalid(field: str, message: str, hint: str = "", *, cause: str = "", reason: str = "") -> Error:
    """A request that cannot be meant. `reason`: the word with which the kubelet wants the text to begin."""
    return Error("invalid", message, subject=_subject(field, reason), hint=hint, cause=cause)


def unsupported(field: str, message: str, hint: str = "", *, cause: str = "", reason: str = "") -> Error:
    """A request that cannot be done here. `reason` as above."""
    return Error("unsupported", message, subject=_subject(field, reason), hint=hint, cause=cause)


def shown(value: object) -> str:
    """A value of the caller's in a message: quoted, and not longer than a person reads."""
    text = value if isinstance(value, str) else str(value)
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}…"


def one_of(words: Iterable[str]) -> str:
    """A hint: the values that there are."""
    return "one of " + ", ".join(words)


def _subject(field: str, reason: str) -> str:
    return f"{reason}: {field}" if reason else field
