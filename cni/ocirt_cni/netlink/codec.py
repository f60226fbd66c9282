"""The bytes of netlink: messages and their attributes, without a socket (netlink(7); Documentation/userspace-api/netlink)."""

from __future__ import annotations

from _struct import pack, unpack_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    # Of one attribute: its bytes, a 32-bit number, a text that ends with a null byte, or attributes within it.
    Value = bytes | int | str | Mapping[int, "Value"] | list[tuple[int, "Value"]]
    Attributes = dict[int, bytes]

HEADER = 16  # bytes of a message before its contents
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_ACK_TLVS = 0x200
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF


def attribute(kind: int, value: Value) -> bytes:
    """One attribute, padded."""
    if isinstance(value, int):
        value = pack("I", value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    elif not isinstance(value, bytes):
        value, kind = attributes(value), kind | _NLA_F_NESTED
    return pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(values: Mapping[int, Value] | list[tuple[int, Value]]) -> bytes:
    """Attributes, in their order."""
    pairs = values if isinstance(values, list) else values.items()
    return b"".join([attribute(kind, value) for kind, value in pairs])


def message(kind: int, flags: int, sequence: int, contents: bytes) -> bytes:
    """A request."""
    return pack("IHHII", HEADER + len(contents), kind, flags | NLM_F_REQUEST, sequence, 0) + contents


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, contents) of each message in a datagram."""
    start = 0
    while start + HEADER <= len(data):
        size, kind, flags, sequence = unpack_from("IHHI", data, start)
        if size < HEADER:
            return
        yield kind, flags, sequence, data[start + HEADER : start + size]
        start += size + 3 & ~3


def parse(data: bytes, start: int = 0) -> Attributes:
    """The attributes from byte `start` on, by their type; of several of one type the last."""
    return dict(each(data, start))


def each(data: bytes, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute from byte `start` on."""
    while start + 4 <= len(data):
        size, kind = unpack_from("HH", data, start)
        if size < 4:
            return
        yield kind & _NLA_TYPE_MASK, data[start + 4 : start + size]
        start += size + 3 & ~3


def number(value: bytes) -> int:
    """The value of an attribute that is an unsigned number of 1, 2, 4 or 8 bytes in the machine's order."""
    return int.from_bytes(value, "little" if pack("H", 1) == b"\1\0" else "big")


def text(value: bytes) -> str:
    """The value of an attribute that is a text."""
    return value.rstrip(b"\0").decode("utf-8", "surrogateescape")
