"""Fields of JSON that others wrote: each is read with the type that it must have, or an error that names its pointer.

Optional fields may be null instead of absent: several tools write Go's empty values so.
"""

from __future__ import annotations

import json
from typing import Any

from ocirt_images.errors import Error

Json = dict[str, Any]


def parse(data: bytes, subject: str) -> Json:
    """An object from JSON text. Raises Error("invalid")."""
    try:
        return mapping(json.loads(data), subject)
    except (ValueError, RecursionError) as err:
        raise Error("invalid", "not JSON", subject=subject, cause=str(err)[:200]) from None


def mapping(value: object, pointer: str) -> Json:
    """`value` as an object. Raises Error("invalid")."""
    if not isinstance(value, dict):
        raise Error("invalid", f"an object is wanted, not {_kind(value)}", subject=pointer)
    return value


def items(value: Json, name: str, pointer: str) -> list[Any]:
    """The list in a field, empty where there is none. Raises Error("invalid")."""
    found = value.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Error("invalid", f"a list is wanted, not {_kind(found)}", subject=f"{pointer}/{name}")
    return found


def text(value: Json, name: str, pointer: str, default: str | None = None) -> str:
    """The text in a field, or `default` (None: it must be there). Raises Error("invalid")."""
    found = value.get(name)
    if found is None and default is not None:
        return default
    if not isinstance(found, str):
        what = "missing" if found is None else f"a string is wanted, not {_kind(found)}"
        raise Error("invalid", what, subject=f"{pointer}/{name}")
    return found


def texts(value: Json, name: str, pointer: str) -> list[str]:
    """The list of texts in a field, empty where there is none. Raises Error("invalid")."""
    found = items(value, name, pointer)
    for number, one in enumerate(found):
        if not isinstance(one, str):
            raise Error("invalid", f"a string is wanted, not {_kind(one)}", subject=f"{pointer}/{name}/{number}")
    return found


def strings(value: Json, name: str, pointer: str) -> dict[str, str]:
    """The texts by name in a field, empty where there is none. Raises Error("invalid")."""
    found = value.get(name)
    if found is None:
        return {}
    for key, one in mapping(found, f"{pointer}/{name}").items():
        if not isinstance(one, str):
            raise Error("invalid", f"a string is wanted, not {_kind(one)}", subject=f"{pointer}/{name}/{key}")
    return dict(found)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
