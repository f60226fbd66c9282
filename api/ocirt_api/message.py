"""Messages of protocol buffers as small classes, without protobuf: builtins and `struct` alone.

    class Mount(Message):
        type: str = string(1)
        options: list[str] = repeated(4, STRING)

    Mount(type="bind", options=["ro"]).encode()
    Mount.decode(data).type

As proto3 has it: what is not given has its default ("" or 0, None for a message), and is not written; what is not known is passed
over; the last value of a field counts. An enum is an int. `tests/unit/api` holds each class against its .proto file.
"""

from __future__ import annotations

from struct import pack, unpack

from ocirt_api import wire
from ocirt_api.wire import LENGTH, DecodeError, varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: D103  (for type checkers)
        return lambda cls: cls


class EncodeError(ValueError):
    """A value that its field cannot have. The text names the message and the field."""


class Kind:
    """A type of proto3: how a value is written and read. `zero` is the default, as it is written."""

    __slots__ = ("default", "name", "pack", "unpack", "wire", "zero")

    def __init__(
        self, name: str, how: int, default: object, to_bytes: Callable[[Any], bytes], from_wire: Callable[[Any], Any]
    ) -> None:
        self.name = name
        self.wire = how
        self.default = default
        self.pack = to_bytes
        self.unpack = from_wire
        self.zero = to_bytes(default) if default is not None else None


def _with_length(data: bytes) -> bytes:
    return varint(len(data)) + data


def _unsigned(name: str, bits: int) -> Kind:
    top = (1 << bits) - 1

    def to_bytes(value: int) -> bytes:
        if not 0 <= value <= top:
            raise ValueError
        return varint(value)

    return Kind(name, wire.VARINT, 0, to_bytes, lambda value: value & top)


def _signed(name: str, bits: int) -> Kind:
    half = 1 << (bits - 1)

    def to_bytes(value: int) -> bytes:
        if not -half <= value < half:
            raise ValueError
        return varint(value & 0xFFFF_FFFF_FFFF_FFFF)  # a negative number always has ten bytes

    return Kind(name, wire.VARINT, 0, to_bytes, lambda value: ((value + half) & (2 * half - 1)) - half)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"is not UTF-8: byte {data[error.start]:#04x} at {error.start}") from None


STRING = Kind("string", LENGTH, "", lambda value: _with_length(value.encode()), _text)
BYTES = Kind("bytes", LENGTH, b"", _with_length, bytes)
BOOL = Kind("bool", wire.VARINT, False, lambda value: b"\1" if value else b"\0", bool)
INT32 = _signed("int32", 32)
INT64 = _signed("int64", 64)
UINT32 = _unsigned("uint32", 32)
UINT64 = _unsigned("uint64", 64)
ENUM = _signed("enum", 32)
DOUBLE = Kind("double", wire.FIXED64, 0.0, lambda value: pack("<d", float(value)), lambda data: unpack("<d", data)[0])

_SINGULAR, _OPTIONAL, _REPEATED, _MAP = range(4)


class Field:
    """A field of a message: number, kind, name, and how often it may stand."""

    __slots__ = ("kind", "name", "number", "of", "rule", "tag")

    def __init__(self, number: int, kind: Kind | type[Message], rule: int = _SINGULAR) -> None:
        self.number = number
        self.name = ""
        self.rule = rule
        self.of = kind if isinstance(kind, type) else None  # the class, where the field is a message
        self.kind = kind if isinstance(kind, Kind) else _kind_of(kind)
        self.tag = varint(number << 3 | (LENGTH if rule == _MAP else self.kind.wire))

    def default(self) -> Any:
        """The value of the field in a message that does not have it."""
        if self.rule == _SINGULAR:
            return self.kind.default
        return None if self.rule == _OPTIONAL else [] if self.rule == _REPEATED else {}

    def encode(self, value: Any) -> bytes:
        """The field with its tag; nothing if it has its default."""
        kind, tag = self.kind, self.tag
        if self.rule == _SINGULAR:
            data = kind.pack(value)
            return b"" if data == kind.zero else tag + data
        if self.rule == _OPTIONAL:
            return b"" if value is None else tag + kind.pack(value)
        if self.rule == _MAP:
            entries = [_KEY + STRING.pack(key) + _VALUE + kind.pack(each) for key, each in value.items()]
            return b"".join([tag + _with_length(entry) for entry in entries])
        if kind.wire == LENGTH:
            return b"".join([tag + kind.pack(each) for each in value])
        # Numbers that repeat are packed: one after the other, as one value.
        return varint(self.number << 3 | LENGTH) + _with_length(b"".join(map(kind.pack, value))) if value else b""

    def decode(self, how: int, value: int | bytes, before: Any) -> Any:
        """The field's value once `value`, written as `how` says, is read after `before`."""
        kind = self.kind
        if self.rule == _MAP:
            if how == LENGTH:
                before.update((self._entry(value),))
        elif self.rule == _REPEATED:
            if how == kind.wire:
                before.append(kind.unpack(value))
            elif how == LENGTH:
                before.extend(self._packed(value))
        elif how == kind.wire:
            if self.of is None or before is None:
                return kind.unpack(value)
            before.merge(value)  # parts of a message that stands twice are one message
        return before  # also for what is written as another type: that is another field, which we do not know

    def _packed(self, data: Any) -> list[Any]:
        found, at = [], 0
        while at < len(data):
            if self.kind.wire == wire.VARINT:
                value, at = wire.read_varint(data, at)
            else:
                value, at = data[at : at + 8], at + 8
                if len(value) < 8:
                    raise DecodeError("ends within a number")
            found.append(self.kind.unpack(value))
        return found

    def _entry(self, data: Any) -> tuple[str, Any]:
        """Key and value of one entry of a map."""
        key, value = "", self.kind.default if self.of is None else self.of()
        for number, how, raw in wire.fields(data):
            if number == 1 and how == LENGTH:
                key = _text(raw)  # type: ignore[arg-type]
            elif number == 2 and how == self.kind.wire:
                value = self.kind.unpack(raw)
        return key, value


_KEY, _VALUE = b"\x0a", b"\x12"  # the tags of an entry's two fields


def _kind_of(cls: type[Message]) -> Kind:
    return Kind(cls.__name__, LENGTH, None, lambda value: _with_length(value.encode()), cls.decode)


@dataclass_transform(kw_only_default=True)
class Message:
    """A message: fields are attributes, and may be given by name when it is made. Equal if all of them are."""

    FIELDS: ClassVar[dict[int, Field]] = {}
    TYPE_URL: ClassVar[str] = ""  # full name in its .proto file, of what goes into an `Any`

    def __init_subclass__(cls) -> None:
        cls.FIELDS = {}
        for name, field in list(vars(cls).items()):
            if isinstance(field, Field):
                field.name = name
                cls.FIELDS[field.number] = field
                delattr(cls, name)  # an attribute of each message, from now on

    def __init__(self, **values: Any) -> None:
        for field in self.FIELDS.values():
            setattr(self, field.name, values.pop(field.name) if field.name in values else field.default())
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(values)}")

    def encode(self) -> bytes:
        """The message's bytes. Raises EncodeError for a value that its field cannot have."""
        out = []
        for field in self.FIELDS.values():
            value = getattr(self, field.name)
            try:
                out.append(field.encode(value))
            except EncodeError as error:
                raise EncodeError(f"{type(self).__name__}.{field.name}: {error}") from None
            except (AttributeError, TypeError, ValueError):
                raise EncodeError(f"{type(self).__name__}.{field.name}: {value!r} is no {field.kind.name}") from None
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The message that `data` holds. Raises DecodeError."""
        found = cls()
        found.merge(data)
        return found

    def merge(self, data: bytes) -> None:
        """Read `data` on top of what is there. Raises DecodeError; the message is then of no use."""
        known = self.FIELDS
        field = None
        try:
            for number, how, value in wire.fields(data):
                field = known.get(number)
                if field is not None:
                    setattr(self, field.name, field.decode(how, value, getattr(self, field.name)))
                field = None
        except DecodeError as error:
            where = f"{type(self).__name__}.{field.name}" if field is not None else type(self).__name__
            raise DecodeError(f"{where}: {error}") from None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        given = [(field, getattr(self, field.name)) for field in self.FIELDS.values()]
        shown = ", ".join(f"{field.name}={value!r}" for field, value in given if value != field.default())
        return f"{type(self).__name__}({shown})"


# What a class says of its fields. To a type checker each is the value that a message has there.


def string(number: int) -> str:
    """A text, in UTF-8."""
    return Field(number, STRING)  # type: ignore[return-value]


def data(number: int) -> bytes:
    """Bytes."""
    return Field(number, BYTES)  # type: ignore[return-value]


def boolean(number: int) -> bool:
    """True or false."""
    return Field(number, BOOL)  # type: ignore[return-value]


def int32(number: int) -> int:
    """A number of 32 bits."""
    return Field(number, INT32)  # type: ignore[return-value]


def int64(number: int) -> int:
    """A number of 64 bits."""
    return Field(number, INT64)  # type: ignore[return-value]


def uint32(number: int) -> int:
    """A number of 32 bits, from 0 on."""
    return Field(number, UINT32)  # type: ignore[return-value]


def uint64(number: int) -> int:
    """A number of 64 bits, from 0 on."""
    return Field(number, UINT64)  # type: ignore[return-value]


def enum(number: int) -> int:
    """A value of an enum, known or not."""
    return Field(number, ENUM)  # type: ignore[return-value]


def double(number: int) -> float:
    """A number with a point."""
    return Field(number, DOUBLE)  # type: ignore[return-value]


def one(number: int, kind: Kind | type[Message]) -> Any:
    """What can be absent (None): a message, or what is `optional` in its .proto file."""
    return Field(number, kind, _OPTIONAL)


def repeated(number: int, kind: Kind | type[Message]) -> list[Any]:
    """A list."""
    return Field(number, kind, _REPEATED)  # type: ignore[return-value]


def mapping(number: int, kind: Kind | type[Message] = STRING) -> dict[str, Any]:
    """A dict; its keys are texts."""
    return Field(number, kind, _MAP)  # type: ignore[return-value]
