"""Traffic control: queueing disciplines and filters (tc(8), linux/pkt_sched.h, linux/pkt_cls.h), as much as shaping needs.

A token bucket (tc-tbf(8)) at a link's root shapes what leaves by it. What comes in by a link is shaped by a detour: the qdisc
`ingress` takes it, a filter redirects it (tc-mirred(8)) to a link of the kind ifb, and that one's root has the token bucket.
"""

from __future__ import annotations

from _struct import pack, unpack_from

from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

RTM_NEWQDISC = 36
RTM_DELQDISC = 37
RTM_GETQDISC = 38
RTM_NEWTFILTER = 44
RTM_GETTFILTER = 46
# The handle of a root that this package made, by which it knows it again: 0ca1:0.
HANDLE = 0x0CA1 << 16
LATENCY = 25_000  # microseconds that a packet may wait for tokens before there is no room for it
_ROOT = 0xFFFFFFFF
_INGRESS = 0xFFFFFFF1
_HANDLE_OF_INGRESS = 0xFFFF0000
_LARGEST = (1 << 32) - 1
_TCA_KIND = 1
_TCA_OPTIONS = 2
_TCA_TBF_PARMS = 1
_TCA_TBF_RATE64 = 4
_TCA_TBF_BURST = 6
_TC_LINKLAYER_ETHERNET = 1
_TCA_U32_CLASSID = 1
_TCA_U32_SEL = 5
_TCA_U32_ACT = 7
_TC_U32_TERMINAL = 1
_TCA_ACT_KIND = 1
_TCA_ACT_OPTIONS = 2
_TCA_MIRRED_PARMS = 2
_TCA_EGRESS_REDIR = 1
_TC_ACT_STOLEN = 4
_ETH_P_ALL = 0x0003
_CLASS = 0x10001  # 1:1, which nobody looks at


class Qdisc:
    """A queueing discipline as the kernel has it. Of a tbf: `rate` in bytes a second, `limit` in bytes; else both are 0."""

    __slots__ = ("handle", "index", "kind", "limit", "parent", "rate")

    def __init__(self, contents: bytes) -> None:
        self.index: int
        self.handle: int
        self.parent: int
        self.index, self.handle, self.parent = unpack_from("iII", contents, 4)
        attributes = codec.parse(contents, 20)
        self.kind = codec.text(attributes.get(_TCA_KIND, b""))
        self.rate = self.limit = 0
        if self.kind == "tbf":
            options = codec.parse(attributes.get(_TCA_OPTIONS, b""))
            rate, self.limit = unpack_from("8xI12xI", options[_TCA_TBF_PARMS])
            self.rate = codec.number(options[_TCA_TBF_RATE64]) if _TCA_TBF_RATE64 in options else rate


def of(netlink: Netlink, index: int) -> list[Qdisc]:
    """The queueing disciplines of a link. Raises KernelError."""
    found = netlink.dump(Request(RTM_GETQDISC, 0, _tcmsg(index, 0, 0), f"RTM_GETQDISC {index}"))
    return [one for one in map(Qdisc, found) if one.index == index]


def room(rate: int, burst: int) -> int:
    """The bytes that a token bucket lets wait, for its rate in bytes a second and its burst in bytes."""
    return min(rate * LATENCY // 1_000_000 + burst, _LARGEST)


def shape(index: int, rate: int, burst: int, what: str = "") -> Request:
    """Let no more leave by a link than `rate` bytes a second, and `burst` bytes at once. EEXIST if its root has a qdisc."""
    speed = pack("BBHhHI", 0, _TC_LINKLAYER_ETHERNET, 0, 0, 0, min(rate, _LARGEST))
    parameters = speed + bytes(12) + pack("III", room(rate, burst), 0, 0)  # no second rate; the burst follows in bytes
    options: dict[int, Value] = {_TCA_TBF_PARMS: parameters, _TCA_TBF_BURST: burst}
    if rate > _LARGEST:
        options[_TCA_TBF_RATE64] = pack("Q", rate)
    return _make(_tcmsg(index, HANDLE, _ROOT), "tbf", options, f"tbf of {what or index}")


def unshape(index: int, what: str = "") -> Request:
    """Remove what `shape` made. ENOENT if the root has no qdisc, EINVAL if it has another."""
    return Request(RTM_DELQDISC, 0, _tcmsg(index, HANDLE, _ROOT), f"RTM_DELQDISC tbf of {what or index}")


def take(index: int, what: str = "") -> Request:
    """Let filters see what comes in by a link. EEXIST if there is such a qdisc."""
    return _make(_tcmsg(index, _HANDLE_OF_INGRESS, _INGRESS), "ingress", None, f"ingress of {what or index}")


def untake(index: int, what: str = "") -> Request:
    """Remove what `take` made, with all filters. ENOENT or EINVAL if there is none."""
    head = _tcmsg(index, _HANDLE_OF_INGRESS, _INGRESS)
    return Request(RTM_DELQDISC, 0, head, f"RTM_DELQDISC ingress of {what or index}")


def redirect(index: int, to: int, what: str = "") -> Request:
    """Let all that comes in by a link, whose qdisc `take` made, leave by the link `to`.

    The filter is u32 with a condition that all packets meet, as every kernel has it (matchall came later, and may be missing).
    """
    mirred = pack("IIiiiiI", 0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, to)
    action: dict[int, Value] = {_TCA_ACT_KIND: "mirred", _TCA_ACT_OPTIONS: {_TCA_MIRRED_PARMS: mirred}}
    selector = pack("BBBxHHhhI", _TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + bytes(16)  # one key, of which no bit counts
    options: list[tuple[int, Value]] = [(_TCA_U32_CLASSID, _CLASS), (_TCA_U32_SEL, selector), (_TCA_U32_ACT, {1: action})]
    protocol = int.from_bytes(pack(">H", _ETH_P_ALL), "little" if pack("H", 1) == b"\1\0" else "big")
    head = _tcmsg(index, 0, _HANDLE_OF_INGRESS, 1 << 16 | protocol)
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    values: dict[int, Value] = {_TCA_KIND: "u32", _TCA_OPTIONS: options}
    return Request(RTM_NEWTFILTER, flags, head + codec.attributes(values), f"RTM_NEWTFILTER u32 of {what or index}")


def redirections(netlink: Netlink, index: int) -> list[int]:
    """The links that `redirect` sends to what comes in by a link. Raises KernelError."""
    head = _tcmsg(index, 0, _HANDLE_OF_INGRESS)
    return [to for one in netlink.dump(Request(RTM_GETTFILTER, 0, head, f"RTM_GETTFILTER {index}")) for to in _targets(one)]


def _targets(contents: bytes) -> list[int]:
    options = codec.parse(codec.parse(contents, 20).get(_TCA_OPTIONS, b""))
    found = []
    for _, action in codec.each(options.get(_TCA_U32_ACT, b"")):
        mirred = codec.parse(codec.parse(action).get(_TCA_ACT_OPTIONS, b"")).get(_TCA_MIRRED_PARMS, b"")
        if len(mirred) >= 28:
            found.append(unpack_from("I", mirred, 24)[0])
    return found


def _make(head: bytes, kind: str, options: dict[int, Value] | None, what: str) -> Request:
    values: dict[int, Value] = {_TCA_KIND: kind}
    if options is not None:
        values[_TCA_OPTIONS] = options
    flags = codec.NLM_F_CREATE | codec.NLM_F_EXCL
    return Request(RTM_NEWQDISC, flags, head + codec.attributes(values), f"RTM_NEWQDISC {what}")


def _tcmsg(index: int, handle: int, parent: int, info: int = 0) -> bytes:
    """struct tcmsg."""
    return pack("B3xiIII", 0, index, handle, parent, info)
