"""The bytes of DHCP, without a socket: messages (RFC 2131, 2132, 3396), and the IP packets around them (RFC 791, 768)."""

from __future__ import annotations

from struct import pack, unpack_from

from ocirt_cni.addresses import Address

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = range(1, 8)
CLIENT_PORT, SERVER_PORT = 68, 67
ANY, EVERYBODY = Address.parse("0.0.0.0"), Address.parse("255.255.255.255")

# Options (RFC 2132; 121: RFC 3442)
PAD, SUBNET_MASK, ROUTER, DNS_SERVER, HOST_NAME, DOMAIN_NAME = 0, 1, 3, 6, 12, 15
STATIC_ROUTE, REQUESTED_ADDRESS, LEASE_TIME, OVERLOAD, MESSAGE_TYPE, SERVER_ID = 33, 50, 51, 52, 53, 54
PARAMETER_LIST, MESSAGE, RENEWAL_TIME, REBINDING_TIME, VENDOR_CLASS, CLIENT_ID = 55, 56, 58, 59, 60, 61
USER_CLASS, CLASSLESS_ROUTE, END = 77, 121, 255

_HEAD = "!BBBBIHH4s4s4s4s16s64s128s"
_HEAD_SIZE = 236
_COOKIE = b"\x63\x82\x53\x63"
_SMALLEST = 300  # bytes of a message, which is what BOOTP servers and relays expect
_ETHERNET = 1
_BROADCAST = 0x8000
_UDP = 17


class Message:
    """A message. `kind` DISCOVER to RELEASE; `secs` since the client began; `options` without MESSAGE_TYPE."""

    __slots__ = ("broadcast", "client", "kind", "mac", "options", "secs", "xid", "yours")

    def __init__(
        self,
        kind: int,
        xid: int,
        mac: bytes,
        options: dict[int, bytes],
        *,
        secs: int = 0,
        broadcast: bool = False,
        client: Address = ANY,
        yours: Address = ANY,
    ) -> None:
        self.kind = kind
        self.xid = xid
        self.mac = mac
        self.options = options
        self.secs = secs
        self.broadcast = broadcast
        self.client = client
        self.yours = yours

    def encode(self, *, reply: bool = False) -> bytes:
        """As it goes into a datagram; `reply`: of a server."""
        flags = _BROADCAST if self.broadcast else 0
        head = pack(
            _HEAD,
            2 if reply else 1,
            _ETHERNET,
            len(self.mac),
            0,
            self.xid,
            min(self.secs, 0xFFFF),
            flags,
            self.client.packed,
            self.yours.packed,
            ANY.packed,
            ANY.packed,
            self.mac,
            b"",
            b"",
        )
        parts = [head, _COOKIE, bytes([MESSAGE_TYPE, 1, self.kind])]
        for code, value in self.options.items():
            for start in range(0, max(len(value), 1), 255):  # a longer one is split (RFC 3396)
                part = value[start : start + 255]
                parts.append(bytes([code, len(part)]) + part)
        return (b"".join(parts) + bytes([END])).ljust(_SMALLEST, b"\0")

    @classmethod
    def decode(cls, data: bytes, *, reply: bool = True) -> Message:
        """From a datagram; `reply`: of a server. Raises ValueError for what is no message of DHCP."""
        if len(data) < _HEAD_SIZE + 4 or data[_HEAD_SIZE : _HEAD_SIZE + 4] != _COOKIE:
            raise ValueError("it has no options of DHCP")
        operation, hardware, length, _, xid, secs, flags, client, yours, _, _, mac, name, file = unpack_from(_HEAD, data)
        if operation != (2 if reply else 1) or hardware != _ETHERNET or length > 16:
            raise ValueError("it is not for an Ethernet link of a client")
        options = _options(data[_HEAD_SIZE + 4 :])
        overload = options.get(OVERLOAD, b"\0")[:1]
        if overload in (b"\1", b"\3"):
            options = _options(file, options)
        if overload in (b"\2", b"\3"):
            options = _options(name, options)
        kind = options.pop(MESSAGE_TYPE, b"")
        if len(kind) != 1 or not DISCOVER <= kind[0] <= RELEASE:
            raise ValueError("it has no type")
        return cls(
            kind[0],
            xid,
            mac[:length],
            options,
            secs=secs,
            broadcast=bool(flags & _BROADCAST),
            client=Address(client),
            yours=Address(yours),
        )

    def number(self, option: int) -> int | None:
        """The value of an option of 32 bits; None if it is not there or of another size."""
        value = self.options.get(option, b"")
        return int.from_bytes(value, "big") if len(value) == 4 else None

    def addresses(self, option: int) -> list[Address]:
        """The value of an option that is a list of addresses."""
        value = self.options.get(option, b"")
        return [Address(value[start : start + 4]) for start in range(0, len(value) - 3, 4)]


def _options(data: bytes, found: dict[int, bytes] | None = None) -> dict[int, bytes]:
    """Options of one name are one value in parts (RFC 3396). Raises ValueError."""
    found = dict(found or {})
    place = 0
    while place < len(data) and data[place] != END:
        if data[place] == PAD:
            place += 1
            continue
        if place + 2 > len(data) or place + 2 + data[place + 1] > len(data):
            raise ValueError("an option is cut off")
        code, size = data[place], data[place + 1]
        found[code] = found.get(code, b"") + data[place + 2 : place + 2 + size]
        place += 2 + size
    return found


def packet(source: Address, destination: Address, data: bytes, *, ports: tuple[int, int] = (CLIENT_PORT, SERVER_PORT)) -> bytes:
    """An IP packet with a UDP datagram; `ports`: of source and destination."""
    size = 8 + len(data)
    pseudo = source.packed + destination.packed + pack("!BBH", 0, _UDP, size)
    head = pack("!HHH", *ports, size)
    checksum = _checksum(pseudo + head + b"\0\0" + data) or 0xFFFF
    first = pack("!BBHHHBB", 0x45, 0x10, 20 + size, 0, 0, 64, _UDP)
    addresses = source.packed + destination.packed
    return first + pack("!H", _checksum(first + b"\0\0" + addresses)) + addresses + head + pack("!H", checksum) + data


def unpack(data: bytes, port: int = CLIENT_PORT) -> tuple[Address, bytes]:
    """(source, what it carries) of an IP packet with a whole UDP datagram to a port. Raises ValueError.

    The datagram's checksum is not looked at: between two network namespaces of a machine nobody has filled it in.
    """
    if len(data) < 28 or data[0] >> 4 != 4:
        raise ValueError("it is no IPv4 packet")
    start = (data[0] & 15) * 4
    total, fragment = unpack_from("!H2xH", data, 2)
    if start < 20 or not start + 8 <= total <= len(data) or fragment & 0x3FFF or data[9] != _UDP or _checksum(data[:start]):
        raise ValueError("it has no whole UDP datagram")
    destination, size = unpack_from("!HH", data, start + 2)
    if destination != port or not 8 <= size <= total - start:
        raise ValueError(f"it is not for port {port}")
    return Address(data[12:16]), data[start + 8 : start + size]


def _checksum(data: bytes) -> int:
    """The sum of the Internet (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(unpack_from(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
