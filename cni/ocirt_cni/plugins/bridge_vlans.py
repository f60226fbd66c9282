"""The VLANs of a bridge's port, and the gateway of a VLAN: a pair of links between the host and a port of its own."""

from __future__ import annotations

from errno import EEXIST, ENOENT

from ocirt_cni.errors import TAKEN, Error
from ocirt_cni.netlink import bridges, codec, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.plugins import bridge_device, pairs
from ocirt_cni.plugins.bridge_settings import Settings

_ACCESS = bridges.PVID | bridges.UNTAGGED
_NATIVE = 1  # of a port with a trunk alone, as the reference has it


def of_port(settings: Settings) -> dict[int, int]:
    """The VLANs that a port is put into, with their flags."""
    found = dict.fromkeys(settings.trunk, 0)
    native = settings.vlan or (_NATIVE if settings.trunk else 0)
    if native:
        found[native] = _ACCESS
    return found


def assign(host: Netlink, settings: Settings, bridge: Link, port: Link, vlans: dict[int, int]) -> None:
    """Put a port into these VLANs, and out of the bridge's default one, if it is not so already. Raises KernelError."""
    default = codec.number(bridge.data.get(bridges.IFLA_BR_VLAN_DEFAULT_PVID, b""))
    requests = [bridges.add_vlans(port.index, vlans.items(), port.name)]
    if default and default not in vlans and not settings.keep_default_vlan:
        requests.append(bridges.delete_vlans(port.index, [default], port.name))
    host.execute(*requests, but=(ENOENT,))  # it is not in the default one


def ensure_gateway(host: Netlink, settings: Settings, bridge: Link) -> Link:
    """The link `BRIDGE.VLAN`, which leads into the VLAN by a port of its own; made unless it is there.

    Raises Error(TAKEN) if something else has its name, KernelError.
    """
    name = settings.gateway_device
    other = pairs.name_of(f"port of {name}")
    link, port = links.find_several(host, name, other)
    if link is None:
        link, port = _make_gateway(host, bridge, name, other)
    if link.kind != "veth" or port is None or link.parent != port.index:
        cause = f"it is a {link.kind or 'physical link'}"
        raise Error(TAKEN, f"{name} exists and is not the gateway of a VLAN", subject="/vlan", cause=cause)
    if not link.is_up:
        bridge_device.prepare(settings, name)
    # Also of one that an ADD left half done, which was killed.
    flags = links.IFF_UP
    host.execute(
        links.change(port.index, {links.IFLA_MASTER: bridge.index}, flags=flags, mask=flags, what=other),
        links.set_up(link.index, name),
    )
    assign(host, settings, bridge, port, {settings.vlan: _ACCESS})
    return link


def _make_gateway(host: Netlink, bridge: Link, name: str, other: str) -> tuple[Link, Link | None]:
    attributes: dict[int, codec.Value] = {links.IFLA_MTU: bridge.mtu}
    (failed,) = host.attempt(links.veth(name, other, attributes, dict(attributes)))
    if failed is not None and failed.errno != EEXIST:
        raise failed
    link, port = links.find_several(host, name, other)
    if link is None:
        raise failed or Error(TAKEN, f"{name} was removed while it was made", subject="/vlan")
    return link, port
