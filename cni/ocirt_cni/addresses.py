"""IP addresses and prefixes, as little as plugins need (the standard library's `ipaddress` costs an executable 3 ms)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton

_MAPPED = b"\0" * 10 + b"\xff\xff"  # before an IPv4 address: the same one, written as IPv6 (RFC 4291, 2.5.5.2)


class Address:
    """An IPv4 or IPv6 address. Ordered by version, then by value."""

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        """`packed`: 4 or 16 bytes in network order."""
        self.packed = packed[12:] if len(packed) == 16 and packed.startswith(_MAPPED) else packed

    @classmethod
    def parse(cls, text: str) -> Address:
        """From its text. Raises ValueError."""
        try:
            return cls(inet_pton(AF_INET6 if ":" in text else AF_INET, text))
        except (OSError, ValueError):  # ValueError: a null byte
            raise ValueError(f"{text!r} is not an IP address") from None

    @classmethod
    def of(cls, value: int, version: int) -> Address:
        """The address of a number, of this version whatever it is. Raises OverflowError beyond the last one."""
        made = cls.__new__(cls)
        made.packed = value.to_bytes(4 if version == 4 else 16, "big")
        return made

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.packed) == 4 else 6

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return AF_INET if len(self.packed) == 4 else AF_INET6

    @property
    def bits(self) -> int:
        """32 or 128."""
        return 8 * len(self.packed)

    def __int__(self) -> int:
        return int.from_bytes(self.packed, "big")

    def __str__(self) -> str:
        return inet_ntop(self.family, self.packed)

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.packed)

    def __lt__(self, other: Address) -> bool:
        return (self.version, self.packed) < (other.version, other.packed)

    def __le__(self, other: Address) -> bool:
        return self == other or self < other

    def next(self) -> Address:
        """The one after it. Raises OverflowError after the last one."""
        return Address.of(int(self) + 1, self.version)

    @property
    def is_loopback(self) -> bool:
        """127.0.0.0/8 or ::1."""
        return self.packed[0] == 127 if self.version == 4 else int(self) == 1

    @property
    def is_unspecified(self) -> bool:
        """0.0.0.0 or ::."""
        return not int(self)

    @property
    def is_link_local(self) -> bool:
        """169.254.0.0/16 or fe80::/10."""
        return self.packed[:2] == b"\xa9\xfe" if self.version == 4 else self.packed[0] == 0xFE and self.packed[1] & 0xC0 == 0x80


class Prefix:
    """An address with the length of its network, as in `10.1.2.3/24`. The bits of the host are kept."""

    __slots__ = ("address", "length")

    def __init__(self, address: Address, length: int) -> None:
        self.address = address
        self.length = length

    @classmethod
    def parse(cls, text: str) -> Prefix:
        """From `ADDRESS/LENGTH`. Raises ValueError."""
        address, slash, length = text.partition("/")
        found = Address.parse(address)
        if not slash or not (length.isascii() and length.isdigit()) or int(length) > found.bits:
            raise ValueError(f"{text!r} is not an address with the length of its network, as in {found}/{found.bits}")
        return cls(found, int(length))

    @classmethod
    def host(cls, address: Address) -> Prefix:
        """That of the address alone."""
        return cls(address, address.bits)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.address.version

    @property
    def _rest(self) -> int:
        return (1 << self.address.bits - self.length) - 1

    @property
    def network(self) -> Prefix:
        """The same without the bits of the host."""
        return Prefix(self.first, self.length)

    @property
    def first(self) -> Address:
        """The lowest address of the network."""
        return Address.of(int(self.address) & ~self._rest, self.version)

    @property
    def last(self) -> Address:
        """The highest one: in IPv4 the broadcast address, but for a /31 and a /32."""
        return Address.of(int(self.address) | self._rest, self.version)

    def __contains__(self, address: Address) -> bool:
        return address.version == self.version and (int(address) ^ int(self.address)) >> self.address.bits - self.length == 0

    def overlaps(self, other: Prefix) -> bool:
        """Whether the networks have an address in common."""
        return other.address in self or self.address in other

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"

    def __repr__(self) -> str:
        return f"Prefix({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and (self.address, self.length) == (other.address, other.length)

    def __hash__(self) -> int:
        return hash((self.address, self.length))
