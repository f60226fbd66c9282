"""Addresses of links: RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR (rtnetlink(7), linux/if_addr.h)."""

from __future__ import annotations

from _struct import pack, unpack_from

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_IFA_FLAGS = 8
_IFA_F_NODAD = 0x02
IFA_F_DADFAILED = 0x08
IFA_F_TENTATIVE = 0x40
_IFA_F_NOPREFIXROUTE = 0x200
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RT_SCOPE_HOST = 254


class Assigned:
    """An address of a link: `index` the link's, `flags` IFA_F_*, `peer` the other end's address or its own."""

    __slots__ = ("flags", "index", "peer", "prefix", "scope")

    def __init__(self, contents: bytes) -> None:
        _, length, flags, self.scope, self.index = unpack_from("BBBBI", contents)
        attributes = codec.parse(contents, 8)
        address = attributes.get(_IFA_ADDRESS, b"")
        self.prefix = Prefix(Address(attributes.get(_IFA_LOCAL, address)), length)
        self.peer = Address(address)
        self.flags: int = codec.number(attributes[_IFA_FLAGS]) if _IFA_FLAGS in attributes else flags


def of(netlink: Netlink, index: int) -> list[Assigned]:
    """The addresses of a link. Raises KernelError."""
    contents = pack("BBBBI", 0, 0, 0, 0, index)
    found = netlink.dump(Request(RTM_GETADDR, 0, contents, f"RTM_GETADDR {index}"))
    return [one for one in map(Assigned, found) if one.index == index]


def add(
    index: int,
    prefix: Prefix,
    what: str = "",
    *,
    peer: Address | None = None,
    detect_duplicates: bool = False,
    prefix_route: bool = True,
) -> Request:
    """Give a link an address, with or without the route to its network.

    An IPv6 one is there at once (IFA_F_NODAD), unless duplicates are to be detected, which takes a second or two.
    """
    values: dict[int, Value] = {_IFA_LOCAL: prefix.address.packed, _IFA_ADDRESS: (peer or prefix.address).packed}
    if prefix.version == 4 and peer is None and prefix.length < 31:
        values[_IFA_BROADCAST] = prefix.last.packed
    flags = _IFA_F_NODAD if prefix.version == 6 and not detect_duplicates else 0
    if not prefix_route:
        flags |= _IFA_F_NOPREFIXROUTE
    if flags:
        values[_IFA_FLAGS] = flags
    return _request(RTM_NEWADDR, codec.NLM_F_CREATE | codec.NLM_F_EXCL, index, prefix, values, what)


def delete(index: int, prefix: Prefix, what: str = "") -> Request:
    """Take an address from a link. EADDRNOTAVAIL if it does not have it."""
    return _request(RTM_DELADDR, 0, index, prefix, {_IFA_LOCAL: prefix.address.packed}, what)


def _request(kind: int, flags: int, index: int, prefix: Prefix, values: dict[int, Value], what: str) -> Request:
    scope = RT_SCOPE_HOST if prefix.address.is_loopback else RT_SCOPE_UNIVERSE
    contents = pack("BBBBI", prefix.address.family, prefix.length, 0, scope, index) + codec.attributes(values)
    name = "RTM_NEWADDR" if kind == RTM_NEWADDR else "RTM_DELADDR"
    return Request(kind, flags, contents, f"{name} {what or index} {prefix}")
