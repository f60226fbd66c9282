"""Protocol buffers (https://protobuf.dev/programming-guides/encoding/), as far as CRIU's messages need them.

A message is a dict; its description is a table, field to (number, kind, repeated). The kind is `bool`, `int` (any integer or enum
that is written as a varint), `str`, or the table of a message within. Nothing is required: CRIU checks that itself.
"""

from __future__ import annotations

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Table = dict[str, tuple[int, Any, bool]]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WORD = 1 << 64


def encode(message: dict[str, Any], table: Table) -> bytes:
    """The bytes of a message, fields in the order of its dict. A field that is None is left out. Raises KeyError."""
    out = bytearray()
    for name, value in message.items():
        number, kind, repeated = table[name]
        if value is None:
            continue
        for item in value if repeated else (value,):
            if kind is bool or kind is int:
                out += _varint(number << 3 | _VARINT) + _varint(int(item))
            else:
                data = item.encode("utf-8", "surrogateescape") if kind is str else encode(item, kind)
                out += _varint(number << 3 | _BYTES) + _varint(len(data)) + data
    return bytes(out)


def _varint(value: int) -> bytes:
    value %= _WORD  # a negative number is its 64-bit complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes, table: Table) -> dict[str, Any]:
    """The fields of a message that `table` knows; one that does not repeat has the value that came last.

    Raises Error("kernel") for bytes that are none.
    """
    names = {number: (name, kind, repeated) for name, (number, kind, repeated) in table.items()}
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire = key & 7
        value: Any
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        elif wire == _BYTES:
            size, at = _read_varint(data, at)
            value, at = _take(data, at, size)
        elif wire in (_FIXED32, _FIXED64):
            value, at = _take(data, at, 4 if wire == _FIXED32 else 8)
        else:
            raise _broken()
        name, kind, repeated = names.get(key >> 3, ("", None, False))
        if not name:
            continue
        if (kind in (bool, int)) != (wire == _VARINT) or wire in (_FIXED32, _FIXED64):
            raise _broken()
        if kind is bool:
            value = bool(value)
        elif kind is int:
            value = value - _WORD if value >= _WORD >> 1 else value
        elif kind is str:
            value = value.decode("utf-8", "surrogateescape")
        else:
            value = decode(value, kind)
        if repeated:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % _WORD, at
    raise _broken()


def _take(data: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size > len(data) - at:
        raise _broken()
    return data[at : at + size], at + size


def _broken() -> Error:
    return Error("kernel", "criu's answer cannot be read", hint="is it a criu?")
