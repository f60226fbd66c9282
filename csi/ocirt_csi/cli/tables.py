"""Tables and sizes for a person."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi")


def size(number: int) -> str:
    """Bytes in the largest unit of which there is one at least: 1536 is "1.5Ki"."""
    value = float(number)
    for unit in _UNITS[:-1]:
        if abs(value) < 1024:
            return f"{value:.1f}".removesuffix(".0") + unit
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + _UNITS[-1]


def show(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: as JSON with plain numbers, or the columns as a table."""
    if as_json:
        sys.stdout.write(json.dumps(list(rows), indent=2) + "\n")
        return
    lines = [[one.upper() for one in columns]] + [[_text(row[one]) for one in columns] for row in rows]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    for line in lines:
        sys.stdout.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return size(value)
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return str(value) or "-"
