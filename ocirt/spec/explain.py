"""What to say of a value of the wrong shape: what it is, what is needed, and what would be right. Loaded only for a finding."""

from __future__ import annotations

from ocirt.jsonlite import dumps
from ocirt.spec.names import nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.spec.shape import Finding

_NAMES: dict[type, str] = {
    bool: "a boolean",
    dict: "an object",
    float: "a number with a fraction or an exponent",
    int: "an integer",
    list: "an array",
    str: "a string",
    type(None): "null",
}


def escape(name: str) -> str:
    """A property's name as a reference token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def wanted(shape: Any) -> str:
    """A shape in words."""
    if isinstance(shape, dict):
        return "an object"
    if isinstance(shape, list):
        inner = {"a string": "strings", "an object": "objects"}.get(wanted(shape[0]), "integers")
        return f"an array of {inner}"
    if isinstance(shape, range):
        return f"an integer from {shape.start} to {shape.stop - 1}"
    if isinstance(shape, tuple):
        return "one of " + ", ".join(item for item in shape if item)
    return _NAMES.get(shape, "a value")


def mismatch(value: Any, shape: Any, pointer: str) -> Finding:
    """`value` is not what `shape` wants."""
    kind = value.__class__
    if kind is str and "\0" in value:
        return (pointer, "holds a NUL character", "the kernel's strings end at a NUL: take \\u0000 out", "error")
    if kind is int and isinstance(shape, range):
        return (pointer, f"{_number(value)} is out of range", wanted(shape), "error")
    if kind is str and isinstance(shape, tuple):
        near = nearest(value, shape)
        hint = f'did you mean "{near}"?' if near else wanted(shape)
        return (pointer, f"{_brief(value)} is not known here", hint, "error")
    expected = "a string" if isinstance(shape, tuple) else wanted(shape)
    return (pointer, f"is {_NAMES.get(kind, 'a value')}, but {expected} is needed", _hint(value, shape), "error")


def _hint(value: Any, shape: Any) -> str:
    if value is None:
        return "an array has no room for null: take it out"
    if isinstance(shape, range):
        return _integer_hint(value, shape)
    if shape is bool:
        return "true or false, without quotes"
    if shape is str and isinstance(value, (bool, int, float)):
        return f'in quotes: "{_brief(value)}"'
    if shape is str and isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
        return f"without brackets: {_brief(value[0])}"
    if isinstance(shape, list):
        if isinstance(value, dict) and isinstance(shape[0], dict):
            return "put the object in brackets: [{…}]"
        if isinstance(value, str) and shape[0] is str:
            return f"in brackets: {_brief(value.split() if ' ' in value and len(value) < 40 else [value])}"
        return f"write {wanted(shape)} in brackets: […]"
    if isinstance(shape, dict):
        known = ", ".join(name for name in shape if isinstance(name, str))
        if isinstance(value, list):
            return "one object in braces, without brackets"
        return f"{{…}} with {known or 'names of your own'}"
    return wanted(shape)


def _integer_hint(value: Any, shape: range) -> str:
    if isinstance(value, bool):
        return wanted(shape)
    if isinstance(value, float):
        if value.is_integer() and int(value) in shape:
            return f"without fraction and exponent: {int(value)}"
        return wanted(shape)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 21:
        if value[0] == "0" and len(value) > 1 and not set(value) & set("89"):
            return f"JSON has no octal numbers: 0{int(value, 8):o} is {int(value, 8)}"
        return f"without quotes: {int(value)}"
    return wanted(shape)


def unknown(name: str, shape: dict[Any, Any], pointer: str) -> Finding:
    """`name` is not in the object's table; or it is a name of one's own that cannot be one."""
    below = f"{pointer}/{escape(name)}"
    if ... in shape:
        message = "holds a NUL character" if name else "an empty name stands for nothing"
        return (below, message, "give it a name of printable characters", "error")
    known = [key for key in shape if isinstance(key, str)]
    near = nearest(name, known)
    hint = f'did you mean "{near}"?' if near else "known here: " + ", ".join(known)
    return (below, "is not a property of the specification and is ignored", hint, "warning")


def missing(name: str, shape: dict[Any, Any], pointer: str) -> Finding:
    """The object lacks the required `name`."""
    return (pointer, f'lacks "{name}"', f'add "{name}": {_example(name, shape[name])}', "error")


def _example(name: str, shape: Any) -> str:
    if name == "ociVersion":
        return '"1.3.0"'
    if name == "cwd":
        return '"/"'
    return wanted(shape) if not isinstance(shape, str) else "an object"


def _number(value: int) -> str:
    return str(value) if abs(value) < 1 << 128 else "the number"


def _brief(value: Any) -> str:
    text = _number(value) if value.__class__ is int else dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
