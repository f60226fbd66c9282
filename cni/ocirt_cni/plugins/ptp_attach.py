"""ADD and CHECK of the ptp plugin."""

from __future__ import annotations

from ocirt_cni import sysctl
from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import addrs, links, routes
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.nft import changes
from ocirt_cni.plugins import fields, interfaces, owners, pairs
from ocirt_cni.results import DNS, IP, Interface, Result, Route, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.nft.changes import Changes

_NAME = "ptp"


class Settings:
    """What a configuration asks for.

    masquerade: whether traffic that leaves the network has an address of the host
    mtu: of both ends; 0: the kernel's choice
    dns: instead of what the IPAM plugin says, if there is anything in it
    """

    __slots__ = ("dns", "masquerade", "mtu")

    def __init__(self, call: Call) -> None:
        """Raises Error(INVALID_CONFIG), Error(UNSUPPORTED_FIELD)."""
        fields.refuse_unknown(call, "ipMasq", "ipMasqBackend", "mtu")
        self.masquerade: bool = fields.masquerade(call.conf)
        self.mtu: int = fields.mtu(call.conf)
        self.dns: DNS = parse_dns(call.conf, "")
        if not delegate.type_of(call):
            raise Error(INVALID_CONFIG, "it is missing", subject="/ipam/type", hint="ptp needs addresses: name an IPAM plugin")


def attach(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result) -> Result:
    """Make the pair, configure both ends; `result`: what the IPAM plugin gave, which is completed. Raises Error."""
    gateways = []
    for ip in result.ips:
        ip.gateway = ip.gateway or interfaces.default_gateway(ip.address)
        gateways.append(ip.gateway)
        ip.interface = 1
    existing = links.find(host, pairs.host_name(call))
    name = pairs.create(host, namespace, call, mtu=settings.mtu, existing=existing)
    # Router advertisements of the container must not configure the host.
    sysctl.write(f"net/ipv6/conf/{name}/accept_ra", "0", optional=True)
    # Nobody else is on the link, and without a sure address of its own the host asks for no neighbour.
    sysctl.write(f"net/ipv6/conf/{name}/accept_dad", "0", optional=True)
    outer = pairs.existing(host, name)
    # Nothing comes from the container before its rules are there.
    _rules(call, settings, name, result.ips).commit()
    host.execute(links.set_up(outer.index, name))
    _configure(call, namespace, result)
    outer, inner = pairs.settle(host, namespace, call)
    _route_to(host, outer, result.ips, gateways)
    interfaces.enable_forwarding(host, {ip.address.version for ip in result.ips})
    result.interfaces = [
        Interface(name, outer.mac, mtu=outer.mtu),
        Interface(call.ifname, inner.mac, sandbox=call.netns, mtu=inner.mtu),
    ]
    if settings.dns:
        result.dns = settings.dns
    return result


def _configure(call: Call, namespace: Namespace, result: Result) -> None:
    """The container's end: only the gateway is on the link, all else is behind it."""
    first = []
    for ip in result.ips:
        assert ip.gateway is not None, "chosen before"
        first.append(Route(Prefix.host(ip.gateway), scope=routes.RT_SCOPE_LINK))
        if ip.address.length < ip.address.address.bits:
            first.append(Route(ip.address.network, ip.gateway))
    interfaces.configure(namespace, call.ifname, result, number=1, prefix_routes=False, first=first)


def _route_to(host: Netlink, outer: Link, ips: list[IP], gateways: list[Address]) -> None:
    """The host's end: the gateway's address, and a route to the container's. An old route to it is somebody's who is gone."""
    requests = [addrs.add(outer.index, Prefix.host(one), outer.name) for one in dict.fromkeys(gateways)]
    requests += [routes.add(outer.index, Prefix.host(ip.address.address), replace=True) for ip in ips]
    host.execute(*requests)


def _rules(call: Call, settings: Settings, device: str, ips: list[IP]) -> Changes:
    collected = changes.Changes(call.attachment, _NAME, owners.folder_of(call))
    collected.admit(device)
    if settings.masquerade:
        collected.masquerade([ip.address for ip in ips])
    return collected


def check(call: Call, settings: Settings) -> None:
    """Raises Error(CHECK_FAILED) that names what is not as it was made, Error(INVALID_CONFIG) without a previous result."""
    from ocirt_cni.plugins import inspection  # noqa: PLC0415  (an ADD needs none of it)

    result = inspection.previous(call)
    number = inspection.place_of(result, call)
    delegate.check(call)
    ips = interfaces.addresses_of(result, number)
    with Namespace.open(call.netns) as namespace, Netlink() as host:
        inner = inspection.interface(namespace, call, result, number, "veth")
        outer = inspection.pair(host, call, result, inner)
        there = {one.prefix.address for one in addrs.of(host, outer.index)}
        for ip in ips:
            if ip.gateway not in there:
                raise Error(CHECK_FAILED, f"it does not have the gateway's address {ip.gateway}", subject=outer.name)
            route = routes.to(host, ip.address.address)
            if route is None or route.output != outer.index:
                raise Error(CHECK_FAILED, f"the host has no route to {ip.address.address} over it", subject=outer.name)
    inspection.forwarding({ip.address.version for ip in ips})
    changes.check(_rules(call, settings, outer.name, ips))
