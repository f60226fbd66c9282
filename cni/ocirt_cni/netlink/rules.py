"""Rules that choose a table of routes: RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE (rtnetlink(7), linux/fib_rules.h)."""

from __future__ import annotations

from _struct import pack, unpack_from

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

RTM_NEWRULE = 32
RTM_DELRULE = 33
RTM_GETRULE = 34
_FRA_SRC = 2
_FRA_PRIORITY = 6
_FRA_TABLE = 15
_FRA_PROTOCOL = 21
_FR_ACT_TO_TBL = 1
_HEADER = "BBBBBBBBI"  # struct fib_rule_hdr
# Who made a rule, for the eyes of people and of this package (/etc/iproute2/rt_protos; free from 128 to 255).
PROTOCOL = 178


class Rule:
    """A rule as the kernel has it. `source` None: of all addresses; `protocol`: who made it."""

    __slots__ = ("priority", "protocol", "source", "table")

    def __init__(self, contents: bytes) -> None:
        _, _, length, _, table, *_ = unpack_from(_HEADER, contents)
        attributes = codec.parse(contents, 12)
        source = attributes.get(_FRA_SRC)
        self.source = Prefix(Address(source), length) if source is not None else None
        self.priority = codec.number(attributes.get(_FRA_PRIORITY, b""))
        self.table: int = codec.number(attributes[_FRA_TABLE]) if _FRA_TABLE in attributes else table
        self.protocol = codec.number(attributes.get(_FRA_PROTOCOL, b""))


def every(netlink: Netlink, family: int) -> list[Rule]:
    """All rules, in their order; `family` AF_INET or AF_INET6. Raises KernelError."""
    return [Rule(one) for one in netlink.dump(Request(RTM_GETRULE, 0, pack(_HEADER, family, *bytes(8)), "RTM_GETRULE"))]


def add(source: Prefix, table: int) -> Request:
    """Let what comes from these addresses be routed by a table. EEXIST if there is such a rule."""
    return _request(RTM_NEWRULE, codec.NLM_F_CREATE | codec.NLM_F_EXCL, source, table, "RTM_NEWRULE")


def delete(source: Prefix, table: int) -> Request:
    """Remove a rule that `add` made. ENOENT if there is none."""
    return _request(RTM_DELRULE, 0, source, table, "RTM_DELRULE")


def _request(kind: int, flags: int, source: Prefix, table: int, what: str) -> Request:
    head = pack(_HEADER, source.address.family, 0, source.length, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    values: dict[int, Value] = {
        _FRA_SRC: source.first.packed,
        _FRA_TABLE: table,
        _FRA_PROTOCOL: bytes([PROTOCOL]),
    }
    return Request(kind, flags, head + codec.attributes(values), f"{what} from {source} to table {table}")
