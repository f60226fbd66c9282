"""Names that people type: a short one is asked about on a terminal, and is an error elsewhere."""

from __future__ import annotations

import os

from ocirt_images.cli.output import out
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.reference import Reference


def reference(text: str, *, tag: str = "latest") -> Reference:
    """The reference that is meant, with `tag` if it has neither tag nor digest.

    A short name is docker.io's for those who say so. Raises Error("invalid"), also for a short name when nobody can be asked.
    """
    try:
        return Reference.parse(text, tag=tag)
    except Error as err:
        short = Reference.parse(text, short=True, tag=tag)  # or it is no name at all, and this says why
        if not (os.isatty(0) and os.isatty(2)):
            raise err from None
    out(f"{text} is a short name. Is {short} meant? [y/N] ", 2)
    if os.read(0, 1024).decode(errors="replace").strip().lower() not in ("y", "yes"):
        raise Error("cancelled", "nothing was done", subject=text, hint="type the name with its registry")
    return short


def parts(name: str) -> tuple[str, str]:
    """Repository and tag of an image in the store, each `<none>` where there is none."""
    try:
        Digest(name)
    except Error:
        found = Reference.parse(name, short=True)
        return found.name, found.tag or "<none>"
    return "<none>", "<none>"


def kept(name: str) -> Reference | None:
    """The reference that an image in the store is kept by; None for one that has only a digest."""
    return None if parts(name)[0] == "<none>" else Reference.parse(name, short=True)
