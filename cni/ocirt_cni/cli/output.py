"""What goes to the standard output: JSON for programs, tables for people."""

from __future__ import annotations

import os

from ocirt_cni import jsonio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_STEP = "    "


def out(text: str) -> None:
    """Write all of it. Raises OSError."""
    data = text.encode(errors="backslashreplace")
    while data:
        data = data[os.write(1, data) :]


def show_json(value: Any) -> None:
    """Write a JSON document as cnitool does, with indentation, and a line's end."""
    out(pretty(value) + "\n")


def pretty(value: Any, indent: str = "") -> str:
    """JSON with four spaces a level; lists and objects that are empty on one line."""
    deeper = indent + _STEP
    if isinstance(value, dict) and value:
        lines = [f"{deeper}{jsonio.dumps(str(key))}: {pretty(one, deeper)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(deeper + pretty(one, deeper) for one in value) + f"\n{indent}]"
    return jsonio.dumps(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, as wide as they need to be. Empty cells are dashes."""
    cells = [tuple(head), *(tuple(cell or "-" for cell in row) for row in rows)]
    widths = [max(len(row[number]) for row in cells) for number in range(len(head))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in cells)
