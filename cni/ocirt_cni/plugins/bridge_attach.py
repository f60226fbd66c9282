"""ADD of the bridge plugin."""

from __future__ import annotations

from errno import EXFULL

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import EXHAUSTED, Error
from ocirt_cni.netlink import bridges, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import KernelError, Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.nft import changes
from ocirt_cni.plugins import bridge_device, interfaces, owners, pairs
from ocirt_cni.plugins.bridge_settings import Settings
from ocirt_cni.results import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.nft.changes import Changes

PLUGIN = "bridge"  # as the owner of rules
_MAC_PREFIX = b"\x0a\x58"  # administered locally (IEEE 802); others who make hardware addresses of IPv4 ones have it, too
_OUTER, _INNER = 1, 2  # places among the result's interfaces; the bridge is the first


def attach(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result, *, ask: bool = False) -> Result:
    """Make the bridge and the pair, configure both; `result`: what the IPAM plugin gave, which is completed. Raises Error.

    `ask`: it gave nothing yet, because it works with the interface.
    """
    gateways = choose_gateways(settings, result)
    known, existing = links.find_several(host, settings.bridge, pairs.host_name(call))
    bridge = bridge_device.ensure(host, settings, known)
    result.interfaces = [Interface(bridge.name, bridge.mac, mtu=bridge.mtu)]
    extra = _serve(host, settings, bridge, gateways) if gateways else []
    mac = settings.mac or mac_of(settings, result)
    # A bridge looks at all of its ports when one of them begins to forward, and when it stops: up before its other end, a port
    # does that three times. But what has to ask the network needs it.
    last = settings.has_interface and not settings.detect_duplicates and not ask
    port = _make_pair(call, settings, namespace, host, bridge, existing, mac, up=not last)
    if settings.has_vlans:
        _assign_vlans(host, settings, bridge, port)
    inner = interfaces.found(namespace, call.ifname)
    # Nothing comes from the container before its rules are there.
    collected = rules(call, settings, port, inner.mac, result)
    if collected is not None:
        collected.commit()
    if ask:
        extra = _ask(call, settings, host, bridge, port, inner.mac, result)
    result.interfaces += [Interface(port), Interface(call.ifname, inner.mac, sandbox=call.netns, mtu=inner.mtu), *extra]
    _configure(call, settings, namespace, host, result, inner, last=last)
    if known is not None and not gateways:
        # One that chose no hardware address may have taken over the port's.
        result.interfaces[0].mac = pairs.existing(host, bridge.name).mac
    if settings.dns:
        result.dns = settings.dns
    return result


def _ask(call: Call, settings: Settings, host: Netlink, bridge: Link, port: str, mac: str, result: Result) -> list[Interface]:
    """Ask the IPAM plugin now that the pair is there, and do what depends on the addresses; a link to a VLAN."""
    from ocirt_cni.ipam import delegate  # noqa: PLC0415  (loaded by then)

    given = delegate.add(call)
    result.ips, result.routes, result.dns = given.ips, given.routes, given.dns
    gateways = choose_gateways(settings, result)
    extra = _serve(host, settings, bridge, gateways) if gateways else []
    collected = rules(call, settings, port, mac, result)
    if collected is not None:
        collected.commit()
    return extra


def _make_pair(
    call: Call,
    settings: Settings,
    namespace: Namespace,
    host: Netlink,
    bridge: Link,
    existing: Link | None,
    mac: bytes,
    *,
    up: bool,
) -> str:
    """The pair, with the host's end as a port; the name of that."""
    try:
        return pairs.create(
            host,
            namespace,
            call,
            mtu=settings.mtu or bridge.mtu,
            mac=mac,
            master=bridge.index,
            port=port_settings(settings),
            up=up,
            existing=existing,
        )
    except KernelError as err:
        if err.errno != EXFULL:
            raise
        hint = "a bridge has at most 1023 ports (linux/net/bridge/br_private.h); use one more network"
        raise Error(EXHAUSTED, f"{bridge.name} has no room for one more port", subject="/bridge", hint=hint) from None


def mac_of(settings: Settings, result: Result) -> bytes:
    """The hardware address that goes with a container's first IPv4 address; nothing if the kernel is to choose one.

    Whoever had the address before had the same one, so nobody has to be told of a change: a bridge passes such an announcement to
    all of its ports, which with a thousand costs more than all else. A network without a gateway of ours may lead to other hosts,
    where somebody else gives addresses.
    """
    version_4 = [ip.address.address.packed for ip in result.ips if ip.address.version == 4]
    return _MAC_PREFIX + version_4[0] if settings.is_gateway and version_4 else b""


def choose_gateways(settings: Settings, result: Result) -> list[Prefix]:
    """The addresses that the bridge serves as a gateway with; the result is completed by gateways and default routes."""
    if not settings.is_gateway:
        return []
    found: list[Prefix] = []
    for ip in result.ips:
        if ip.gateway is None:
            ip.gateway = interfaces.default_gateway(ip.address)
        one = Prefix(ip.gateway, ip.address.length)
        if one not in found:
            found.append(one)
        version = ip.address.version
        default = interfaces.default_route(version, ip.gateway)
        if settings.is_default_gateway and not any(route.destination == default.destination for route in result.routes):
            result.routes.append(default)
    return found


def _serve(host: Netlink, settings: Settings, bridge: Link, gateways: list[Prefix]) -> list[Interface]:
    """Make the bridge, or a link to the VLAN, the gateway; that link."""
    extra = []
    device = bridge
    if settings.vlan:
        from ocirt_cni.plugins import bridge_vlans  # noqa: PLC0415  (few networks have VLANs)

        device = bridge_vlans.ensure_gateway(host, settings, bridge)
        extra = [Interface(device.name, device.mac, mtu=device.mtu)]
    bridge_device.ensure_addresses(host, device, gateways, force=settings.force_address)
    interfaces.enable_forwarding(host, {one.version for one in gateways})
    return extra


def port_settings(settings: Settings) -> dict[int, Value]:
    """The attributes of a port that is not as ports are made."""
    attributes: dict[int, Value] = {}
    if settings.hairpin:
        attributes[bridges.IFLA_BRPORT_MODE] = bridges.ON
    if settings.isolated:
        attributes[bridges.IFLA_BRPORT_ISOLATED] = bridges.ON
    return bridges.port(attributes) if attributes else {}


def _assign_vlans(host: Netlink, settings: Settings, bridge: Link, port: str) -> None:
    from ocirt_cni.plugins import bridge_vlans  # noqa: PLC0415  (few networks have VLANs)

    link = links.find(host, port)
    assert link is not None, "it was just made"
    bridge_vlans.assign(host, settings, bridge, link, bridge_vlans.of_port(settings))


def _configure(
    call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result, inner: Link, *, last: bool
) -> None:
    """Configure the container's end, and fill in what is known of the host's then. last: that comes up only now."""
    for ip in result.ips:
        ip.interface = _INNER
    if settings.has_interface:
        silent = inner.mac == mac_of(settings, result).hex(":")
        interfaces.configure(
            namespace,
            call.ifname,
            result,
            number=_INNER,
            link=inner,
            detect_duplicates=settings.detect_duplicates,
            silent=silent,
        )
        if last:
            host.execute(links.change_named(result.interfaces[_OUTER].name, flags=links.IFF_UP))
        port, inner = pairs.settle(host, namespace, call)
        if result.ips and not silent:
            interfaces.announce(namespace, inner)
    else:
        port = pairs.existing(host, result.interfaces[_OUTER].name)
    result.interfaces[_OUTER].mac, result.interfaces[_OUTER].mtu = port.mac, port.mtu


def rules(call: Call, settings: Settings, port: str, mac: str, result: Result) -> Changes | None:
    """The nftables rules of an attachment; None if it needs none."""
    collected = changes.Changes(call.attachment, PLUGIN, owners.folder_of(call))
    needed = False
    if settings.masquerade and result.ips:
        collected.masquerade([ip.address for ip in result.ips])
        needed = True
    if settings.is_gateway and result.ips:
        collected.admit(settings.gateway_device)
        needed = True
    if settings.check_spoofing:
        collected.forbid_spoofing(port, mac)
        needed = True
    return collected if needed else None
