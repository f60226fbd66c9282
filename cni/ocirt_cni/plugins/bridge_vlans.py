"""The VLANs of a bridge's port, and the gateway of a VLAN: a pair of links between the host and a port of its own."""

from __future__ import annotations

from errno import EEXIST

from ocirt_cni.errors import KERNEL, TAKEN, Error
from ocirt_cni.netlink import bridges, codec, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.plugins import pairs
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
    """Put a port into these VLANs, and out of the bridge's default one. Raises KernelError."""
    requests = []
    default = codec.number(bridge.data.get(bridges.IFLA_BR_VLAN_DEFAULT_PVID, b""))
    if default and not settings.keep_default_vlan:
        requests.append(bridges.delete_vlans(port.index, [default], port.name))
    requests.append(bridges.add_vlans(port.index, vlans.items(), port.name))
    host.execute(*requests)


def ensure_gateway(host: Netlink, settings: Settings, bridge: Link) -> Link:
    """The link `BRIDGE.VLAN`, which leads into the VLAN; made unless it is there. Raises Error(TAKEN), KernelError."""
    name = settings.gateway_device
    link = links.find(host, name)
    if link is None:
        link = _make_gateway(host, settings, bridge)
    if link.kind != "veth":
        cause = f"it is a {link.kind or 'physical link'}"
        raise Error(TAKEN, f"{name} exists and is not the gateway of a VLAN", subject="/vlan", cause=cause)
    return link


def _make_gateway(host: Netlink, settings: Settings, bridge: Link) -> Link:
    name = settings.gateway_device
    other = pairs.name_of(f"port of {name}")
    attributes: dict[int, codec.Value] = {links.IFLA_MTU: bridge.mtu}
    failed = host.attempt(links.veth(name, other, attributes, dict(attributes), up=True))[0]
    if failed is not None and failed.errno != EEXIST:
        raise failed
    link, port = links.find_several(host, name, other)
    if link is None or port is None:
        raise Error(KERNEL, f"{name} and {other} are not there", subject="/vlan")
    host.execute(links.change(port.index, {links.IFLA_MASTER: bridge.index}, flags=links.IFF_UP, mask=links.IFF_UP, what=other))
    assign(host, settings, bridge, port, {settings.vlan: _ACCESS})
    return link
