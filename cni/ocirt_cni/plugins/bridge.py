"""bridge: a pair of links, one end in the container, the other a port of a bridge of the host.

`bridge_settings` is its configuration, `bridge_device` the bridge, `bridge_vlans` its VLANs, `bridge_check` CHECK.
"""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import NOT_AVAILABLE, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import bridges, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.nft import changes
from ocirt_cni.plugins import bridge_device, interfaces, pairs, steps
from ocirt_cni.plugins.bridge_settings import Settings
from ocirt_cni.results import Interface, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.nft.changes import Changes

_NAME = "bridge"


def add(call: Call) -> Result:
    """The bridge, the two ends of the pair, and what the IPAM plugin gave."""
    settings = Settings(call)
    with Namespace.open(call.netns) as namespace:
        pairs.refuse_taken(namespace, call)
        addressed = delegate.add(call) if settings.ipam else Result()
        try:
            with Netlink() as host:
                made = _attach(call, settings, namespace, host, addressed)
        except BaseException:
            steps.attempt(*_undo(call))
            raise
    return made if call.previous is None else call.previous.joined(made)


def delete(call: Call) -> None:
    """Rules, the pair, then the addresses, which somebody else may get at once. Of the configuration only `ipam` matters."""
    steps.every(*_undo(call))


def check(call: Call) -> None:
    """The bridge, the pair, the container's addresses and routes, the rules."""
    from ocirt_cni.plugins import bridge_check  # noqa: PLC0415  (an ADD needs none of it)

    bridge_check.check(call, Settings(call))


def gc(call: Call) -> None:
    """What belongs to attachments that are not valid any more."""
    steps.every(
        lambda: changes.collect(call.network, _NAME, call.valid),
        lambda: pairs.collect(call),
        lambda: delegate.gc(call),
    )


def status(call: Call) -> None:
    """Whether there are addresses, and the bridge's name is free for one."""
    settings = Settings(call)
    with Netlink() as host:
        link = links.find(host, settings.bridge)
    if link is not None and link.kind != "bridge":
        raise Error(NOT_AVAILABLE, f"{settings.bridge} exists and is not a bridge", subject="/bridge")
    delegate.status(call)


def _undo(call: Call) -> tuple[steps.Step, ...]:
    return (
        lambda: changes.remove(call.attachment, _NAME),
        lambda: pairs.delete(call),
        lambda: pairs.release(call),
    )


def _attach(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result) -> Result:
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
    result.interfaces += [Interface(port), Interface(call.ifname, sandbox=call.netns)]
    inner = _configure(call, settings, namespace, host, result)
    result.interfaces += extra
    if known is not None and not gateways:
        # One that chose no hardware address may have taken over the port's.
        result.interfaces[0].mac = pairs.existing(host, bridge.name).mac
    collected = rules(call, settings, result.interfaces[1].name, inner, result)
    if collected is not None:
        collected.commit()
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
    interfaces.enable_forwarding({one.version for one in gateways})
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


def _configure(call: Call, settings: Settings, namespace: Namespace, host: Netlink, result: Result) -> Link:
    """Configure the container's end, and fill in what is known of both ends then."""
    outer, inner = result.interfaces[1:]
    for ip in result.ips:
        ip.interface = 2
    if settings.has_interface:
        link = interfaces.configure(namespace, call.ifname, result, number=2, detect_duplicates=settings.detect_duplicates)
        port = pairs.operational(host, outer.name)
        if result.ips:
            interfaces.announce(namespace, link)
    else:
        link = interfaces.found(namespace, call.ifname)
        port = pairs.existing(host, outer.name)
    outer.mac, outer.mtu = port.mac, port.mtu
    inner.mac, inner.mtu = link.mac, link.mtu
    return link


def rules(call: Call, settings: Settings, port: str, inner: Link, result: Result) -> Changes | None:
    """The nftables rules of an attachment; None if it needs none."""
    collected = changes.Changes(call.attachment, _NAME)
    needed = False
    if settings.masquerade and result.ips:
        collected.masquerade([ip.address for ip in result.ips])
        needed = True
    if settings.is_gateway and result.ips:
        collected.admit(settings.gateway_device)
        needed = True
    if settings.check_spoofing:
        collected.forbid_spoofing(port, inner.mac)
        needed = True
    return collected if needed else None
