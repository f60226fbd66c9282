"""The sets and maps of the tables, and their elements as the kernel has them.

A key or a value of several fields is their concatenation, each filled up to a multiple of 4 bytes.
"""

from __future__ import annotations

from _struct import pack, unpack

from ocirt_cni.addresses import Address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

INET, BRIDGE, IPV4, IPV6 = 1, 7, 2, 10  # NFPROTO_*, linux/netfilter.h
TABLE = "ocirt"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # /etc/protocols
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_WIDTHS = {"ip4": 4, "ip6": 16, "protocol": 4, "port": 4, "device": 16, "mac": 8}
_TYPES = {
    "ip4": "ipv4_addr",
    "ip6": "ipv6_addr",
    "protocol": "inet_proto",
    "port": "inet_service",
    "device": "ifname",
    "mac": "ether_addr",
    "verdict": "verdict",
}

VERDICT = ("verdict",)


class Set:
    """A set, or a map if it has `data`: the kinds of the fields of its values, or VERDICT. `family`: whose table it is in."""

    __slots__ = ("data", "family", "key", "name")

    def __init__(self, name: str, key: tuple[str, ...], data: tuple[str, ...] = (), family: int = INET) -> None:
        self.name = name
        self.key = key
        self.data = data
        self.family = family

    @property
    def declaration(self) -> str:
        """As nft(8) reads it."""
        kinds = " . ".join(_TYPES[kind] for kind in self.key)
        if not self.data:
            return f"set {self.name} {{ type {kinds}; }}"
        return f"map {self.name} {{ type {kinds} : {' . '.join(_TYPES[kind] for kind in self.data)}; }}"

    def key_of(self, fields: Sequence[object]) -> bytes:
        """The key of these fields: addresses, numbers and texts."""
        return _join(self.key, fields)

    def element(self, key: Sequence[object], data: Sequence[object] = (), *, chain: str = "", comment: str = "") -> Element:
        """An element of it; `chain`: where a verdict jumps to."""
        return Element(self, self.key_of(key), b"" if chain else _join(self.data, data), chain, comment)


class Element:
    """An element: its key and value in the kernel's form, or the chain to jump to; the comment says who owns it."""

    __slots__ = ("chain", "comment", "data", "key", "set")

    def __init__(self, within: Set, key: bytes, data: bytes = b"", chain: str = "", comment: str = "") -> None:
        self.set = within
        self.key = key
        self.data = data
        self.chain = chain
        self.comment = comment

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Element) and self._all == other._all

    def __hash__(self) -> int:
        return hash(self._all)

    @property
    def _all(self) -> tuple[object, ...]:
        return (self.set.name, self.set.family, self.key, self.data, self.chain, self.comment)

    @property
    def fields(self) -> list[str]:
        """The fields of the key, as texts."""
        return _split(self.set.key, self.key)

    def __str__(self) -> str:
        """Key and value as nft(8) writes them, without the comment."""
        key = " . ".join(self.fields)
        if not self.set.data:
            return key
        return f"{key} : jump {self.chain}" if self.chain else f"{key} : {' . '.join(_split(self.set.data, self.data))}"

    def __repr__(self) -> str:
        return f"Element({self.set.name}, {self}, {self.comment!r})"


def _join(kinds: Sequence[str], values: Sequence[object]) -> bytes:
    return b"".join([_encode(kind, value) for kind, value in zip(kinds, values, strict=True)])


def _encode(kind: str, value: object) -> bytes:
    if isinstance(value, Address):
        return value.packed
    if kind == "protocol":
        return pack("Bxxx", PROTOCOLS[str(value)])
    if kind == "port":
        return pack(">Hxx", value)
    data = bytes.fromhex(str(value).replace(":", "")) if kind == "mac" else str(value).encode()
    return data.ljust(_WIDTHS[kind], b"\0")


def _split(kinds: Sequence[str], data: bytes) -> list[str]:
    found, start = [], 0
    for kind in kinds:
        end = start + _WIDTHS[kind]
        found.append(_decode(kind, data[start:end]))
        start = end
    return found


def _decode(kind: str, data: bytes) -> str:
    if kind in ("ip4", "ip6"):
        return str(Address(data))
    if kind == "protocol":
        return _PROTOCOL_NAMES.get(data[0], str(data[0]))
    if kind == "port":
        return str(unpack(">Hxx", data)[0])
    return data[:6].hex(":") if kind == "mac" else data.rstrip(b"\0").decode(errors="replace")


# Source addresses of containers, which are masqueraded as the chain of their network has it. No map to that: whenever an element
# with a jump is added the kernel follows all jumps of its map, so an ADD would take the longer the more containers there are.
MASQUERADED = {4: Set("masqueraded4", ("ip4",)), 6: Set("masqueraded6", ("ip6",))}
# The same for those that are a network alone (10.1.0.2/32) -> its chain: of such there may be as many as containers.
MASQUERADE = {4: Set("masquerade4", ("ip4",), VERDICT), 6: Set("masquerade6", ("ip6",), VERDICT)}
# Port of the host, whatever its address -> address and port of a container.
PORTS = {
    4: Set("ports4", ("protocol", "port"), ("ip4", "port")),
    6: Set("ports6", ("protocol", "port"), ("ip6", "port")),
}
# The same for one address of the host.
HOST_PORTS = {
    4: Set("host_ports4", ("ip4", "protocol", "port"), ("ip4", "port")),
    6: Set("host_ports6", ("ip6", "protocol", "port"), ("ip6", "port")),
}
# Port of the host -> the chain of an attachment that has conditions.
CONDITIONAL = {
    4: Set("conditional4", ("protocol", "port"), VERDICT),
    6: Set("conditional6", ("protocol", "port"), VERDICT),
}
# Addresses, protocols and ports of containers, whose network's chain masquerades who could get no answer otherwise.
HAIRPINNED = {
    4: Set("hairpinned4", ("ip4", "protocol", "port")),
    6: Set("hairpinned6", ("ip6", "protocol", "port")),
}
# The same for those that are a network alone, and those that nobody's own address is to reach -> the chain.
HAIRPIN = {
    4: Set("hairpin4", ("ip4", "protocol", "port"), VERDICT),
    6: Set("hairpin6", ("ip6", "protocol", "port"), VERDICT),
}
# Links of the host whose containers may reach the outside, whatever other tables think of it.
ADMITTED = Set("admitted", ("device",))
# Links with route_localnet: nobody from there may reach the host's own 127.0.0.0/8.
LOCALNET = Set("localnet", ("device",))
# Bridges that do not let each other in, and pairs of bridges (each with itself) that do.
BRIDGES = Set("bridges", ("device",))
PAIRS = Set("pairs", ("device", "device"))
# In the family bridge: ports whose frames need the right source; what it is; ports between which nothing passes.
CHECKED = Set("checked", ("device",), family=BRIDGE)
SOURCES = Set("sources", ("device", "mac"), family=BRIDGE)
APART = Set("apart", ("device",), family=BRIDGE)

SETS = (
    *MASQUERADED.values(),
    *MASQUERADE.values(),
    *PORTS.values(),
    *HOST_PORTS.values(),
    *CONDITIONAL.values(),
    *HAIRPINNED.values(),
    *HAIRPIN.values(),
    ADMITTED,
    LOCALNET,
    BRIDGES,
    PAIRS,
    CHECKED,
    SOURCES,
    APART,
)
