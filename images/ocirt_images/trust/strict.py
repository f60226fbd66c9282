"""JSON that trust is built on: a field that nobody knows, or that is there twice, makes all of it invalid."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping

if TYPE_CHECKING:
    from collections.abc import Collection


def parse(data: bytes, subject: str) -> Json:
    """An object from JSON text, in which no name occurs twice. Raises Error("invalid")."""

    def once(pairs: list[tuple[str, object]]) -> Json:
        found: Json = {}
        for name, value in pairs:
            if name in found:
                raise Error("invalid", f"{name[:80]!r} is there twice", subject=subject)
            found[name] = value
        return found

    try:
        return mapping(json.loads(data, object_pairs_hook=once), subject)
    except (ValueError, RecursionError) as err:
        raise Error("invalid", "not JSON", subject=subject, cause=str(err)[:200]) from None


def check(value: Json, known: Collection[str], pointer: str) -> None:
    """Raises Error("invalid") for a field that is not among the known ones."""
    for name in value:
        if name not in known:
            raise Error("invalid", f"{name[:80]!r} is not known here", subject=pointer, hint=f"known: {', '.join(known)}")
