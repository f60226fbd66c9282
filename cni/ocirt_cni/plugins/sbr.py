"""sbr: routing by source, in a chain: what comes from an address of the container's link leaves by that link.

Each address gets a table of routes of its own, and a rule that leads to it. The rules carry this package's protocol number, so
DEL knows them from others.
"""

from __future__ import annotations

from errno import ENOENT, ESRCH
from fcntl import LOCK_EX, LOCK_UN, flock

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, Error
from ocirt_cni.netlink import addrs, links, routes, rules
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.routes import Route
    from ocirt_cni.netlink.rules import Rule
    from ocirt_cni.netlink.socket import Netlink, Request
    from ocirt_cni.results import IP, Result

_FIELDS = ("addSourceHints", "gateways", "table")
_FIRST_TABLE = 100
_MOST_TABLE = (1 << 32) - 1
_KERNEL_METRIC = 256  # of the IPv6 route to the network of an address: IP6_RT_PRIO_ADDRCONF


def add(call: Call) -> Result:
    """The rules, and the link's routes in tables of their own. Raises Error."""
    wanted = _Wanted(call)
    previous = _previous(call)
    ips = _ips(call, previous)
    with Namespace.open(call.netns) as namespace:
        flock(namespace.fd, LOCK_EX)  # another attachment of this container would take the same table
        done = _Done(namespace.netlink)
        try:
            _add(done, call, wanted, ips)
        except BaseException:
            done.undo()
            raise
        finally:
            flock(namespace.fd, LOCK_UN)
    return previous


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    _Wanted(call)


def delete(call: Call) -> None:
    """Remove the rules, and the tables that were chosen for them. Raises Error."""
    namespace = None if call.lazy else Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        netlink = namespace.netlink
        link = links.find(netlink, call.ifname)
        sources = set() if call.previous is None else {ip.address.address for ip in _ips(call, call.previous)}
        if link is not None:
            sources |= {one.prefix.address for one in addrs.of(netlink, link.index)}
        requests: list[Request] = []
        for family in routes.FAMILIES:
            requests += _removals(netlink, family, sources, link.index if link is not None else 0)
        netlink.execute(*requests, but=(ENOENT, ESRCH))


def check(call: Call) -> None:
    """That each address has its rule, and the table that this leads to has routes. Raises Error."""
    wanted = _Wanted(call)
    ips = _ips(call, _previous(call))
    with Namespace.open(call.netns) as namespace:
        for family in routes.FAMILIES:
            own = {one.source: one.table for one in rules.every(namespace.netlink, family) if one.protocol == rules.PROTOCOL}
            filled = routes.tables(namespace.netlink, family)
            for ip in ips:
                if ip.address.address.family != family:
                    continue
                table = own.get(Prefix.host(ip.address.address))
                if table is None or wanted.table not in (0, table):
                    raise Error(CHECK_FAILED, "there is no rule for it", subject=str(ip.address.address))
                if not wanted.table and table not in filled:
                    raise Error(CHECK_FAILED, f"its table {table} has no routes", subject=str(ip.address.address))


def status(call: Call) -> None:
    """That the configuration makes sense. Raises Error."""
    _Wanted(call)


class _Wanted:
    """The configuration. `table` 0: one for each address."""

    __slots__ = ("gateways", "hints", "table")

    def __init__(self, call: Call) -> None:
        fields.refuse_unknown(call, *_FIELDS)
        self.table: int = fields.number(call.conf, "table", 0, 1, _MOST_TABLE)
        self.hints: bool = field(call.conf, "addSourceHints", bool, False)
        self.gateways: dict[int, Address] = {}
        for number, text in enumerate(field(call.conf, "gateways", list, [])):
            self._add_gateway(text, f"/gateways/{number}")
        for name, given in (("gateways", bool(self.gateways)), ("addSourceHints", self.hints)):
            if self.table and given:
                message = "with `table` the routes are left as they are"
                raise Error(INVALID_CONFIG, message, subject=f"/{name}", hint="leave out one of both")

    def _add_gateway(self, text: object, where: str) -> None:
        try:
            gateway = Address.parse(text if isinstance(text, str) else "")
        except ValueError:
            raise Error(INVALID_CONFIG, f"{text!r} is not an IP address", subject=where) from None
        if gateway.family in self.gateways:
            message = f"there is one for IPv{gateway.version} already, {self.gateways[gateway.family]}"
            raise Error(INVALID_CONFIG, message, subject=where)
        self.gateways[gateway.family] = gateway


class _Done:
    """What was done so far, with what undoes it."""

    __slots__ = ("_netlink", "_undo", "netlink")

    def __init__(self, netlink: Netlink) -> None:
        self.netlink = netlink
        self._undo: list[Request] = []

    def do(self, request: Request, undo: Request) -> None:
        """Raises KernelError."""
        self.netlink.execute(request)
        self._undo.append(undo)

    def undo(self) -> None:
        """Undo it, the last first."""
        if self._undo:
            self.netlink.attempt(*reversed(self._undo))


def _previous(call: Call) -> Result:
    if call.previous is None:
        raise Error(INVALID_CONFIG, "sbr comes after another plugin in a chain", subject="/prevResult")
    return call.previous


def _ips(call: Call, previous: Result) -> list[IP]:
    """The addresses of the previous result that are the link's, or nobody's. Raises Error if there are no addresses at all."""
    if not previous.ips and call.command != "DEL":
        raise Error(INVALID_CONFIG, "the previous result has no addresses", subject="/prevResult/ips")
    names = [one.name for one in previous.interfaces]
    return [ip for ip in previous.ips if ip.interface is None or names[ip.interface] == call.ifname]


def _add(done: _Done, call: Call, wanted: _Wanted, ips: list[IP]) -> None:
    if wanted.table:
        for ip in ips:
            _add_rule(done, ip, wanted.table)
        return
    link = links.find(done.netlink, call.ifname)
    if link is None:
        raise Error(INVALID_CONFIG, "the container has no such link", subject=call.ifname)
    for family in routes.FAMILIES:
        own = [ip for ip in ips if ip.address.address.family == family]
        if own:
            _add_family(done, wanted, own, family, link.index)


def _add_rule(done: _Done, ip: IP, table: int) -> None:
    source = Prefix.host(ip.address.address)
    done.do(rules.add(source, table), rules.delete(source, table))


def _add_family(done: _Done, wanted: _Wanted, ips: list[IP], family: int, index: int) -> None:
    taken = _taken_tables(done.netlink)
    found = [one for one in routes.every(done.netlink, family) if one.output == index]
    moved = [one for one in found if not one.destination.address.is_link_local]
    for ip in ips:
        table = _free_table(taken)
        taken.add(table)
        _add_rule(done, ip, table)
        _fill(done, [one for one in moved if _belongs(one, ip)], table)
        gateway = wanted.gateways.get(family) or ip.gateway
        if gateway is not None:
            everywhere = Prefix(Address(bytes(_bytes_of(family))), 0)
            request = routes.add(index, everywhere, gateway, table=table, replace=True)
            done.do(request, routes.delete(index, everywhere, gateway, table=table))
    hinted = _add_hints(done, ips, index) if wanted.hints else set()
    for one in moved:
        if not (wanted.hints and one.gateway is None) and one.destination.network not in hinted:
            done.do(one.removed(), one.copied(routes.RT_TABLE_MAIN))


def _fill(done: _Done, found: list[Route], table: int) -> None:
    """Copy routes to a table, those first that gateways need."""
    for one in sorted(found, key=lambda each: each.gateway is not None):
        copy = one.copied(table)
        done.do(copy, routes.delete(one.output, one.destination, one.gateway, priority=one.priority or None, table=table))


def _belongs(route: Route, ip: IP) -> bool:
    """Whether a route is for what comes from this address: its source or gateway is of the same network, or it has neither."""
    near = [one for one in (route.source, route.gateway) if one is not None]
    return not near or any(one in ip.address for one in near)


def _add_hints(done: _Done, ips: list[IP], index: int) -> set[Prefix]:
    """Say in the main table which source address the way to each address's network has; the networks."""
    hinted: set[Prefix] = set()
    for ip in ips:
        network = ip.address.network
        if network in hinted or ip.address.length == ip.address.address.bits:
            continue
        hinted.add(network)
        metric = _KERNEL_METRIC if network.version == 6 else None
        request = routes.add(index, network, source=ip.address.address, priority=metric, scope=routes.RT_SCOPE_LINK, replace=True)
        done.do(request, routes.add(index, network, priority=metric, scope=routes.RT_SCOPE_LINK, replace=True))
    return hinted


def _taken_tables(netlink: Netlink) -> set[int]:
    """The tables that have routes, or that rules lead to."""
    found: set[int] = set()
    for family in routes.FAMILIES:
        found |= routes.tables(netlink, family) | {one.table for one in rules.every(netlink, family)}
    return found


def _free_table(taken: set[int]) -> int:
    table = _FIRST_TABLE
    while table in taken:
        table += 1
    return table


def _removals(netlink: Netlink, family: int, sources: set[Address], index: int) -> list[Request]:
    """What removes the rules of these source addresses, those that lead nowhere, and their tables' routes over a link."""
    own = [one for one in rules.every(netlink, family) if one.protocol == rules.PROTOCOL and one.source is not None]
    if not own:
        return []
    filled = routes.tables(netlink, family)
    requests: list[Request] = []
    for rule in own:
        if not _is_stale(rule, sources, filled):
            continue
        assert rule.source is not None
        requests.append(rules.delete(rule.source, rule.table))
        if rule.table >= _FIRST_TABLE and index:
            requests += [one.removed() for one in routes.every(netlink, family, rule.table) if one.output == index]
    return requests


def _is_stale(rule: Rule, sources: set[Address], filled: set[int]) -> bool:
    assert rule.source is not None
    return rule.source.address in sources or rule.table not in filled


def _bytes_of(family: int) -> int:
    """The bytes of an address."""
    return 4 if family == routes.FAMILIES[0] else 16
