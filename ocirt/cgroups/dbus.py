"""A client of D-Bus over unix sockets, as far as systemd needs one (D-Bus Specification 0.42).

Values in Python: arrays are lists, structs and dict entries tuples, `ay` is bytes, a variant is (signature, value), the others
are bool, int, float and str. Who gets an answer that cannot be right hears an Error: what is at the other end is no D-Bus peer.
"""

from __future__ import annotations

from _struct import pack, unpack_from
from time import monotonic

from ocirt.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_NUMBERS = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
_ALIGNMENT = {"y": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8, "g": 1, "v": 1}  # the others: 4
_DEEPEST = 64  # arrays and structs in one another, variants counted
_LONGEST_ARRAY = 1 << 26  # bytes
_LONGEST_MESSAGE = 1 << 27  # bytes

CALL, RETURN, FAILURE, SIGNAL = 1, 2, 3, 4  # types of messages
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8  # header fields
BUS = "org.freedesktop.DBus"
_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_CLOEXEC = 0o2000000
_SOL_SOCKET = 1
_SO_SNDTIMEO = 21


class RemoteError(Exception):
    """The peer refused a call: `name`, such as org.freedesktop.systemd1.NoSuchUnit, and its words, `text`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(name, text)
        self.name = name
        self.text = text


# -- signatures ----------------------------------------------------------------------------------------------------------------


def types_of(signature: str) -> list[str]:
    """The complete types that a signature consists of. Raises ValueError for one that is none."""
    if len(signature) > 255:
        raise ValueError("a signature of more than 255 characters")
    found, start = [], 0
    while start < len(signature):
        end = _type_end(signature, start, 0)
        found.append(signature[start:end])
        start = end
    return found


def _type_end(signature: str, start: int, depth: int) -> int:
    letter = signature[start : start + 1]
    if depth > _DEEPEST:
        raise ValueError("types too deep in one another")
    if letter and letter in "ybnqiuxtdhsogv":
        return start + 1
    if letter == "a":
        if signature[start + 1 : start + 2] == "{":
            if signature[start + 2 : start + 3] not in tuple("ybnqiuxtdhsog"):
                raise ValueError(f"{signature!r}: the key of a dict entry is of a basic type")
            end = _type_end(signature, start + 3, depth + 1)
            if signature[end : end + 1] != "}":
                raise ValueError(f"{signature!r}: a dict entry has a key and a value")
            return end + 1
        return _type_end(signature, start + 1, depth + 1)
    if letter == "(":
        end = start + 1
        while signature[end : end + 1] != ")" or end == start + 1:
            end = _type_end(signature, end, depth + 1)
        return end + 1
    raise ValueError(f"{signature!r} is no signature")


def _align_of(kind: str) -> int:
    return _ALIGNMENT.get(kind[0], 4)


# -- writing -------------------------------------------------------------------------------------------------------------------


def encode(signature: str, values: Sequence[Any]) -> bytes:
    """The body of a message with `values`, in little-endian order. Raises ValueError for what does not fit the signature."""
    out = bytearray()
    kinds = types_of(signature)
    if len(kinds) != len(values):
        raise ValueError(f"{len(values)} values for {signature!r}")
    for kind, value in zip(kinds, values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def _pad(out: bytearray, alignment: int) -> None:
    out.extend(bytes(-len(out) % alignment))


def _put(out: bytearray, kind: str, value: Any) -> None:
    letter = kind[0]
    _pad(out, _align_of(kind))
    if letter in _NUMBERS:
        try:
            out.extend(pack("<" + _NUMBERS[letter], value))
        except Exception as error:  # (struct.error cannot be named without the module `struct`)
            raise ValueError(f"{value!r} is not of type {kind!r}") from error
    elif letter in "so":
        data = _text(value)
        out.extend(pack("<I", len(data)) + data + b"\0")
    elif letter == "g":
        types_of(value)
        data = _text(value)
        out.extend(bytes((len(data),)) + data + b"\0")
    elif letter == "v":
        inner, inside = value
        if len(types_of(inner)) != 1:
            raise ValueError(f"{inner!r} is not one type")
        _put(out, "g", inner)
        _put(out, inner, inside)
    elif letter == "a":
        start = len(out)
        out.extend(bytes(4))
        _pad(out, _align_of(kind[1:]))
        first = len(out)
        if kind == "ay":
            out.extend(value)
        else:
            for item in value:
                _put(out, kind[1:], item)
        length = len(out) - first
        if length > _LONGEST_ARRAY:
            raise ValueError("an array of more than 64 MiB")
        out[start : start + 4] = pack("<I", length)
    else:
        kinds = types_of(kind[1:-1])
        if len(kinds) != len(value):
            raise ValueError(f"{len(value)} members for {kind!r}")
        for each, item in zip(kinds, value, strict=True):
            _put(out, each, item)


def _text(value: str) -> bytes:
    data = value.encode()  # a lone surrogate is a ValueError
    if b"\0" in data:
        raise ValueError("a string with a NUL in it")
    return data


# -- reading -------------------------------------------------------------------------------------------------------------------


def decode(signature: str, data: bytes, order: str = "<") -> list[Any]:
    """The values in the body of a message; `order` is "<" or ">". Raises ValueError for data that is not valid."""
    reader = _Reader(data, order)
    values = [reader.value(kind, 0) for kind in types_of(signature)]
    if reader.at != len(data):
        raise ValueError("more data than the signature says")
    return values


class _Reader:
    def __init__(self, data: bytes, order: str, at: int = 0) -> None:
        self.data = data
        self.order = order
        self.at = at

    def align(self, alignment: int) -> None:
        end = self.at + -self.at % alignment
        if any(self._take(end - self.at)):
            raise ValueError("padding that is not zero")

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self.data):
            raise ValueError("data that ends early")
        self.at += size
        return self.data[self.at - size : self.at]

    def value(self, kind: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("values too deep in one another")
        letter = kind[0]
        self.align(_align_of(kind))
        if letter in _NUMBERS:
            return self._number(letter)
        if letter in "so":
            return self._string(int(self._number("u")))
        if letter == "g":
            return self._string(int(self._number("y")))
        if letter == "v":
            inner = self.value("g", depth)
            if len(types_of(inner)) != 1:
                raise ValueError(f"a variant of type {inner!r}")
            return inner, self.value(inner, depth + 1)
        if letter != "a":
            return tuple(self.value(each, depth + 1) for each in types_of(kind[1:-1]))
        length = int(self._number("u"))
        if length > _LONGEST_ARRAY:
            raise ValueError("an array of more than 64 MiB")
        self.align(_align_of(kind[1:]))
        if kind == "ay":
            return self._take(length)
        end = self.at + length
        items = []
        while self.at < end:
            items.append(self.value(kind[1:], depth + 1))
        if self.at != end:
            raise ValueError("an array that ends inside of a value")
        return items

    def _number(self, letter: str) -> Any:
        form = self.order + _NUMBERS[letter]
        data = self._take(_ALIGNMENT.get(letter, 4))
        number = unpack_from(form, data)[0]
        if letter == "b":
            if number > 1:
                raise ValueError(f"{number} is no boolean")
            return number == 1
        return number

    def _string(self, length: int) -> str:
        data = self._take(length + 1)
        if data[-1] or 0 in data[:-1]:
            raise ValueError("a string with a NUL in it, or none at its end")
        return data[:-1].decode()


# -- messages ------------------------------------------------------------------------------------------------------------------


def message(kind: int, serial: int, fields: Sequence[tuple[int, tuple[str, Any]]], body: bytes, flags: int = 0) -> bytes:
    """A whole message. `fields`: numbers of header fields with their values, as variants."""
    out = bytearray(b"l" + bytes((kind, flags, 1)) + pack("<II", len(body), serial))
    _put(out, "a(yv)", fields)
    _pad(out, 8)
    if len(out) + len(body) > _LONGEST_MESSAGE:
        raise ValueError("a message of more than 128 MiB")
    return bytes(out) + body


class Message:
    """A message that came: `kind`, its header `fields` by number, and the values of its `body`."""

    __slots__ = ("body", "fields", "kind", "serial")

    def __init__(self, kind: int, serial: int, fields: dict[int, Any], body: list[Any]) -> None:
        self.kind = kind
        self.serial = serial
        self.fields = fields
        self.body = body

    @property
    def text(self) -> str:
        """The first value, if it is a string: what an error says."""
        return self.body[0] if self.body and isinstance(self.body[0], str) else ""


def size_of(data: bytes) -> int:
    """How many bytes the message has that begins with `data`; 0 when its first 16 are not there yet. Raises ValueError."""
    if len(data) < 16:
        return 0
    order = _order(data)
    body, _, fields = unpack_from(order + "III", data, 4)
    if fields > _LONGEST_ARRAY or body > _LONGEST_MESSAGE:
        raise ValueError("a message that is too long")
    return 16 + int(fields) + -int(fields) % 8 + int(body)


def _order(data: bytes) -> str:
    if data[:1] not in (b"l", b"B") or data[3] != 1:
        raise ValueError("no D-Bus message")
    return "<" if data[:1] == b"l" else ">"


def parse(data: bytes) -> Message:
    """A message of exactly these bytes. Raises ValueError."""
    order = _order(data)
    (serial,) = unpack_from(order + "I", data, 8)
    reader = _Reader(data, order, 12)
    fields = {number: value for number, (_, value) in reader.value("a(yv)", 0)}
    reader.align(8)
    signature = fields.get(_SIGNATURE, "")
    if type(signature) is not str:
        raise ValueError("a signature that is no string")
    return Message(data[1], serial, fields, decode(signature, data[reader.at :], order))


# -- connections ---------------------------------------------------------------------------------------------------------------


def addresses(text: str) -> list[str | bytes]:
    """The unix sockets that a D-Bus address names, in its order: paths, and abstract names (which begin with a NUL byte).

    Raises Error("invalid") when there is none that can be used.
    """
    found: list[str | bytes] = []
    for one in text.split(";"):
        transport, _, rest = one.partition(":")
        words = dict(word.partition("=")[::2] for word in rest.split(",") if word)
        if transport != "unix":
            continue
        if "path" in words:
            found.append(_unescape(words["path"]).decode("utf-8", "surrogateescape"))
        elif "abstract" in words:
            found.append(b"\0" + _unescape(words["abstract"]))
    if not found:
        raise Error("invalid", "no address of a unix socket", subject=text, hint="for example unix:path=/run/user/1000/bus")
    return found


def _unescape(text: str) -> bytes:
    head, *rest = text.encode("utf-8", "surrogateescape").split(b"%")
    try:
        return head + b"".join(bytes((int(part[:2], 16),)) + part[2:] for part in rest)
    except ValueError:
        raise Error("invalid", "cannot be read", subject=text, hint="% and two hexadecimal digits stand for a byte") from None


class Connection:
    """A connection to one peer, or with `bus` to a message bus. `uid`: who we are for it, None where it is to find out itself.

    Every wait ends after `seconds`, with an Error. Signals that come in between are kept in `signals`.
    """

    def __init__(self, socket: str | bytes, *, bus: bool, uid: int | None, seconds: float) -> None:
        """Connect and authenticate (SASL EXTERNAL). Raises OSError, Error("kernel") for a peer that does not want us."""
        # Not `socket`, which loads enum and selectors.
        import _socket  # noqa: PLC0415

        self.name = socket if isinstance(socket, str) else "@" + socket[1:].decode("utf-8", "replace")
        self.seconds = seconds
        self.bus = bus
        self.signals: list[Message] = []
        self._buffer = b""
        self._serial = 0
        self._socket = _socket.socket(_AF_UNIX, _SOCK_STREAM | _SOCK_CLOEXEC)
        try:
            # While a peer has too many that wait to be accepted, connect(2) waits, but not for ever.
            self._socket.setsockopt(_SOL_SOCKET, _SO_SNDTIMEO, pack("ll", int(seconds), 0))
            self._socket.connect(socket)
            identity = b"\r\nDATA" if uid is None else b" " + str(uid).encode().hex().encode()
            # BEGIN in the same write: systemd (252) forgets a message that it reads together with BEGIN, until another one comes.
            self._send(b"\0AUTH EXTERNAL" + identity + b"\r\nBEGIN\r\n", self._end())
            self._authenticated()
            if bus:
                self.call(BUS, "/org/freedesktop/DBus", BUS, "Hello")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def call(
        self, destination: str, path: str, interface: str, member: str, signature: str = "", arguments: Sequence[Any] = ()
    ) -> list[Any]:
        """Call a method and return what it returns. Raises RemoteError for a refusal, Error, OSError."""
        end = self._end()
        self._serial += 1
        serial = self._serial
        fields: list[tuple[int, tuple[str, Any]]] = [
            (_PATH, ("o", path)),
            (_INTERFACE, ("s", interface)),
            (_MEMBER, ("s", member)),
            (_DESTINATION, ("s", destination)),
        ]
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        self._send(message(CALL, serial, fields, encode(signature, arguments)), end)
        while True:
            got = self._receive(end, f"an answer to {member}")
            if got.kind == SIGNAL:
                self.signals.append(got)
            elif got.fields.get(_REPLY_SERIAL) == serial:
                if got.kind == FAILURE:
                    raise RemoteError(str(got.fields.get(_ERROR_NAME, "")), got.text)
                return got.body

    def wait_signal(self, member: str, first: int, value: Any) -> list[Any]:
        """The body of the first signal `member` whose value number `first` is `value`. Raises Error after `seconds`, OSError."""
        end = self._end()
        kept = self.signals
        while True:
            got = kept.pop(0) if kept else self._receive(end, f"the signal {member}")
            if got.kind == SIGNAL and got.fields.get(_MEMBER) == member and len(got.body) > first and got.body[first] == value:
                return got.body

    def _end(self) -> float:
        return monotonic() + self.seconds

    def _send(self, data: bytes, end: float) -> None:
        self._timed(end, "its socket")
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise self._late("its socket") from None

    def _more(self, end: float, what: str) -> None:
        self._timed(end, what)
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            raise self._late(what) from None
        if not data:
            raise ConnectionResetError(104, "the connection was closed", self.name)
        self._buffer += data

    def _timed(self, end: float, what: str) -> None:
        left = end - monotonic()
        if left <= 0:
            raise self._late(what)
        self._socket.settimeout(left)

    def _late(self, what: str) -> Error:
        return Error("kernel", f"waited {self.seconds:g} s in vain for {what}", subject=self.name)

    def _authenticated(self) -> None:
        end = self._end()
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                if len(self._buffer) > 16384:
                    raise self._strange("a line without an end")
                self._more(end, "the authentication")
                continue
            self._buffer = rest
            word = line.split(b" ")[0]
            if word == b"OK":
                return
            if word != b"DATA":
                raise Error("kernel", "does not let us in", subject=self.name, cause=line.decode("utf-8", "replace"))

    def _receive(self, end: float, what: str) -> Message:
        try:
            while not (size := size_of(self._buffer)) or len(self._buffer) < size:
                self._more(end, what)
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return parse(data)
        except ValueError as error:
            raise self._strange(str(error)) from None

    def _strange(self, cause: str) -> Error:
        return Error("kernel", "does not speak D-Bus", subject=self.name, cause=cause)
