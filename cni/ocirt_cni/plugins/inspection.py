"""CHECK of a link in the container's namespace: whether it is as its result says."""

from __future__ import annotations

from ocirt_cni import sysctl
from ocirt_cni.addresses import Address
from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, Error
from ocirt_cni.netlink import addrs, links, routes
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import interfaces, owners, pairs
from ocirt_cni.results import IP, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def previous(call: Call) -> Result:
    """The previous result, which CHECK needs. Raises Error(INVALID_CONFIG)."""
    if call.previous is None:
        raise Error(INVALID_CONFIG, "CHECK needs the result of ADD", subject="/prevResult")
    return call.previous


def place_of(result: Result, call: Call) -> int:
    """The place of the container's interface in a result. Raises Error(INVALID_CONFIG)."""
    for number, one in enumerate(result.interfaces):
        if (one.name, one.sandbox) == (call.ifname, call.netns):
            return number
    raise Error(INVALID_CONFIG, f"there is no interface {call.ifname} in {call.netns}", subject="/prevResult/interfaces")


def interface(namespace: Namespace, call: Call, result: Result, number: int, kind: str, *, gateways: bool = True) -> Link:
    """That the container's interface, at this place in the result, is of a kind, up, and has hardware address, addresses, routes.

    gateways: whether the gateway of each address has to be reached by it. Raises Error(CHECK_FAILED) that names what is missing.
    """
    name = call.ifname
    link = existing(namespace.netlink, name, kind)
    if not link.is_up:
        raise Error(CHECK_FAILED, "it is not up", subject=name)
    expect_mac(link, result.interfaces[number].mac)
    ips = interfaces.addresses_of(result, number)
    there = {one.prefix for one in addrs.of(namespace.netlink, link.index)}
    for ip in ips:
        if ip.address not in there:
            raise Error(CHECK_FAILED, f"it does not have the address {ip.address}", subject=name)
    _check_routes(namespace, link, result.routes, ips)
    if gateways:
        for ip in ips:
            if ip.gateway is not None:
                _check_gateway(namespace, link, ip.gateway)
    return link


def existing(netlink: Netlink, name: str, kind: str) -> Link:
    """A link of this kind. Raises Error(CHECK_FAILED) if there is none, or another."""
    link = links.find(netlink, name)
    if link is None:
        raise Error(CHECK_FAILED, "it does not exist", subject=name)
    if link.kind != kind:
        raise Error(CHECK_FAILED, f"it is not a {kind}", subject=name, cause=f"it is a {link.kind or 'physical link'}")
    return link


def pair(host: Netlink, call: Call, result: Result, inner: Link) -> Link:
    """The host's end of a pair, which has to be the other one of `inner` and the attachment's own. Raises Error(CHECK_FAILED)."""
    name = pairs.host_name(call)
    link = existing(host, name, "veth")
    if link.alias != owners.owner(call):
        raise Error(CHECK_FAILED, f"it is not this attachment's, by its alias {link.alias!r}", subject=name)
    if (link.index, link.parent) != (inner.parent, inner.index):
        raise Error(CHECK_FAILED, f"it is not the other end of {call.ifname}", subject=name)
    if not link.is_up:
        raise Error(CHECK_FAILED, "it is not up", subject=name)
    expect_mac(link, next((one.mac for one in result.interfaces if one.name == name and not one.sandbox), ""))
    return link


def forwarding(versions: set[int]) -> None:
    """That the host forwards packets of these IP versions. Raises Error(CHECK_FAILED)."""
    for version, name in ((4, "net/ipv4/ip_forward"), (6, "net/ipv6/conf/all/forwarding")):
        if version in versions and sysctl.read(name) == "0":
            raise Error(CHECK_FAILED, "the host does not forward packets", subject=name)


def expect_mac(link: Link, mac: str) -> None:
    """Raises Error(CHECK_FAILED) if a link has another hardware address than the result says, if that says anything."""
    if mac and link.mac != mac.lower():
        raise Error(CHECK_FAILED, f"its hardware address is {link.mac}, and was {mac}", subject=link.name)


def _check_routes(namespace: Namespace, link: Link, expected: list[Route], ips: list[IP]) -> None:
    tables: dict[tuple[int, int], list[routes.Route]] = {}
    for one in expected:
        key = (one.destination.address.family, routes.RT_TABLE_MAIN if one.table is None else one.table)
        if key not in tables:
            tables[key] = routes.every(namespace.netlink, *key)
        if not any(_is_as_expected(route, one, link, ips) for route in tables[key]):
            gateway = interfaces.gateway_of(one, ips)
            via = f" via {gateway}" if gateway is not None else ""
            raise Error(CHECK_FAILED, f"there is no route to {one.destination}{via} as it was made", subject=link.name)


def _is_as_expected(route: routes.Route, expected: Route, link: Link, ips: list[IP]) -> bool:
    metrics: Mapping[int, int | None] = {routes.RTAX_MTU: expected.mtu, routes.RTAX_ADVMSS: expected.advmss}
    return (
        route.output == link.index
        and (route.destination.first, route.destination.length) == (expected.destination.first, expected.destination.length)
        and route.gateway == interfaces.gateway_of(expected, ips)
        and (expected.priority is None or route.priority == expected.priority)
        and (expected.scope is None or expected.destination.version == 6 or route.scope == expected.scope)
        and all(value is None or route.metrics.get(kind) == value for kind, value in metrics.items())
    )


def _check_gateway(namespace: Namespace, link: Link, gateway: Address) -> None:
    route = routes.to(namespace.netlink, gateway)
    if route is None or route.output != link.index or route.gateway is not None:
        raise Error(CHECK_FAILED, f"the gateway {gateway} is not reached by it", subject=link.name)
