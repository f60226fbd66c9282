"""What goes to standard output: text, tables, JSON; sizes and times for people."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import Any

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
# (seconds, from how many of them on, word)
_AGES = (
    (365 * 86400, 2, "years"),
    (30 * 86400, 2, "months"),
    (7 * 86400, 2, "weeks"),
    (86400, 2, "days"),
    (3600, 2, "hours"),
    (60, 2, "minutes"),
    (1, 1, "seconds"),
)
_AGE = re.compile(r"(\d+)([smhdw])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


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


def say_json(value: Any) -> None:
    """One JSON document, indented."""
    out(json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as lines, the first of which is the head: columns are three spaces apart, and the last is not padded."""
    widths = [3 + max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "".join("".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)) + row[-1] + "\n" for row in rows)


def size(number: float) -> str:
    """Bytes in three digits, with units of a thousand, as docker shows them: `4.27MB`."""
    for unit in _UNITS:
        if number < 999.5 or unit == _UNITS[-1]:
            break
        number /= 1000
    return f"{number:.3g}{unit}" if unit != "B" else f"{number:.0f}B"


def age(then: float, now: float) -> str:
    """How long ago a time was (both in seconds since the epoch): `3 weeks ago`."""
    seconds = max(0, int(now - then))
    for length, fewest, word in _AGES:
        if seconds >= fewest * length:
            return f"{seconds // length} {word if seconds // length != 1 else word[:-1]} ago"
    return "just now"


def seconds(text: str) -> float | None:
    """An age that was typed, such as `90m`, `24h` or `1d12h`, in seconds; None for what is none."""
    found = _AGE.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        return None
    return float(sum(int(number) * _SECONDS[unit] for number, unit in found))


def count(number: int, word: str) -> str:
    """`2 layers`, `1 layer`; "" for none."""
    return f"{number} {word}{'s' if number != 1 else ''}" if number else ""


def time(text: str) -> float:
    """A time of RFC 3339, as images have it, in seconds since the epoch; 0 for what is none."""
    head, dot, rest = text.partition(".")
    if dot:  # nanoseconds are more than Python takes
        digits = len(rest) - len(rest.lstrip("0123456789"))
        text = f"{head}.{rest[: min(digits, 6)]}{rest[digits:]}"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def stamp(seconds: float) -> str:
    """Seconds since the epoch as a time of RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
