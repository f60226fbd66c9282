"""Names in archives: bytes, cleaned, never leading out of the layer."""

from __future__ import annotations


class Malformed(Exception):
    """An archive, or an entry of it, that cannot be applied. The message is for a person."""


def shown(name: bytes) -> str:
    """A name for a message: on one line, with what cannot be printed escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text[:200])


def clean(name: bytes) -> list[bytes]:
    """The components of a name, without `.` and empty ones; none for the root of the layer.

    `a/../b` is `b`, as the makers of images mean it. Raises Malformed for a name that is absolute or leads out of the layer.
    """
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise Malformed(f"{shown(name)}: leads out of the layer")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    # Some builders name the root itself `/`.
    if parts and name.startswith(b"/"):
        raise Malformed(f"{shown(name)}: an absolute name")
    if b"\0" in name:
        raise Malformed(f"{shown(name)}: a zero byte in a name")
    return parts
