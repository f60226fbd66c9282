"""TOML that others wrote: every value is read with the type that it must have, or an error that names file and key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|m|s))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d*)?)(h|ms|m|s)", re.ASCII)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Table:
    """A table of a file. Each method raises Error("invalid") for a value of another kind."""

    def __init__(self, path: Path, value: dict[str, Any], key: str = "") -> None:
        self.path = path
        self.value = value
        self.key = key

    @classmethod
    def read(cls, path: Path) -> Table | None:
        """The whole of a file; None if there is none. Raises OSError, Error("invalid")."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        import tomllib  # noqa: PLC0415  (most machines have no such file)

        try:
            return cls(path, tomllib.loads(data.decode()))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
            raise Error("invalid", "not TOML", subject=str(path), cause=str(err)) from None

    def name(self, key: str) -> str:
        """A key with those above it, as it stands in the file."""
        shown = key if _BARE.fullmatch(key) else f'"{key}"'
        return f"{self.key}.{shown}" if self.key else shown

    def error(self, key: str, message: str, hint: str = "") -> Error:
        """What is wrong with a key."""
        return Error("invalid", f"{self.name(key)}: {message}", subject=str(self.path), hint=hint)

    def check(self, known: Iterable[str]) -> None:
        """Raises Error("invalid") for a key that looks like a slip. Others may be of a version to come."""
        known = frozenset(known)
        for key in self.value.keys() - known:
            import difflib  # noqa: PLC0415  (for a slip)

            near = difflib.get_close_matches(key, known, 1, 0.8)
            if near:
                raise self.error(key, "no such key", hint=f"is {near[0]} meant?")

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        found = self.value.get(key, default)
        if not isinstance(found, str):
            raise self.error(key, "not a string")
        return found

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """true or false."""
        found = self.value.get(key, default)
        if not isinstance(found, bool):
            raise self.error(key, "neither true nor false")
        return found

    def texts(self, key: str) -> list[str]:
        """A list of strings, empty where there is none."""
        found = self.value.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.error(key, "not a list of strings")
        return found

    def seconds(self, key: str) -> float | None:
        """A duration as Go writes it (`1m30s`), in seconds; None where there is none."""
        found = self.text(key)
        if not found:
            return None
        if not _DURATION.fullmatch(found):
            raise self.error(key, f"{found[:40]!r} is no duration", hint="such as 5s or 1m30s")
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(found))

    def table(self, key: str) -> Table:
        """The table of that name, empty where there is none."""
        found = self.value.get(key, {})
        if not isinstance(found, dict):
            raise self.error(key, "not a table")
        return Table(self.path, found, self.name(key))

    def tables(self, key: str) -> list[Table]:
        """The tables of that name: `[[key]]`."""
        found = self.value.get(key, [])
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self.error(key, "not a list of tables", hint=f"[[{self.name(key)}]]")
        return [Table(self.path, one, f"{self.name(key)}[{number}]") for number, one in enumerate(found)]
