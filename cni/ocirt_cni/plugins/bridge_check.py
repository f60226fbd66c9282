"""CHECK and STATUS of the bridge plugin: whether everything is as ADD made it, and whether ADD could."""

from __future__ import annotations

from ocirt_cni.addresses import Prefix
from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, NOT_AVAILABLE, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import addrs, bridges, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.nft import changes
from ocirt_cni.plugins import bridge_attach, inspection
from ocirt_cni.plugins.bridge_settings import Settings
from ocirt_cni.results import Interface, Result


def check(call: Call, settings: Settings) -> None:
    """Raises Error(CHECK_FAILED) that names what is not as it was made, Error(INVALID_CONFIG) without a previous result."""
    result = inspection.previous(call)
    number = inspection.place_of(result, call)
    delegate.check(call)
    with Namespace.open(call.netns) as namespace, Netlink() as host:
        device = _bridge(host, settings, result)
        if settings.has_interface:
            inner = inspection.interface(namespace, call, result, number, "veth")
        else:
            inner = inspection.existing(namespace.netlink, call.ifname, "veth")
        port = inspection.pair(host, call, result, inner)
        _port(host, settings, port, device)
        if settings.is_gateway:
            _gateways(host, settings, result, number)
    collected = bridge_attach.rules(call, settings, port.name, inner.mac, result)
    if collected is not None:
        changes.check(collected)


def available(settings: Settings) -> None:
    """STATUS: that nothing else has the bridge's name. Raises Error(NOT_AVAILABLE)."""
    with Netlink() as host:
        link = links.find(host, settings.bridge)
    if link is not None and link.kind != "bridge":
        cause = f"it is a {link.kind or 'physical link'}"
        raise Error(NOT_AVAILABLE, f"{settings.bridge} exists and is not a bridge", subject="/bridge", cause=cause)


def _bridge(host: Netlink, settings: Settings, result: Result) -> Link:
    link = inspection.existing(host, settings.bridge, "bridge")
    if not link.is_up:
        raise Error(CHECK_FAILED, "it is not up", subject=settings.bridge)
    if settings.promiscuous and not link.flags & links.IFF_PROMISC:
        raise Error(CHECK_FAILED, "it is not in promiscuous mode", subject=settings.bridge)
    if settings.has_vlans and link.data.get(bridges.IFLA_BR_VLAN_FILTERING) != bridges.ON:
        raise Error(CHECK_FAILED, "it does not tell VLANs apart", subject=settings.bridge)
    before = next((one for one in result.interfaces if one.name == settings.bridge and not one.sandbox), Interface(""))
    inspection.expect_mac(link, before.mac)
    return link


def _port(host: Netlink, settings: Settings, port: Link, device: Link) -> None:
    if port.master != device.index:
        raise Error(CHECK_FAILED, f"it is not a port of {device.name}", subject=port.name)
    wanted = {
        bridges.IFLA_BRPORT_MODE: ("hairpin mode", settings.hairpin),
        bridges.IFLA_BRPORT_ISOLATED: ("isolation", settings.isolated),
    }
    for kind, (what, on) in wanted.items():
        if (port.port.get(kind, b"\0") == bridges.ON) != on:
            raise Error(CHECK_FAILED, f"it is {'without' if on else 'in'} {what}", subject=port.name)
    if settings.has_vlans:
        from ocirt_cni.plugins import bridge_vlans  # noqa: PLC0415  (few networks have VLANs)

        there = bridges.vlans_of(host, port.index)
        for number, flags in bridge_vlans.of_port(settings).items():
            if there.get(number, 0) & flags != flags or number not in there:
                raise Error(CHECK_FAILED, f"it does not take part in VLAN {number} as it should", subject=port.name)


def _gateways(host: Netlink, settings: Settings, result: Result, number: int) -> None:
    device = links.find(host, settings.gateway_device)
    if device is None:
        raise Error(CHECK_FAILED, "it does not exist", subject=settings.gateway_device)
    there = {one.prefix for one in addrs.of(host, device.index)}
    versions = set()
    for ip in result.ips:
        if ip.interface != number or ip.gateway is None:
            continue
        if Prefix(ip.gateway, ip.address.length) not in there:
            raise Error(CHECK_FAILED, f"it does not have the gateway's address {ip.gateway}", subject=device.name)
        versions.add(ip.address.version)
    inspection.forwarding(versions)
