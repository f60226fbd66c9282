"""What clients call images: names, names with digests, ids and the beginnings of ids."""

from __future__ import annotations

import re

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})", re.ASCII)


def reference(text: str, field: str = "image.image") -> Reference:
    """The reference that a client means. Short names are docker.io's; beside a digest a tag says nothing, and is dropped.

    field: of the request, for the error. Raises Error("invalid").
    """
    if not text:
        raise Error("invalid", "no image is named", subject=field, hint="HOST/PATH:TAG")
    try:
        found = Reference.parse(text, short=True)
    except Error as err:
        raise Error("invalid", f"{err.subject}: {err.message}", subject=field, cause=err.cause, hint=err.hint) from None
    return found if found.digest is None else found.with_digest(found.digest)


def hexadecimal(text: str) -> str:
    """The digits in what may be an id or the beginning of one, with or without `sha256:`; "" for anything else."""
    match = _HEX.fullmatch(text)
    return match[1] if match else ""


def stored(name: str) -> Reference | None:
    """The reference that an image in the store is kept by; None for one that has no name but its digest."""
    try:
        Digest(name)
    except Error:
        pass
    else:
        return None
    try:
        return Reference.parse(name, short=True)
    except Error:
        return None
