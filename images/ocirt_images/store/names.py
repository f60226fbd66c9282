"""Which image a person means by what they typed, and which they may have meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from ocirt_images.store.images import ImageRecord

_ID = re.compile(r"[0-9a-f]{3,64}", re.ASCII)
_SHOWN = 5


def find(text: str, records: Sequence[ImageRecord]) -> ImageRecord:
    """By name as it stands; by the full name of a short one; by digest; by ID or the beginning of one.

    Raises Error("not-found"), Error("invalid").
    """
    names = {record.name: record for record in records}
    for name in (text, Reference.full(text)):
        if name in names:
            return names[name]
    found = _by_digest(text, records) or _by_id(text, records)
    if not found:
        raise near(text, records)
    if len({record.config for record in found}) > 1:
        listed = ", ".join(f"{record.name} ({record.config.short})" for record in found[:_SHOWN])
        raise Error("invalid", f"{len(found)} images could be meant", subject=text[:255], hint=f"one of {listed}")
    return found[0]


def near(text: str, records: Sequence[ImageRecord]) -> Error:
    """Error("not-found") that lists names like this one: other tags of the same repository first."""
    names = [record.name for record in records]
    wanted = Reference.full(text) or text[:255]
    repository = wanted.partition("@")[0].rpartition(":")[0] or wanted
    same = [name for name in names if name.startswith((f"{repository}:", f"{repository}@"))]
    alike = difflib.get_close_matches(wanted, names, n=_SHOWN, cutoff=0.75)
    listed = list(dict.fromkeys([*sorted(same, key=lambda name: name not in alike), *alike]))[:_SHOWN]
    hint = f"there is {', '.join(listed)}" if listed else "ocirt images lists what there is"
    return Error("not-found", "no such image", subject=text[:255], hint=hint)


def _by_digest(text: str, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    """`sha256:HEX`, or `NAME@sha256:HEX`: then of images whose name has this repository only."""
    name, at, rest = text.rpartition("@")
    try:
        digest = Digest(rest)
    except Error:
        return []
    found = [record for record in records if digest in (record.target.digest, record.manifest, record.config)]
    if at:
        repository = Reference.full(name).rpartition(":")[0]
        found = [record for record in found if record.name.partition("@")[0].rpartition(":")[0] == repository]
    return found


def _by_id(text: str, records: Sequence[ImageRecord]) -> list[ImageRecord]:
    return [record for record in records if record.id.startswith(text)] if _ID.fullmatch(text) else []
