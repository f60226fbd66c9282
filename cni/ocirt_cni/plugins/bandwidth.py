"""bandwidth: limit what a container receives and sends, in a chain after a plugin that made a veth.

What the container receives leaves by the veth's end on the host, which has a token bucket. What it sends comes in there, and
takes the detour over a link of the kind ifb with a token bucket (see `netlink/qdiscs.py`). That link has its name and its alias
from its owner, so DEL and GC need nothing else.
"""

from __future__ import annotations

from errno import EINVAL, ENODEV, ENOENT

from ocirt_cni.call import DEL, Call, field
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, TAKEN, UNSUPPORTED, Error
from ocirt_cni.netlink import kinds, links, qdiscs
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import fields, owners
from ocirt_cni.results import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netlink.socket import Request

_FIELDS = ("egressBurst", "egressRate", "ingressBurst", "ingressRate")
_KIND = "ifb"
_OPTIONS = ("CONFIG_NET_SCH_TBF", "CONFIG_NET_SCH_INGRESS", "CONFIG_NET_CLS_U32", "CONFIG_NET_ACT_MIRRED")
_IFB = "bwp"  # how the name of an ifb begins
_MOST_RATE = (1 << 64) - 1  # bits a second
_MOST_BURST = 8 * ((1 << 32) - 1) - 1  # bits: the kernel counts bytes in 32 bits
_GONE = (EINVAL, ENODEV, ENOENT)
_HEADER = 18  # bytes of Ethernet's header with a VLAN


def add(call: Call) -> Result:
    """Both limits, as far as they are asked for. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted = _Wanted(call)
    previous = call.previous
    if not wanted:
        return previous or Result()
    if previous is None:
        raise Error(INVALID_CONFIG, "bandwidth comes after another plugin in a chain", subject="/prevResult")
    with Netlink() as netlink:
        host = _host_end(call, netlink)
        try:
            if wanted.ingress is not None:
                _execute(netlink, qdiscs.shape(host.index, *wanted.ingress.of(host), host.name))
            if wanted.egress is not None:
                ifb = _detour(call, netlink, host, wanted.egress)
                previous.interfaces.append(Interface(ifb.name, ifb.mac, mtu=ifb.mtu))
        except BaseException:
            _undo(call, netlink, host)
            raise
    return previous


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    _Wanted(call)


def delete(call: Call) -> None:
    """Remove both limits. Raises Error."""
    with Netlink() as netlink:
        try:
            # The veth goes with a namespace that is dropped.
            host = _host_end(call, netlink) if call.netns and not call.lazy else None
        except Error:
            host = None
        _undo(call, netlink, host)


def check(call: Call) -> None:
    """That both limits are in place. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted = _Wanted(call)
    if not wanted:
        return
    with Netlink() as netlink:
        host = _host_end(call, netlink)
        if wanted.ingress is not None:
            _check_shape(netlink, host, wanted.ingress, host)
        if wanted.egress is not None:
            ifb = links.find(netlink, _name(call))
            if ifb is None:
                raise Error(CHECK_FAILED, "there is no such link", subject=_name(call))
            _check_shape(netlink, ifb, wanted.egress, host)
            if ifb.index not in qdiscs.redirections(netlink, host.index):
                raise Error(CHECK_FAILED, f"what comes in is not redirected to {ifb.name}", subject=host.name)


def gc(call: Call) -> None:
    """Delete the ifb links of attachments that are gone. Raises Error.

    Not those whose veth is there: another runtime may have a network of this name, with its addresses in another folder. The
    plugin that made the veth knows the folder, and comes before this one.
    """
    with Netlink() as netlink:
        every = links.every(netlink)
        alive = {owners.anywhere(one.alias) for one in every if one.kind == "veth"}
        found = [one for one in every if one.kind == _KIND]
        stale = owners.stale(call, {one.alias for one in found}) - alive
        netlink.execute(*(links.delete(one.index, one.name) for one in found if one.alias in stale), but=_GONE)


def status(call: Call) -> None:
    """That the kernel has what the configuration needs. Raises Error(NOT_AVAILABLE)."""
    fields.refuse_unknown(call, *_FIELDS)
    if _Wanted(call).egress is not None:
        with Netlink() as netlink:
            kinds.need(netlink, _KIND, NOT_AVAILABLE)


class _Limit:
    """One direction's limit, in bytes: a second, and at once."""

    __slots__ = ("burst", "rate")

    def __init__(self, rate: int, burst: int) -> None:
        self.rate = rate
        self.burst = burst

    def of(self, link: Link) -> tuple[int, int]:
        """Rate and burst for traffic of a link: a burst in which no packet of the link's fits would let none through."""
        return self.rate, max(self.burst, link.mtu + _HEADER)


class _Wanted:
    """The limits of a configuration; false if there are none. Its own fields win over the runtime's."""

    __slots__ = ("egress", "ingress")

    def __init__(self, call: Call) -> None:
        conf, where = call.conf, ""
        if not any(call.conf.get(name) is not None for name in _FIELDS):
            conf, where = field(call.runtime, "bandwidth", dict, {}, "/runtimeConfig"), "/runtimeConfig/bandwidth"
        self.ingress = _limit(conf, "ingress", where)
        self.egress = _limit(conf, "egress", where)

    def __bool__(self) -> bool:
        return self.ingress is not None or self.egress is not None


def _limit(conf: dict[str, object], direction: str, where: str) -> _Limit | None:
    rate: int = fields.number(conf, f"{direction}Rate", 0, 0, _MOST_RATE, where)
    burst: int = fields.number(conf, f"{direction}Burst", 0, 0, _MOST_BURST, where)
    if not rate and not burst:
        return None
    for number, name, other in ((rate, "Rate", "Burst"), (burst, "Burst", "Rate")):
        if not number:
            message = f"it is missing or 0, and {direction}{other} is not"
            raise Error(INVALID_CONFIG, message, subject=f"{where}/{direction}{name}")
    if rate < 8:
        raise Error(INVALID_CONFIG, f"{rate} bits a second are less than a byte", subject=f"{where}/{direction}Rate")
    return _Limit(rate // 8, burst // 8)


def _name(call: Call) -> str:
    return owners.name(_IFB, owners.owner(call))


def _host_end(call: Call, netlink: Netlink) -> Link:
    """The host's end of the container's veth. Raises Error."""
    with Namespace.open(call.netns) as namespace:
        link = links.find(namespace.netlink, call.ifname)
    if link is None:
        raise Error(INVALID_CONFIG, "the container has no such link", subject=call.ifname)
    if link.kind != "veth":
        message = f"it is of the kind {link.kind or 'physical'}, and only a veth has an end on the host to limit it at"
        raise Error(UNSUPPORTED, message, subject=call.ifname)
    host = links.find_index(netlink, link.parent)
    if host is None or host.kind != "veth" or host.parent != link.index:
        raise Error(UNSUPPORTED, "the other end of this veth is not on the host", subject=call.ifname)
    return host


def _detour(call: Call, netlink: Netlink, host: Link, limit: _Limit) -> Link:
    """The ifb over which all goes that comes in by a link. Raises Error."""
    name = _name(call)
    if links.find(netlink, name) is not None:
        raise Error(TAKEN, "the host has a link of this name", subject=name, hint="call the plugin with DEL first")
    # In one send(2): whoever dies right after it leaves no link without an owner.
    created, noted = netlink.attempt(
        links.create(_KIND, name, {links.IFLA_MTU: host.mtu}, up=True),
        links.change_named(name, {links.IFLA_IFALIAS: owners.owner(call).encode()}),
    )
    if created is not None:
        kinds.need(netlink, _KIND)
        raise created
    if noted is not None:
        raise noted
    ifb = links.find(netlink, name)
    if ifb is None:
        raise Error(TAKEN, "the link was deleted by somebody else", subject=name)
    _execute(netlink, qdiscs.shape(ifb.index, *limit.of(host), name))
    _execute(netlink, qdiscs.take(host.index, host.name))
    try:
        _execute(netlink, qdiscs.redirect(host.index, ifb.index, host.name))
    except BaseException:
        netlink.attempt(qdiscs.untake(host.index, host.name))
        raise
    return ifb


def _execute(netlink: Netlink, request: Request) -> None:
    """Make a qdisc or a filter. Raises KernelError, or Error(UNSUPPORTED) if the kernel has no such kind of them."""
    (error,) = netlink.attempt(request)
    if error is None:
        return
    if error.errno == ENOENT:
        hint = f"it takes a kernel with {', '.join(_OPTIONS)}, and their modules if they are built as such"
        raise Error(UNSUPPORTED, "this kernel cannot limit traffic", subject="/type", cause=str(error), hint=hint)
    raise error


def _undo(call: Call, netlink: Netlink, host: Link | None) -> None:
    """Remove what is there of it. Raises Error."""
    requests: list[Request] = []
    ifb = links.find(netlink, _name(call))
    owned = ifb is not None and ifb.kind == _KIND and ifb.alias in ("", owners.owner(call))
    if host is not None:
        requests.append(qdiscs.unshape(host.index, host.name))
        if ifb is not None and owned and _is_taken(call, netlink, host, ifb):
            requests.append(qdiscs.untake(host.index, host.name))
    if ifb is not None and owned:
        requests.append(links.delete(ifb.index, ifb.name))
    netlink.execute(*requests, but=_GONE)


def _is_taken(call: Call, netlink: Netlink, host: Link, ifb: Link) -> bool:
    """Whether the qdisc `ingress`, for which others may have use, is ours: it leads to our ifb, or is as a kill left it."""
    found = qdiscs.redirections(netlink, host.index)
    return ifb.index in found or (not found and call.command == DEL)


def _check_shape(netlink: Netlink, link: Link, limit: _Limit, host: Link) -> None:
    rate, burst = limit.of(host)
    for one in qdiscs.of(netlink, link.index):
        if one.kind == "tbf" and one.handle == qdiscs.HANDLE:
            if (one.rate, one.limit) != (rate, qdiscs.room(rate, burst)):
                message = f"it lets {8 * one.rate} bits a second through, with room for {one.limit} bytes; "
                wanted = f"{8 * rate} and {qdiscs.room(rate, burst)} were asked for"
                raise Error(CHECK_FAILED, message + wanted, subject=link.name)
            return
    raise Error(CHECK_FAILED, "it has no limit", subject=link.name)
