"""JSON by the C halves of the standard library's `json`, whose Python half costs 7 ms to import (it loads `re`).

Objects are dicts, arrays lists, as with `json.loads`. What `json` accepts beyond RFC 8259 (NaN, Infinity) is refused, and so is
a repeated name, which two readers would understand in two ways.
"""

from __future__ import annotations

from _json import encode_basestring, make_encoder, make_scanner

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SPACE = " \t\n\r"


def _constant(text: str) -> NoReturn:
    raise Error("invalid", f"{text} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Error("invalid", f"the name {quote(key)} stands twice in one object")
            seen.add(key)
    return out


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_object)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012  (the C scanner wants the attribute)


_scanner: Callable[[str, int], tuple[Any, int]] = make_scanner(_Context)  # type: ignore[arg-type]


def loads(data: bytes, what: str = "JSON", *, any_bytes: bool = False) -> Any:
    """Parse one JSON document from UTF-8 bytes.

    `any_bytes`: bytes in strings that are no UTF-8 become lone surrogates, as in file names and in the environment (PEP 383).

    Raises Error("invalid") that names `what`, and the line and column of the fault.
    """
    try:
        text = data.decode("utf-8", "surrogateescape" if any_bytes else "strict")
    except UnicodeDecodeError as err:
        raise Error("invalid", f"byte {err.start} is not UTF-8", subject=what) from None
    start = 0
    while start < len(text) and text[start] in _SPACE:
        start += 1
    try:
        value, end = _scanner(text, start)
    except StopIteration as err:
        raise _at(text, int(err.value), "a value is expected", what) from None
    except RecursionError:
        raise Error("invalid", "nested too deeply", subject=what) from None
    except Error as err:
        err.subject = err.subject or what
        raise
    except (SystemError, ValueError):
        raise _explained(text, start, what) from None
    if text[end:].strip(_SPACE):
        raise _at(text, end, "text after the end of the document", what)
    if "\\ud" in text or "\\uD" in text:
        _no_lone_surrogates(value, what)
    return value


def _explained(text: str, start: int, what: str) -> Error:
    """Scan once more with json.decoder loaded: the C scanner takes its exception from there, and has none without it."""
    from json.decoder import JSONDecodeError  # noqa: PLC0415

    try:
        _scanner(text, start)
    except JSONDecodeError as err:
        return _at(text, err.pos, err.msg[:1].lower() + err.msg[1:], what)
    except ValueError as err:  # an integer of more digits than int() takes
        return Error("invalid", str(err), subject=what)
    return Error("invalid", "not JSON", subject=what)


def _no_lone_surrogates(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Error("invalid", f"{quote(value)} holds half a surrogate pair", subject=what) from None
    elif isinstance(value, dict):
        for key, item in value.items():
            _no_lone_surrogates(key, what)
            _no_lone_surrogates(item, what)
    elif isinstance(value, list):
        for item in value:
            _no_lone_surrogates(item, what)


def _at(text: str, pos: int, message: str, what: str) -> Error:
    line = text.count("\n", 0, pos) + 1
    column = pos - text.rfind("\n", 0, pos)
    return Error("invalid", f"line {line}, column {column}: {message}", subject=what)


def quote(text: str) -> str:
    """`text` as a JSON string. Lone surrogates (bytes that were not UTF-8) become U+FFFD, as Go's encoder has it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    quoted: str = encode_basestring(text)
    return quoted


def _fast(value: Any) -> str:
    """`value` by the C encoder; "" where a text in it has half a surrogate pair, or a float is none of JSON's."""
    try:
        text = "".join(make_encoder(None, _no_form, encode_basestring, None, ":", ",", False, False, False)(value, 0))
        text.encode()
    except ValueError:  # a UnicodeEncodeError is one
        return ""
    return text


def _no_form(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any, indent: int = 0, depth: int = 0) -> str:
    """`value` as JSON: compact, or with `indent` spaces a level, as Go's json.MarshalIndent writes it.

    Raises TypeError for what JSON does not have.
    """
    if not indent and not depth and (fast := _fast(value)):
        return fast
    if isinstance(value, str):
        return quote(value)
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        colon = ": " if indent else ":"
        items = [quote(key) + colon + dumps(item, indent, depth + 1) for key, item in value.items()]
        ends = "{}"
    elif isinstance(value, (list, tuple)):
        items = [dumps(item, indent, depth + 1) for item in value]
        ends = "[]"
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    if not items:
        return ends
    if not indent:
        return ends[0] + ",".join(items) + ends[1]
    pad = "\n" + " " * indent * (depth + 1)
    return ends[0] + pad + ("," + pad).join(items) + pad[:-indent] + ends[1]
