"""Kinds of values in a configuration. Each looks at a value and says all that is wrong with it."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import check_ifname
from ocirt_cni.cli.nearest import nearest
from ocirt_cni.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

ERROR, WARNING = "error", "warning"


class Finding:
    """Something that is wrong.

    level: ERROR (the network cannot be used) or WARNING (it can, but hardly as it is meant)
    file, pointer: where; the pointer is "" for the whole document
    message, hint: what is wrong; what would be right, or ""
    """

    __slots__ = ("file", "hint", "level", "message", "pointer")

    def __init__(self, pointer: str, message: str, hint: str = "", level: str = ERROR, file: str = "") -> None:
        self.file = file
        self.pointer = pointer
        self.message = message
        self.hint = hint
        self.level = level

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.file, self.pointer) if part)
        return f"{where}: {self.level}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def document(self) -> dict[str, str]:
        """As `--json` prints it."""
        return {name: getattr(self, name) for name in ("level", "file", "pointer", "message", "hint")}


def below(at: str, name: str | int) -> str:
    """The pointer of a member (RFC 6901)."""
    return f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}"


class Kind:
    """Any value. `says` completes "this is not …"."""

    says = "a value"
    types: tuple[type, ...] = ()

    def check(self, value: Any, at: str) -> Iterator[Finding]:
        """What is wrong with a value that is not null, at a pointer."""
        if self.types and type(value) not in self.types:
            yield Finding(at, f"this is not {self.says}")
        else:
            yield from self.inside(value, at)

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """The same for a value of the right type."""
        yield from ()


class Flag(Kind):
    """true or false."""

    says = "true or false"
    types = (bool,)


class Switch(Kind):
    """true or false, perhaps as a string, which libcni takes at some places."""

    says = Flag.says
    types = (bool, str)

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """A string has to be one of the two."""
        if isinstance(value, str) and value.lower() not in ("true", "false"):
            yield Finding(at, f"{value!r} is not {self.says}")


class Number(Kind):
    """A whole number from `low` to `high`, both included."""

    says = "a whole number"
    types = (int,)

    def __init__(self, low: int = 0, high: int = (1 << 32) - 1) -> None:
        self.low = low
        self.high = high

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """It has to be in the range."""
        if not self.low <= value <= self.high:
            yield Finding(at, f"{value} is not between {self.low} and {self.high}")


class Text(Kind):
    """A string: one of `choices`, if there are any."""

    says = "a string"
    types = (str,)

    def __init__(self, *choices: str) -> None:
        self.choices = choices

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """It has to be among the choices."""
        if self.choices and value not in self.choices:
            found = nearest(value, self.choices)
            hint = f"did you mean {found}?" if found else ""
            yield Finding(at, f"{value!r} is none of {', '.join(self.choices)}", hint)


class Parsed(Text):
    """A string that `parse` takes, which raises ValueError or Error."""

    def parse(self, text: str) -> object:
        """Raises ValueError or Error."""
        raise NotImplementedError

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """What the parser says."""
        try:
            self.parse(value)
        except ValueError as err:
            yield Finding(at, str(err))
        except Error as err:
            yield Finding(at, err.message, err.hint)


class IPAddress(Parsed):
    """An IP address."""

    def parse(self, text: str) -> object:
        """Raises ValueError."""
        return Address.parse(text)


class Cidr(Parsed):
    """An IP address with the length of its network."""

    def parse(self, text: str) -> object:
        """Raises ValueError."""
        return Prefix.parse(text)


class LinkName(Parsed):
    """The name of a network interface."""

    def parse(self, text: str) -> object:
        """Raises Error."""
        check_ifname(text, "")
        return text


class Mac(Parsed):
    """The hardware address of one link."""

    def parse(self, text: str) -> object:
        """Raises ValueError."""
        parts = text.replace("-", ":").split(":")
        if len(parts) != 6 or not all(
            len(part) == 2 and all(char in "0123456789abcdefABCDEF" for char in part) for part in parts
        ):
            raise ValueError(f"{text!r} is not a hardware address, as in 02:00:00:00:00:01")
        if int(parts[0], 16) & 1 or not any(int(part, 16) for part in parts):
            raise ValueError(f"{text} is not the hardware address of one link: its first byte is even, and not all are zero")
        return text


class ListOf(Kind):
    """A list of values of a kind, at least `least` of them."""

    says = "a list"
    types = (list,)

    def __init__(self, kind: Kind, least: int = 0) -> None:
        self.kind = kind
        self.least = least

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """What is wrong with its elements."""
        if len(value) < self.least:
            yield Finding(at, "the list is empty" if not value else f"the list has fewer than {self.least} elements")
        for number, one in enumerate(value):
            if one is None:
                yield Finding(below(at, number), "this is null")
            else:
                yield from self.kind.check(one, below(at, number))


class MapOf(Kind):
    """An object whose members have names of any kind, and values of one."""

    says = "an object"
    types = (dict,)

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """What is wrong with its members."""
        for name, one in value.items():
            if one is not None:
                yield from self.kind.check(one, below(at, name))


class Object(Kind):
    """An object with fields of these names. `needs`: those that have to be there. An unknown one is a finding of `level`."""

    says = "an object"
    types = (dict,)

    def __init__(self, fields: Mapping[str, Kind], needs: Iterable[str] = (), level: str = ERROR) -> None:
        self.fields = dict(fields)
        self.needs = tuple(needs)
        self.level = level

    def inside(self, value: Any, at: str) -> Iterator[Finding]:
        """What is wrong with its fields, in their order, then which are missing."""
        for name, one in value.items():
            kind = self.fields.get(name)
            if kind is None:
                yield self.unknown(name, at, value)
            elif one is not None:
                yield from kind.check(one, below(at, name))
        for name in self.needs:
            if value.get(name) is None:
                yield Finding(below(at, name), "it is missing")

    def unknown(self, name: str, at: str, value: Mapping[str, Any]) -> Finding:
        """The finding of a field that is not known."""
        found = nearest(name, [known for known in self.fields if known not in value])
        hint = f"did you mean {found}?" if found else f"there are {', '.join(sorted(self.fields))}" if self.fields else ""
        return Finding(below(at, name), "there is no such field", hint, self.level)
