"""ADD of the bridge plugin."""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.netlink import bridges, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.nft import changes
from ocirt_cni.plugins import bridge_device, interfaces, pairs
from ocirt_cni.plugins.bridge_settings import Settings
from ocirt_cni.results import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.nft.changes import Changes

PLUGIN = "bridge"  # as the owner of rules
_OUTER, _INNER = 1, 2  # places among the result's interfaces; the bridge is the first


def attach(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result) -> Result:
    """Make the bridge and the pair, configure both; `result`: what the IPAM plugin gave, which is completed. Raises Error."""
    gateways = choose_gateways(settings, result)
    known, existing = links.find_several(host, settings.bridge, pairs.host_name(call))
    bridge = bridge_device.ensure(host, settings, known)
    result.interfaces = [Interface(bridge.name, bridge.mac, mtu=bridge.mtu)]
    extra = _serve(host, settings, bridge, gateways) if gateways else []
    port = pairs.create(
        host,
        namespace,
        call,
        mtu=settings.mtu,
        mac=settings.mac,
        master=bridge.index,
        port=port_settings(settings),
        up=True,
        existing=existing,
    )
    if settings.has_vlans:
        _assign_vlans(host, settings, bridge, port)
    inner = interfaces.found(namespace, call.ifname)
    # Nothing comes from the container before its rules are there.
    collected = rules(call, settings, port, inner.mac, result)
    if collected is not None:
        collected.commit()
    result.interfaces += [Interface(port), Interface(call.ifname, inner.mac, sandbox=call.netns, mtu=inner.mtu), *extra]
    _configure(call, settings, namespace, host, result)
    if known is not None and not gateways:
        # One that chose no hardware address may have taken over the port's.
        result.interfaces[0].mac = pairs.existing(host, bridge.name).mac
    if settings.dns:
        result.dns = settings.dns
    return result


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


def _configure(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result) -> None:
    """Configure the container's end, and fill in what is known of the host's then."""
    for ip in result.ips:
        ip.interface = _INNER
    if settings.has_interface:
        interfaces.configure(namespace, call.ifname, result, number=_INNER, detect_duplicates=settings.detect_duplicates)
        port, inner = pairs.settle(host, namespace, call)
        if result.ips:
            interfaces.announce(namespace, inner)
    else:
        port = pairs.existing(host, result.interfaces[_OUTER].name)
    result.interfaces[_OUTER].mac, result.interfaces[_OUTER].mtu = port.mac, port.mtu


def rules(call: Call, settings: Settings, port: str, mac: str, result: Result) -> Changes | None:
    """The nftables rules of an attachment; None if it needs none."""
    collected = changes.Changes(call.attachment, PLUGIN)
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
