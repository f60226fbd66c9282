"""Routes: RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE (rtnetlink(7), linux/rtnetlink.h)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack, unpack_from
from errno import EHOSTUNREACH, ENETUNREACH, ENOENT

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import KernelError, Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

FAMILIES = (AF_INET, AF_INET6)
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
_RTA_DST = 1
_RTA_OIF = 4
_RTA_GATEWAY = 5
_RTA_PRIORITY = 6
_RTA_PREFSRC = 7
_RTA_METRICS = 8
_RTA_TABLE = 15
_RTA_VIA = 18  # a gateway of the other IP version
RTAX_MTU = 2
RTAX_ADVMSS = 8
_RTN_UNICAST = 1
RTPROT_KERNEL = 2
_RTPROT_BOOT = 3
RT_TABLE_MAIN = 254
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
_RTNH_F_ONLINK = 4


class Route:
    """A route as the kernel has it. `output`: the index of the link, 0 if it has none; `gateway` None: directly."""

    __slots__ = (
        "destination",
        "gateway",
        "metrics",
        "onlink",
        "output",
        "priority",
        "protocol",
        "scope",
        "source",
        "table",
        "type",
    )

    def __init__(self, contents: bytes) -> None:
        family, length, _, _, table, self.protocol, self.scope, self.type, flags = unpack_from("BBBBBBBBI", contents)
        self.onlink = bool(flags & _RTNH_F_ONLINK)
        attributes = codec.parse(contents, 12)
        zero = bytes(4 if family == 2 else 16)
        self.destination = Prefix(Address(attributes.get(_RTA_DST, zero)), length)
        gateway = attributes.get(_RTA_GATEWAY) or attributes.get(_RTA_VIA, b"")[2:]
        self.gateway = Address(gateway) if gateway else None
        self.source = Address(attributes[_RTA_PREFSRC]) if _RTA_PREFSRC in attributes else None
        self.output = codec.number(attributes.get(_RTA_OIF, b""))
        self.priority = codec.number(attributes.get(_RTA_PRIORITY, b""))
        self.table: int = codec.number(attributes[_RTA_TABLE]) if _RTA_TABLE in attributes else table
        self.metrics = {kind: codec.number(value) for kind, value in codec.each(attributes.get(_RTA_METRICS, b""))}

    def copied(self, table: int) -> Request:
        """Make the same route in a table, instead of one there to the same destination."""
        mtu, advmss = self.metrics.get(RTAX_MTU), self.metrics.get(RTAX_ADVMSS)
        return add(
            self.output,
            self.destination,
            self.gateway,
            source=self.source,
            mtu=mtu,
            advmss=advmss,
            priority=self.priority or None,
            table=table,
            scope=self.scope,
            onlink=self.onlink,
            replace=True,
        )

    def removed(self) -> Request:
        """Remove it."""
        return delete(self.output, self.destination, self.gateway, priority=self.priority or None, table=self.table)


def every(netlink: Netlink, family: int, table: int = RT_TABLE_MAIN) -> list[Route]:
    """The routes of a table; `family` AF_INET or AF_INET6. Raises KernelError."""
    contents = pack("BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0) + codec.attribute(_RTA_TABLE, table)
    try:
        found = netlink.dump(Request(RTM_GETROUTE, 0, contents, "RTM_GETROUTE"))
    except KernelError as err:
        if err.errno == ENOENT:  # a table is there as long as it has routes
            return []
        raise
    return [one for one in map(Route, found) if one.table == table]


def tables(netlink: Netlink, family: int) -> set[int]:
    """The tables that have routes. Raises KernelError."""
    contents = pack("BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
    return {Route(one).table for one in netlink.dump(Request(RTM_GETROUTE, 0, contents, "RTM_GETROUTE"))}


def to(netlink: Netlink, address: Address) -> Route | None:
    """The route that a packet to an address takes; None if it takes none. Raises KernelError."""
    contents = pack("BBBBBBBBI", address.family, address.bits, 0, 0, 0, 0, 0, 0, 0) + codec.attribute(_RTA_DST, address.packed)
    try:
        return Route(netlink.get(Request(RTM_GETROUTE, 0, contents, f"RTM_GETROUTE {address}")))
    except KernelError as err:
        if err.errno in (ENETUNREACH, EHOSTUNREACH):
            return None
        raise


def add(
    index: int,
    destination: Prefix,
    gateway: Address | None = None,
    *,
    source: Address | None = None,
    mtu: int | None = None,
    advmss: int | None = None,
    priority: int | None = None,
    table: int | None = None,
    scope: int | None = None,
    onlink: bool = False,
    replace: bool = False,
    append: bool = False,
) -> Request:
    """Make a route over a link. `scope` None: by whether there is a gateway.

    EEXIST if there is one to the destination; with `append` if there is the same one, with `replace` never.
    """
    values = _keys(index, destination, gateway, priority, table)
    if source is not None:
        values[_RTA_PREFSRC] = source.packed
    metrics: dict[int, Value] = {kind: value for kind, value in ((RTAX_MTU, mtu), (RTAX_ADVMSS, advmss)) if value is not None}
    if metrics:
        values[_RTA_METRICS] = metrics
    if scope is None:
        scope = RT_SCOPE_LINK if gateway is None and destination.version == 4 else RT_SCOPE_UNIVERSE
    flags = codec.NLM_F_CREATE | (codec.NLM_F_REPLACE if replace else codec.NLM_F_APPEND if append else codec.NLM_F_EXCL)
    head = _header(destination, scope, _RTPROT_BOOT, _RTNH_F_ONLINK if onlink else 0)
    via = f" via {gateway}" if gateway is not None else ""
    return Request(RTM_NEWROUTE, flags, head + codec.attributes(values), f"RTM_NEWROUTE {destination}{via}")


def delete(
    index: int, destination: Prefix, gateway: Address | None = None, *, priority: int | None = None, table: int | None = None
) -> Request:
    """Remove a route over a link. ESRCH if there is none."""
    values = _keys(index, destination, gateway, priority, table)
    head = _header(destination, 255, 0, 0)  # RT_SCOPE_NOWHERE: whatever its scope
    return Request(RTM_DELROUTE, 0, head + codec.attributes(values), f"RTM_DELROUTE {destination}")


def _keys(index: int, destination: Prefix, gateway: Address | None, priority: int | None, table: int | None) -> dict[int, Value]:
    values: dict[int, Value] = {_RTA_TABLE: RT_TABLE_MAIN if table is None else table}
    if destination.length:
        values[_RTA_DST] = destination.first.packed
    if index:
        values[_RTA_OIF] = index
    if gateway is not None and gateway.version == destination.version:
        values[_RTA_GATEWAY] = gateway.packed
    elif gateway is not None:
        values[_RTA_VIA] = pack("H", gateway.family) + gateway.packed
    if priority is not None:
        values[_RTA_PRIORITY] = priority
    return values


def _header(destination: Prefix, scope: int, protocol: int, flags: int) -> bytes:
    """struct rtmsg. The table stands in an attribute: its field here has one byte."""
    return pack("BBBBBBBBI", destination.address.family, destination.length, 0, 0, 0, protocol, scope, _RTN_UNICAST, flags)
