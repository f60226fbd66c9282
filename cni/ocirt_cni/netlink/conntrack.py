"""Connections that the kernel keeps track of: IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE (linux/netfilter/nfnetlink_conntrack.h)."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from _struct import pack
from errno import EINVAL, ENOENT, EOPNOTSUPP

from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import NETLINK_NETFILTER, KernelError, Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ocirt_cni.netlink.codec import Value

UDP = 17
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE, _CTA_FILTER = 1, 12, 18, 25
_CTA_FILTER_ORIG_FLAGS = 1
_BY_PROTOCOL_AND_PORT = 1 << 3 | 1 << 5  # CTA_FILTER_FLAG(CTA_PROTO_NUM), (CTA_PROTO_DST_PORT); since Linux 5.8
_CTA_TUPLE_PROTO = 2
_CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 3
_NO_SUCH_THING = (EINVAL, EOPNOTSUPP)


def forget(ports: Collection[int], protocol: int = UDP) -> int:
    """Forget connections to ports, as whoever opened them named these; how many there were. Raises KernelError.

    A stream of UDP packets goes on where its first one went, whatever the rules have become. A kernel that does not track
    connections, or has no ctnetlink, has nothing to forget.
    """
    netlink = Netlink(NETLINK_NETFILTER)
    try:
        return sum(_forget(netlink, family, protocol, port) for family in (AF_INET, AF_INET6) for port in ports)
    except KernelError as err:
        if err.errno in _NO_SUCH_THING:
            return 0
        raise
    finally:
        netlink.close()


def _forget(netlink: Netlink, family: int, protocol: int, port: int) -> int:
    values: dict[int, Value] = {
        _CTA_TUPLE_ORIG: {_CTA_TUPLE_PROTO: {_CTA_PROTO_NUM: pack("B", protocol), _CTA_PROTO_DST_PORT: pack(">H", port)}},
        _CTA_FILTER: {_CTA_FILTER_ORIG_FLAGS: _BY_PROTOCOL_AND_PORT},
    }
    header = pack("BBH", family, 0, 0)
    found = netlink.dump(Request(_GET, 0, header + codec.attributes(values), "list connections"))
    requests = []
    for one in found:
        attributes = codec.parse(one, 4)
        if _goes_to(attributes[_CTA_TUPLE_ORIG], protocol, port):
            named: dict[int, Value] = {
                kind: attributes[kind] for kind in (_CTA_TUPLE_ORIG, _CTA_ID, _CTA_ZONE) if kind in attributes
            }
            requests.append(Request(_DELETE, 0, header + _nested(named), f"forget a connection to port {port}"))
    netlink.execute(*requests, but=(ENOENT,))  # it has ended by itself
    return len(requests)


def _nested(values: dict[int, Value]) -> bytes:
    """Attributes as they came, with the flag that says which have others within."""
    return b"".join(codec.attribute(kind | (0x8000 if kind == _CTA_TUPLE_ORIG else 0), value) for kind, value in values.items())


def _goes_to(tuple_: bytes, protocol: int, port: int) -> bool:
    found = codec.parse(codec.parse(tuple_)[_CTA_TUPLE_PROTO])
    return found[_CTA_PROTO_NUM] == pack("B", protocol) and found.get(_CTA_PROTO_DST_PORT) == pack(">H", port)
