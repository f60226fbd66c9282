"""vrf: put the container's link into a virtual routing domain (linux/Documentation/networking/vrf.rst), in a chain."""

from __future__ import annotations

from ocirt_cni.call import Call, check_ifname, field
from ocirt_cni.errors import CHECK_FAILED, EXHAUSTED, INVALID_CONFIG, NOT_AVAILABLE, TAKEN, Error
from ocirt_cni.netlink import addrs, codec, kinds, links, routes
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import devices, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netlink.routes import Route
    from ocirt_cni.results import Result

_KIND = "vrf"
_FIELDS = ("table", "vrfname")
_ALIAS = "ocirt vrf"  # of a domain that this plugin made: several attachments of a container may share it
_MOST_TABLE = (1 << 32) - 1
_RESERVED = frozenset((253, 254, 255))  # default, main and local: linux/rtnetlink.h


def add(call: Call) -> Result:
    """The link in the domain, which is made if it is not there. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    name, table = _name(call), _table(call)
    previous = _previous(call)
    with Namespace.open(call.netns) as namespace:
        domain, made = _domain(namespace, name, table)
        try:
            _join(namespace, domain, call.ifname)
        except BaseException:
            if made:
                namespace.netlink.attempt(links.delete(domain.index))
            raise
    return previous


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    _name(call)
    _table(call)


def delete(call: Call) -> None:
    """The link out of the domain; that goes with the last link in it, if this plugin made it. Raises Error."""
    name = _name(call)
    namespace = None if call.lazy else Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        domain = links.find(namespace.netlink, name)
        if domain is None or domain.kind != _KIND:
            return
        link = links.find(namespace.netlink, call.ifname)
        if link is not None and link.master == domain.index:
            namespace.netlink.execute(links.change(link.index, {links.IFLA_MASTER: 0}, what=call.ifname))
        others = [one for one in links.every(namespace.netlink) if one.master == domain.index]
        if domain.alias == _ALIAS and not others:
            namespace.netlink.execute(links.delete(domain.index, name))


def check(call: Call) -> None:
    """That the link is in the domain, and that this has its table. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    name, table = _name(call), _table(call)
    _previous(call)
    with Namespace.open(call.netns) as namespace:
        domain, link = links.find(namespace.netlink, name), links.find(namespace.netlink, call.ifname)
        for subject, found in ((name, domain), (call.ifname, link)):
            if found is None:
                raise Error(CHECK_FAILED, "the container has no such link", subject=subject)
        assert domain is not None
        assert link is not None
        devices.expect(name, "kind", domain.kind, _KIND)
        if table:
            devices.expect(name, "table", _table_of(domain), table)
        if link.master != domain.index:
            raise Error(CHECK_FAILED, f"it is not in {name}", subject=call.ifname)


def status(call: Call) -> None:
    """That the kernel has such domains. Raises Error(NOT_AVAILABLE)."""
    fields.refuse_unknown(call, *_FIELDS)
    with Netlink() as netlink:
        kinds.need(netlink, _KIND, NOT_AVAILABLE)


def _name(call: Call) -> str:
    name: str = field(call.conf, "vrfname", str, "")
    try:
        check_ifname(name, "/vrfname")
    except Error as err:
        raise Error(INVALID_CONFIG, err.message, subject="/vrfname") from None
    return name


def _table(call: Call) -> int:
    """The field `table`; 0: a free one."""
    found: int = fields.number(call.conf, "table", 0, 0, _MOST_TABLE)
    return found


def _previous(call: Call) -> Result:
    if call.previous is None:
        raise Error(INVALID_CONFIG, "vrf comes after another plugin in a chain", subject="/prevResult")
    return call.previous


def _table_of(domain: Link) -> int:
    return codec.number(domain.data.get(kinds.IFLA_VRF_TABLE, b""))


def _domain(namespace: Namespace, name: str, table: int) -> tuple[Link, bool]:
    """The domain of that name, and whether it was made just now. Raises Error."""
    found = links.find(namespace.netlink, name)
    if found is not None:
        if found.kind != _KIND:
            raise Error(TAKEN, "the container has a link of this name that is no vrf", subject="/vrfname")
        if table and _table_of(found) != table:
            message = f"{name} is there with the table {_table_of(found)}"
            raise Error(TAKEN, message, subject="/table")
        return found, False
    request = links.create(_KIND, name, None, {kinds.IFLA_VRF_TABLE: table or _free_table(namespace)}, up=True)
    (error,) = namespace.netlink.attempt(request)
    if error is not None:
        kinds.need(namespace.netlink, _KIND)
        raise error
    made = links.find(namespace.netlink, name)
    if made is None:
        raise Error(TAKEN, "the link was deleted by somebody else", subject=name)
    namespace.netlink.execute(links.change(made.index, {links.IFLA_IFALIAS: _ALIAS.encode()}, what=name))
    return made, True


def _free_table(namespace: Namespace) -> int:
    taken = {_table_of(one) for one in links.every(namespace.netlink) if one.kind == _KIND} | _RESERVED
    for table in range(1, len(taken) + 2):
        if table not in taken:
            return table
    raise Error(EXHAUSTED, "no table is free", subject="/table")


def _join(namespace: Namespace, domain: Link, ifname: str) -> None:
    """Make a link a port of the domain, with the routes that the kernel drops on the way. Raises Error."""
    netlink = namespace.netlink
    link = links.find(netlink, ifname)
    if link is None:
        raise Error(INVALID_CONFIG, "the container has no such link", subject=ifname)
    if link.master == domain.index:
        return
    if link.master:
        other = links.find_index(netlink, link.master)
        raise Error(TAKEN, f"it is a port of {other.name if other else link.master} already", subject=ifname)
    before = [one.prefix for one in addrs.of(netlink, link.index) if one.scope == addrs.RT_SCOPE_UNIVERSE]
    kept = _chosen_routes(netlink, link.index)
    netlink.execute(links.change(link.index, {links.IFLA_MASTER: domain.index}, what=ifname))
    try:
        # Joining takes the link down and up, with which IPv6 addresses go unless keep_addr_on_down is set.
        after = {one.prefix for one in addrs.of(netlink, link.index)}
        netlink.execute(*(addrs.add(link.index, one, ifname) for one in before if one not in after))
        netlink.execute(*(one.copied(_table_of(domain)) for one in kept))
    except BaseException:
        netlink.attempt(
            links.change(link.index, {links.IFLA_MASTER: 0}, what=ifname),
            *(addrs.add(link.index, one, ifname) for one in before),
            *(one.copied(routes.RT_TABLE_MAIN) for one in kept),
        )
        raise


def _chosen_routes(netlink: Netlink, index: int) -> list[Route]:
    """The routes over a link that somebody chose, not those that come with its addresses; first those that gateways need."""
    found = [one for family in routes.FAMILIES for one in routes.every(netlink, family)]
    chosen = [one for one in found if one.output == index and one.protocol != routes.RTPROT_KERNEL]
    return sorted(chosen, key=lambda one: one.gateway is not None)
