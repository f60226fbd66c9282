"""A link in the container's namespace, configured from a result: up, with addresses and routes. `inspection` is its CHECK."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from errno import EEXIST, ENODEV
from time import monotonic

from ocirt_cni import sysctl
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.errors import INVALID_CONFIG, KERNEL, TAKEN, UNSUPPORTED, Error
from ocirt_cni.netlink import addrs, links, routes
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import KernelError, Netlink, Request
from ocirt_cni.netns import Namespace
from ocirt_cni.results import IP, Result, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

_FORWARDING_6 = "net/ipv6/conf/all/forwarding"
_IFLA_INET_CONF = 1
_DEVCONF_ARP_NOTIFY = 22  # IPV4_DEVCONF_ARP_NOTIFY, linux/ip.h
_RTNLGRP_IPV6_IFADDR = 9
_LEAST_MTU_6 = 1280  # RFC 8200, section 5
_UNSETTLED = addrs.IFA_F_TENTATIVE | addrs.IFA_F_DADFAILED
_PATIENCE = 5.0  # seconds for duplicate address detection, which takes one or two


def addresses_of(result: Result, number: int | None) -> list[IP]:
    """The addresses of the interface at this place in a result; all of them with None, as in one of an IPAM plugin."""
    return [one for one in result.ips if number is None or one.interface == number]


def configure(
    namespace: Namespace,
    name: str,
    result: Result,
    *,
    number: int | None = None,
    link: Link | None = None,
    detect_duplicates: bool = False,
    prefix_routes: bool = True,
    first: list[Route] | None = None,
    silent: bool = False,
) -> Link:
    """Bring a link up with the addresses and routes of a result, in one batch; the link as it was before.

    number: the place of the link among the result's interfaces, see `addresses_of`
    link: the link, if it is known
    detect_duplicates: wait until nobody has answered for the IPv6 addresses; without it they are there at once
    prefix_routes: whether an address brings the route to its network
    first: routes that are made before those of the result, which may need them
    silent: whether nobody need be told of the addresses now; later changes are announced all the same

    Raises KernelError for the first thing that failed, Error(UNSUPPORTED) for an IPv6 address on a kernel without IPv6,
    Error(TAKEN) for an address that somebody else has.
    """
    link = link or found(namespace, name)
    ips = addresses_of(result, number)
    if any(ip.address.version == 6 for ip in ips):
        if link.mtu < _LEAST_MTU_6:
            hint = f"IPv6 needs {_LEAST_MTU_6}"
            raise Error(INVALID_CONFIG, f"with {link.mtu} {name} cannot have an IPv6 address", subject="/mtu", hint=hint)
        with namespace.inside():
            _prepare_version_6(name, detect_duplicates=detect_duplicates)
    settings: dict[int, Value] = {links.IFLA_AF_SPEC: {AF_INET: {_IFLA_INET_CONF: {_DEVCONF_ARP_NOTIFY: 1}}}}
    announcing = links.change(link.index, settings, what=name)
    # Addresses come before the link is up, so that it announces them when it does.
    requests = [] if silent else [announcing]
    requests += [
        addrs.add(link.index, ip.address, name, detect_duplicates=detect_duplicates, prefix_route=prefix_routes) for ip in ips
    ]
    requests.append(links.set_up(link.index, name))
    if silent:
        requests.append(announcing)
    made = len(requests)
    requests += _routes(link.index, result, ips, first or [])
    for place, error in enumerate(namespace.netlink.attempt(*requests)):
        # A route that is there already is there.
        if error is not None and not (place >= made and error.errno == EEXIST):
            raise error
    if detect_duplicates:
        _settle(namespace, link.index, name)
    return link


def found(namespace: Namespace, name: str) -> Link:
    """A link that has to be in the container. Raises KernelError."""
    link = links.find(namespace.netlink, name)
    if link is None:
        raise KernelError(ENODEV, f"RTM_GETLINK {name}")
    return link


def announce(namespace: Namespace, link: Link) -> None:
    """Tell the neighbours who has the link's addresses now: one of them may have had another owner a moment ago.

    A link does so itself when it comes up, but nobody hears it before a bridge forwards. Raises KernelError.
    """
    # The kernel announces what has a new hardware address, be it the old one.
    namespace.netlink.execute(links.change(link.index, {links.IFLA_ADDRESS: link.attributes[links.IFLA_ADDRESS]}, what=link.name))


def _prepare_version_6(name: str, *, detect_duplicates: bool) -> None:
    if sysctl.read(f"net/ipv6/conf/{name}/disable_ipv6") is None:
        raise Error(UNSUPPORTED, "this kernel has no IPv6", hint="leave out the IPv6 range, or boot without ipv6.disable=1")
    for one in ("lo", name):
        sysctl.write(f"net/ipv6/conf/{one}/disable_ipv6", "0")
    values = {"accept_dad": "0", "keep_addr_on_down": "1", "ndisc_notify": "1"}
    if detect_duplicates:
        values |= {"enhanced_dad": "1", "accept_dad": "1"}
    for key, value in values.items():
        sysctl.write(f"net/ipv6/conf/{name}/{key}", value, optional=True)


def _routes(index: int, result: Result, ips: list[IP], first: list[Route]) -> list[Request]:
    return [_route(index, one, ips) for one in (*first, *result.routes)]


def _route(index: int, route: Route, ips: list[IP]) -> Request:
    gateway = gateway_of(route, ips)
    return routes.add(
        index,
        route.destination,
        gateway,
        mtu=route.mtu,
        advmss=route.advmss,
        priority=route.priority,
        table=route.table,
        scope=route.scope,
        # A gateway beyond the networks of the addresses is on this link all the same: nothing else in the container leads to it.
        onlink=gateway is not None and not any(gateway in ip.address for ip in ips),
        append=True,
    )


def gateway_of(route: Route, ips: list[IP]) -> Address | None:
    """The gateway of a route: its own, else that of the first address of its IP version. One of the link's scope has none."""
    if route.gateway is not None or route.scope == routes.RT_SCOPE_LINK:
        return route.gateway
    return next((ip.gateway for ip in ips if ip.gateway is not None and ip.address.version == route.destination.version), None)


def default_gateway(prefix: Prefix) -> Address:
    """The gateway of a network that nobody chose one for: its first address.

    Raises Error(INVALID_CONFIG) if that is the container's own.
    """
    try:
        gateway = prefix.first.next()
    except OverflowError:
        gateway = prefix.address
    if gateway == prefix.address or gateway not in prefix:
        raise Error(INVALID_CONFIG, f"{prefix} leaves no address for a gateway", subject="/ipam", hint="name the gateway")
    return gateway


def default_route(version: int, gateway: Address | None = None) -> Route:
    """The route to everywhere."""
    return Route(Prefix(Address(bytes(4 if version == 4 else 16)), 0), gateway)


def enable_forwarding(host: Netlink, versions: set[int]) -> None:
    """Let this namespace, to which `host` is a socket, forward packets of these IP versions.

    Raises Error(KERNEL) or Error(UNSUPPORTED).
    """
    if 4 in versions:
        sysctl.write("net/ipv4/ip_forward", "1")
    if 6 in versions and sysctl.read(_FORWARDING_6) != "1":
        _keep_default_routes(host)
        sysctl.write(_FORWARDING_6, "1")


def _keep_default_routes(host: Netlink) -> None:
    """Let links that have a default route from a router's advertisement keep it.

    A host that forwards is a router itself: the kernel drops these routes at once, and hears no router any more, but on links
    that are to do so all the same (accept_ra 2; Documentation/networking/ip-sysctl.rst).
    """
    for index in {one.output for one in routes.every(host, AF_INET6) if not one.destination.length}:
        link = links.find_index(host, index)
        name = f"net/ipv6/conf/{link.name}/accept_ra" if link is not None else ""
        if name and sysctl.read(name) == "1":
            sysctl.write(name, "2")


def _settle(namespace: Namespace, index: int, name: str) -> None:
    deadline = monotonic() + _PATIENCE
    with namespace.open_netlink() as events:
        events.join(_RTNLGRP_IPV6_IFADDR)
        while True:
            pending = [one for one in addrs.of(namespace.netlink, index) if one.flags & _UNSETTLED]
            for one in pending:
                if one.flags & addrs.IFA_F_DADFAILED:
                    raise Error(TAKEN, f"somebody else has the address {one.prefix.address}", subject=name)
            if not pending:
                return
            if not events.wait(deadline - monotonic()):
                raise Error(KERNEL, f"the address {pending[0].prefix.address} is still tentative", subject=name)
