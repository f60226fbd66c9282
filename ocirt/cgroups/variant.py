"""Values of D-Bus written as text, as annotations of config.json have them (GVariant Text Format): `uint64 5`, `['a', 'b']`.

An integer without a type is int32, a string without one a string, as for runc. The first value of an array gives the type of all.
"""

from __future__ import annotations

from ocirt.cgroups.dbus import types_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # The letter of its type, if the text says it or it can be only one; what stands in the text; the nodes in it.
    Node = tuple[str, str, Any]

_NAMES = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_BITS = {"y": (8, False), "n": (16, True), "q": (16, False), "i": (32, True), "u": (32, False), "x": (64, True), "t": (64, False)}
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "\n": ""}
_DEEPEST = 32


def read(text: str) -> tuple[str, Any]:
    """(signature, value) of a text. Raises ValueError with what is wrong."""
    reader = _Reader(text)
    found = reader.value("", 0)
    if reader.peek():
        raise ValueError(f"{text[reader.at :]!r} follows the value")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def expect(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise ValueError(f"{wanted!r} is missing at {self.text[self.at :]!r}")
        self.at += 1

    def value(self, kind: str, depth: int) -> tuple[str, Any]:
        """A value of type `kind`, or with "" of the type that the text says."""
        first = self.peek()
        if depth > _DEEPEST:
            raise ValueError("values too deep in one another")
        if not first:
            raise ValueError("a value is missing")
        if first in "'\"":
            return _typed(kind or "s", "sog", self.string())
        if first == "b" and self.text[self.at + 1 : self.at + 2] in ("'", '"'):
            self.at += 1
            return _typed(kind or "ay", ("ay",), self.byte_string())
        if first == "[":
            return self.array(kind, depth)
        if first == "{":
            return self.dictionary(kind, depth)
        if first == "<":
            self.at += 1
            inside = self.value("", depth + 1)
            self.expect(">")
            return _typed(kind or "v", "v", inside)
        if first == "@":
            named = self.text[self.at + 1 :].split(None, 1)[0] if self.text[self.at + 1 :].strip() else ""
            self.at += 1 + len(named)
            if len(types_of(named)) != 1:
                raise ValueError(f"{named!r} is not one type")
            return self.annotated(kind, named, depth)
        if first in "+-." or first.isdigit():
            return _number(self.word(), kind)
        word = self.word()
        if word in ("true", "false"):
            return _typed(kind or "b", "b", word == "true")
        if word not in _NAMES:
            raise ValueError(f"unrecognized type {word!r}")
        return self.annotated(kind, _NAMES[word], depth)

    def annotated(self, kind: str, named: str, depth: int) -> tuple[str, Any]:
        if kind and kind != named:
            raise ValueError(f"a value of type {kind!r} is expected, not {named!r}")
        return self.value(named, depth + 1)

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and not self.text[self.at].isspace() and self.text[self.at] not in "[]{}<>,:'\"":
            self.at += 1
        return self.text[start : self.at]

    def string(self) -> str:
        quote = self.text[self.at]
        self.at += 1
        out: list[str] = []
        while True:
            one = self._next("string")
            if one == quote:
                return "".join(out)
            if one != "\\":
                out.append(one)
                continue
            one = self._next("string")
            if one in "uU":
                size = 4 if one == "u" else 8
                digits = self.text[self.at : self.at + size]
                if len(digits) < size:
                    raise ValueError("short unicode escape")
                out.append(chr(int(digits, 16)))
                self.at += size
            else:
                out.append(_ESCAPES.get(one, one))

    def byte_string(self) -> bytes:
        """With the NUL that every byte string of this format ends with."""
        quote = self.text[self.at]
        self.at += 1
        out = bytearray()
        while True:
            one = self._next("bytestring")
            if one == quote:
                return bytes(out) + b"\0"
            if one != "\\":
                out += one.encode("utf-8", "surrogateescape")
                continue
            one = self._next("bytestring")
            if one in "x0":
                size, base = (2, 16) if one == "x" else (3, 8)
                digits = self.text[self.at : self.at + size]
                if len(digits) < size:
                    raise ValueError("short escape")
                out += bytes((int(digits, base),))
                self.at += size
            else:
                out += _ESCAPES.get(one, one).encode("utf-8", "surrogateescape")

    def _next(self, what: str) -> str:
        if self.at >= len(self.text):
            raise ValueError("unterminated " + what)
        self.at += 1
        return self.text[self.at - 1]

    def array(self, kind: str, depth: int) -> tuple[str, Any]:
        if kind and kind[0] != "a":
            raise ValueError(f"an array, but a value of type {kind!r} is expected")
        items = []
        inner = kind[1:]
        self.at += 1
        if self.peek() == "]":
            self.at += 1
        else:
            while True:
                inner, item = self.value(inner, depth + 1)
                items.append(item)
                if self.peek() != ",":
                    self.expect("]")
                    break
                self.at += 1
        if not inner:
            raise ValueError("an empty array needs a type, such as @as []")
        return "a" + inner, bytes(items) if inner == "y" else items

    def dictionary(self, kind: str, depth: int) -> tuple[str, Any]:
        if kind and kind[:2] != "a{":
            raise ValueError(f"a dictionary, but a value of type {kind!r} is expected")
        key, inner = kind[2:3], kind[3:-1]
        items = []
        self.at += 1
        if self.peek() == "}":
            self.at += 1
        else:
            while True:
                key, name = self.value(key, depth + 1)
                self.expect(":")
                inner, item = self.value(inner, depth + 1)
                items.append((name, item))
                if self.peek() != ",":
                    self.expect("}")
                    break
                self.at += 1
        if not key:
            raise ValueError("an empty dictionary needs a type, such as @a{ss} {}")
        return f"a{{{key}{inner}}}", items


def _typed(kind: str, allowed: str | tuple[str, ...], value: Any) -> tuple[str, Any]:
    if kind not in allowed:
        raise ValueError(f"{value!r} is not of type {kind!r}")
    return kind, value


def _number(word: str, kind: str) -> tuple[str, Any]:
    digits = word.lstrip("+-")
    hexadecimal = digits.lower().startswith("0x")
    if not kind:
        kind = "d" if not hexadecimal and any(letter in word for letter in ".eE") else "i"
    try:
        if kind == "d":
            return kind, float(word)
        if hexadecimal:
            number = int(word, 16)
        else:
            number = int(word, 8 if len(digits) > 1 and digits[0] == "0" else 10)
    except ValueError:
        raise ValueError(f"bad number syntax: {word!r}") from None
    if kind not in _BITS:
        raise ValueError(f"{word} is not of type {kind!r}")
    bits, signed = _BITS[kind]
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not least <= number <= most:
        raise ValueError(f"{word} is out of range for type {kind!r}")
    return kind, number
