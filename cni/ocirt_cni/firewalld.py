"""firewalld: the addresses of containers as sources of one of its zones, over D-Bus.

A zone decides what its sources may reach on the host itself, too, which a rule in a forward chain does not. firewalld forgets
what it was told at runtime when it is reloaded; `ocirt-cni reload` tells it again.

Of D-Bus this speaks what two methods with strings need (D-Bus Specification 0.42; org.fedoraproject.FirewallD1.zone).
"""

from __future__ import annotations

from _struct import pack, unpack_from

from ocirt_cni.errors import KERNEL, NOT_AVAILABLE, TAKEN, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_BUS = "org.freedesktop.DBus"
_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_SOCKET = "/run/dbus/system_bus_socket"
_SECONDS = 20  # firewalld loads large sets of rules without answering
_LARGEST = 1 << 20  # bytes of an answer
_CALL, _RETURN, _FAILURE = 1, 2, 3
_OBJECT, _INTERFACE, _MEMBER, _ERROR, _REPLY_TO, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8  # header fields


class RefusedError(Exception):
    """A method's error: its name, and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text

    @property
    def code(self) -> str:
        """firewalld's own name for it, such as ALREADY_ENABLED."""
        return self.text.partition(":")[0]


def find() -> Firewalld | None:
    """A connection to the firewalld that runs; None if there is none. Raises Error for a bus that does not answer."""
    import posix  # noqa: PLC0415

    address = posix.environ.get(b"DBUS_SYSTEM_BUS_ADDRESS", b"").decode("utf-8", "surrogateescape")
    try:
        bus = Bus(path_of(address) or _SOCKET)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except (OSError, ValueError) as err:
        raise Error(NOT_AVAILABLE, "the system's bus cannot be asked for firewalld", subject="D-Bus", cause=str(err)) from None
    try:
        has_owner = bus.call(_BUS, "/org/freedesktop/DBus", _BUS, "NameHasOwner", [_NAME])
    except (OSError, ValueError, RefusedError) as err:
        bus.close()
        raise Error(
            NOT_AVAILABLE, "the system's bus does not say whether firewalld runs", subject="D-Bus", cause=str(err)
        ) from None
    if has_owner == "1":
        return Firewalld(bus)
    bus.close()
    return None


class Firewalld:
    """firewalld, as it runs now. Nothing of what is changed here outlives its reload."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def __enter__(self) -> Firewalld:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bus.close()

    def admit(self, zone: str, sources: Iterable[str]) -> None:
        """Put addresses into a zone, where they may be already. Raises Error, also if one is in another zone."""
        for one in sources:
            try:
                self._call("addSource", [zone, one])
            except RefusedError as err:
                if err.code in ("ALREADY_ENABLED", "ZONE_ALREADY_SET"):
                    continue
                if err.code == "ZONE_CONFLICT":
                    raise self._conflict(zone, one) from None
                if err.code == "INVALID_ZONE":
                    hint = "`firewall-cmd --get-zones` lists those that there are"
                    raise Error(KERNEL, f"firewalld has no zone {zone!r}", subject="/firewalldZone", hint=hint) from None
                raise _refused(f"{one} cannot be put into the zone {zone}", err) from None

    def dismiss(self, zone: str, sources: Iterable[str]) -> None:
        """Take addresses out of a zone, where they need not be. Raises Error."""
        for one in sources:
            try:
                self._call("removeSource", [zone, one])
            except RefusedError as err:
                if err.code not in ("UNKNOWN_SOURCE", "NOT_ENABLED", "INVALID_ZONE", "ZONE_CONFLICT"):
                    raise _refused(f"{one} cannot be taken out of the zone {zone}", err) from None

    def lacking(self, zone: str, sources: Iterable[str]) -> list[str]:
        """Those of the addresses that are not in the zone. Raises Error."""
        try:
            return [one for one in sources if self._call("querySource", [zone, one]) != "1"]
        except RefusedError as err:
            raise _refused(f"the sources of the zone {zone} cannot be read", err) from None

    def _conflict(self, zone: str, source: str) -> Error:
        try:
            other = self._call("getZoneOfSource", [source])
        except RefusedError:
            other = "another"
        hint = f"`firewall-cmd --zone={other} --remove-source={source}`, if nobody needs it there"
        return Error(TAKEN, f"firewalld has it in the zone {other}, not in {zone}", subject=source, hint=hint)

    def _call(self, member: str, arguments: Sequence[str]) -> str:
        try:
            return self._bus.call(_NAME, _PATH, f"{_NAME}.zone", member, arguments)
        except (OSError, ValueError) as err:
            hint = "`systemctl status firewalld` says whether it is well"
            raise Error(KERNEL, f"firewalld does not answer to {member}", cause=str(err), hint=hint) from None


def _refused(message: str, err: RefusedError) -> Error:
    return Error(KERNEL, message, subject="firewalld", cause=err.text or err.name)


class Bus:
    """A connection to a message bus, for methods that take strings and return a string or a boolean ("1", "0")."""

    def __init__(self, path: str | bytes) -> None:
        """Connect, authenticate, say hello. Raises OSError; ValueError for a peer that does not speak D-Bus."""
        import posix  # noqa: PLC0415
        from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket  # noqa: PLC0415

        self._data = b""
        self._serial = 0
        self._socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self._socket.settimeout(_SECONDS)
            self._socket.connect(path)
            identity = str(posix.geteuid()).encode().hex().encode()
            self._socket.sendall(b"\0AUTH EXTERNAL " + identity + b"\r\n")
            while b"\r\n" not in self._data:
                self._more()
            line, _, self._data = self._data.partition(b"\r\n")
            if not line.startswith(b"OK"):
                raise ValueError(f"it does not let us in: {line[:80].decode('utf-8', 'replace')}")
            self._socket.sendall(b"BEGIN\r\n")
            try:
                self.call(_BUS, "/org/freedesktop/DBus", _BUS, "Hello", [])
            except RefusedError as err:
                raise ValueError(str(err)) from None
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(self, destination: str, path: str, interface: str, member: str, arguments: Sequence[str]) -> str:
        """Call a method; its first result, "" if it has none. Raises RefusedError, OSError, ValueError."""
        self._serial += 1
        self._socket.sendall(request(self._serial, destination, path, interface, member, arguments))
        while True:
            kind, fields, body, order = self._receive()
            if fields.get(_REPLY_TO) != self._serial:
                continue  # a signal
            value = first(fields.get(_SIGNATURE, ""), body, order)
            if kind == _FAILURE:
                raise RefusedError(str(fields.get(_ERROR, "")), value)
            return value

    def _receive(self) -> tuple[int, dict[int, str | int], bytes, str]:
        while len(self._data) < 16:
            self._more()
        size = size_of(self._data)
        while len(self._data) < size:
            self._more()
        message, self._data = self._data[:size], self._data[size:]
        return parse(message)

    def _more(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError(104, "the bus closed the connection")
        self._data += data
        if len(self._data) > _LARGEST:
            raise ValueError("more than a megabyte, where a short answer was expected")


# -- the form of messages ------------------------------------------------------------------------------------------------------


def path_of(address: str) -> str | bytes:
    """The first unix socket of a bus's address, a path or an abstract name; "" if it names none."""
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        words = dict(word.partition("=")[::2] for word in rest.split(",") if word)
        if transport == "unix" and "path" in words:
            return words["path"]
        if transport == "unix" and "abstract" in words:
            return b"\0" + words["abstract"].encode("utf-8", "surrogateescape")
    return ""


def request(serial: int, destination: str, path: str, interface: str, member: str, arguments: Sequence[str]) -> bytes:
    """A method call with strings."""
    body = b""
    for one in arguments:
        body = _padded(body, 4) + _string(one)
    fields = [(_OBJECT, "o", path), (_INTERFACE, "s", interface), (_MEMBER, "s", member), (_DESTINATION, "s", destination)]
    header = b""
    for number, kind, value in fields:
        header = _padded(header, 8) + bytes((number, 1)) + kind.encode() + b"\0" + _string(value)
    if arguments:
        signature = b"s" * len(arguments)
        header = _padded(header, 8) + bytes((_SIGNATURE, 1)) + b"g\0" + bytes((len(signature),)) + signature + b"\0"
    start = b"l" + bytes((_CALL, 0, 1)) + pack("<III", len(body), serial, len(header))
    return _padded(start + header, 8) + body


def _string(value: str) -> bytes:
    data = value.encode()
    if b"\0" in data:
        raise ValueError("a string with a NUL in it")
    return pack("<I", len(data)) + data + b"\0"


def _padded(data: bytes, alignment: int) -> bytes:
    return data + bytes(-len(data) % alignment)


def size_of(data: bytes) -> int:
    """The length of the message that begins with these 16 bytes. Raises ValueError."""
    if data[:1] not in (b"l", b"B") or data[3] != 1:
        raise ValueError("no message of D-Bus")
    body, _, fields = unpack_from("<III" if data[:1] == b"l" else ">III", data, 4)
    size = int(16 + fields + -fields % 8 + body)
    if size > _LARGEST:
        raise ValueError("a message of more than a megabyte")
    return size


def parse(data: bytes) -> tuple[int, dict[int, str | int], bytes, str]:
    """(type, header fields by number as far as they are strings or numbers, body, byte order) of a whole message.

    Raises ValueError.
    """
    order = "<" if data[:1] == b"l" else ">"
    length = unpack_from(order + "I", data, 12)[0]
    fields: dict[int, str | int] = {}
    at, end = 16, 16 + length
    try:
        while at < end:
            at += -at % 8
            number, kind = data[at], data[at + 2 : at + 3]
            if data[at + 1] != 1:
                raise ValueError("a header field of more than one type")
            at += 4
            if kind == b"g":
                size = data[at]
                fields[number] = data[at + 1 : at + 1 + size].decode()
                at += size + 2
            else:
                at += -at % 4
                value = unpack_from(order + "I", data, at)[0]
                at += 4
                if kind in (b"s", b"o"):
                    fields[number] = data[at : at + value].decode()
                    at += value + 1
                elif kind == b"u":
                    fields[number] = value
                else:
                    raise ValueError(f"a header field of type {kind!r}")
    except IndexError:
        raise ValueError("a header that ends early") from None
    except Exception as err:  # noqa: BLE001  (struct.error cannot be named without the module `struct`)
        raise ValueError(f"a header that cannot be read: {err}") from None
    return data[1], fields, data[end + -end % 8 :], order


def first(signature: object, body: bytes, order: str) -> str:
    """The first value of a body: a string, or a boolean as "1" or "0"; "" for none, and for another type. Raises ValueError."""
    kind = str(signature)[:1]
    if kind not in ("s", "b") or not body:
        return ""
    try:
        value = unpack_from(order + "I", body)[0]
    except Exception as err:  # noqa: BLE001  (the same)
        raise ValueError(f"a body that cannot be read: {err}") from None
    return str(value) if kind == "b" else body[4 : 4 + value].decode("utf-8", "replace")
