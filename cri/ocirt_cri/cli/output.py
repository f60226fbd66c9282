"""What goes to standard output: text, tables, JSON; sizes and times for people."""

from __future__ import annotations

from ocirt_images.cli.output import out, say_json, table, write

__all__ = ("age", "out", "plain", "say_json", "size", "table", "write")

_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(number: float) -> str:
    """Bytes in units of 1,024, as limits are given: `12.3MiB`."""
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.3g}{unit}"


def age(seconds: float) -> str:
    """How long something lasts, in its two largest units: `3d4h`."""
    left, found = max(0, int(seconds)), []
    for length, unit in _AGES:
        if left >= length:
            found.append(f"{left // length}{unit}")
            left %= length
    return "".join(found[:2]) or "0s"


def plain(text: str) -> str:
    """A text of somebody else's, of which nothing may move the cursor or begin a line."""
    return "".join(char if char.isprintable() else "?" for char in text)
