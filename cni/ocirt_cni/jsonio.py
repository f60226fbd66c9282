"""JSON by the C halves of the standard library's `json`, whose Python half costs an executable 7 ms (it loads `re`)."""

from __future__ import annotations

from _json import encode_basestring, make_encoder, make_scanner

from ocirt_cni.errors import DECODING_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SPACE = " \t\n\r"


def _constant(text: str) -> NoReturn:
    raise Error(DECODING_FAILURE, f"{text} is not JSON")


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012  (the C scanner wants the attribute)


_scanner: Callable[[str, int], tuple[Any, int]] = make_scanner(_Context)  # type: ignore[arg-type]


def loads(data: bytes, what: str) -> Any:
    """One JSON document. Raises Error(DECODING_FAILURE) that names `what`, and the line and column of the fault."""
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise Error(DECODING_FAILURE, f"byte {err.start} is not UTF-8", subject=what) from None
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scanner(text, start)
    except StopIteration as err:
        raise _at(text, int(err.value), "a value is expected", what) from None
    except RecursionError:
        raise Error(DECODING_FAILURE, "nested too deeply", subject=what) from None
    except (SystemError, ValueError):
        raise _explained(text, start, what) from None
    if text[end:].strip(_SPACE):
        raise _at(text, end, "text after the end of the document", what)
    return value


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """One JSON object. Raises Error(DECODING_FAILURE)."""
    value = loads(data, what)
    if not isinstance(value, dict):
        raise Error(DECODING_FAILURE, "this is not an object", subject=what)
    return value


def dumps(value: Any) -> str:
    """`value` as JSON in one line. Raises TypeError for what JSON does not have."""
    return "".join(make_encoder(None, _no_form, encode_basestring, None, ":", ",", False, False, False)(value, 0))


def _no_form(value: Any) -> NoReturn:
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _explained(text: str, start: int, what: str) -> Error:
    """Scan once more with json.decoder loaded: the C scanner takes its exception from there, and has none without it."""
    from json.decoder import JSONDecodeError  # noqa: PLC0415

    try:
        _scanner(text, start)
    except JSONDecodeError as err:
        return _at(text, err.pos, err.msg[:1].lower() + err.msg[1:], what)
    except ValueError as err:  # an integer of more digits than int() takes
        return Error(DECODING_FAILURE, str(err), subject=what)
    return Error(DECODING_FAILURE, "not JSON", subject=what)


def _at(text: str, position: int, message: str, what: str) -> Error:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return Error(DECODING_FAILURE, f"line {line}, column {column}: {message}", subject=what)
