"""What goes to standard output: text, tables, JSON; sizes and times for people."""

from __future__ import annotations

import json
import os
from typing import Any

_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def out(text: str, fd: int = 1) -> None:
    """Write all of `text`. A reader that went away ends the process as SIGPIPE would have (status 141). Raises OSError."""
    write(text.encode("utf-8", "surrogateescape"), fd)


def write(data: bytes, fd: int = 1) -> None:
    """The same with bytes."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            os._exit(141)


def show_json(value: Any) -> None:
    """One JSON document, indented."""
    out(json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as lines, the first of which is the head: columns are three spaces apart, and the last is not padded."""
    widths = [3 + max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows)


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
