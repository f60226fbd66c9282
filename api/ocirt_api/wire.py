"""The bytes of protocol buffers (https://protobuf.dev/programming-guides/encoding/): fields by number, without their meaning.

`message` gives them names and types. This exists for shims: protobuf costs half a MiB in every fork of a process that has
loaded it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

# How a field is written: the low three bits of its tag.
VARINT, FIXED64, LENGTH, GROUP, END_OF_GROUP, FIXED32 = range(6)
DEEPEST = 100  # groups within groups
_SIZES = {FIXED64: 8, FIXED32: 4}
_WORD = (1 << 64) - 1


class DecodeError(ValueError):
    """Bytes that are no message, or not the one that was expected. The text begins with the message and the field."""


def varint(value: int) -> bytes:
    """A number from 0 to 2**64 - 1 in groups of seven bits, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes, at: int, longest: int = 10) -> tuple[int, int]:
    """The number at `at`, and where it ends. `longest`: how many bytes it may have. Raises DecodeError."""
    value = shift = 0
    for byte in data[at : at + longest]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value & _WORD, at + shift // 7  # as protobuf has it: bits above the 64th are lost
    if len(data) - at >= longest:
        raise DecodeError(f"a number has more than {longest} bytes")
    raise DecodeError("ends within a number")


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Each field of a message: number, how it is written, and its value: an int for VARINT, bytes for all others.

    Groups, which proto3 does not have, are passed over. Raises DecodeError for what is cut off or cannot be.
    """
    at, end = 0, len(data)
    while at < end:
        number, wire, at = _tag(data, at)
        if wire == VARINT:
            value, at = read_varint(data, at)
            yield number, wire, value
        elif wire == GROUP:
            at = _after_group(data, at, number)
        else:
            start, at = _extent(data, at, number, wire)
            yield number, wire, data[start:at]


def _tag(data: bytes, at: int) -> tuple[int, int, int]:
    tag, at = read_varint(data, at, 5)
    number = tag >> 3
    if not 0 < number < 1 << 29:
        raise DecodeError(f"there is no field {number}")
    return number, tag & 7, at


def _extent(data: bytes, at: int, number: int, wire: int) -> tuple[int, int]:
    """Where a value that is neither a varint nor a group begins and ends."""
    if wire == LENGTH:
        size, at = read_varint(data, at, 5)
    elif wire in _SIZES:
        size = _SIZES[wire]
    else:
        raise DecodeError(f"field {number} is written in a way that does not exist ({wire})")
    if size > len(data) - at:
        raise DecodeError(f"ends within field {number}: {len(data) - at} of its {size} bytes are there")
    return at, at + size


def _after_group(data: bytes, at: int, number: int) -> int:
    """Where the group that begins at `at` ends."""
    inside = [number]
    while inside:
        if at >= len(data):
            raise DecodeError(f"ends within the group {inside[-1]}")
        number, wire, at = _tag(data, at)
        if wire == GROUP:
            inside.append(number)
            if len(inside) > DEEPEST:
                raise DecodeError(f"has more than {DEEPEST} groups within each other")
        elif wire == END_OF_GROUP:
            if inside.pop() != number:
                raise DecodeError(f"the group {number} ends, but has not begun")
        elif wire == VARINT:
            _, at = read_varint(data, at)
        else:
            _, at = _extent(data, at, number, wire)
    return at
