"""The bridge itself: made by the first ADD that needs it, by several at once too, and never removed, as others may use it."""

from __future__ import annotations

import posix
from errno import EEXIST, EOPNOTSUPP

from ocirt_cni import sysctl
from ocirt_cni.addresses import Prefix
from ocirt_cni.errors import TAKEN, UNSUPPORTED, Error
from ocirt_cni.netlink import addrs, bridges, links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.plugins.bridge_settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.socket import Request


def ensure(host: Netlink, settings: Settings, link: Link | None) -> Link:
    """The bridge, made unless there is one (`link`: what has its name), up and as the settings want it.

    Raises Error(TAKEN) if something else has its name, Error(UNSUPPORTED) for VLANs that the kernel or the bridge does not have.
    """
    if link is None:
        link = _make(host, settings)
    if link.kind != "bridge":
        cause = f"it is a {link.kind or 'physical link'}"
        raise Error(TAKEN, f"{settings.bridge} exists and is not a bridge", subject="/bridge", cause=cause)
    if settings.has_vlans:
        _require_vlans(link)
    if not link.is_up:  # nobody has used it yet
        prepare(settings, link.name)
    request = _change(settings, link)
    if request is not None:
        host.execute(request)
    return link


def prepare(settings: Settings, name: str) -> None:
    """Set what IPv6 does on a link that leads to containers, before it is up. Raises Error."""
    # Router advertisements of containers must not configure the host.
    sysctl.write(f"net/ipv6/conf/{name}/accept_ra", "0", optional=True)
    if settings.is_gateway and not settings.detect_duplicates:
        # The host asks for neighbours from the link's own address, so what it forwards would wait until that is sure.
        sysctl.write(f"net/ipv6/conf/{name}/accept_dad", "0", optional=True)


def _make(host: Netlink, settings: Settings) -> Link:
    """A new bridge, which is down."""
    # With an address that somebody chose, it does not take over the lowest one among its ports, which come and go.
    attributes: dict[int, Value] = {links.IFLA_ADDRESS: random_mac()}
    if settings.mtu:
        attributes[links.IFLA_MTU] = settings.mtu
    # Which port wants which group has no effect while no querier asks, and a bridge asks none. But for each port that begins to
    # forward, all others have their timers set.
    data: dict[int, Value] = {bridges.IFLA_BR_MCAST_SNOOPING: bridges.OFF}
    if settings.has_vlans:
        data[bridges.IFLA_BR_VLAN_FILTERING] = bridges.ON
    name = settings.bridge
    (error,) = host.attempt(links.create("bridge", name, attributes, data))
    if error is not None and error.errno == EOPNOTSUPP and settings.has_vlans:
        raise _without_vlans()
    if error is not None and error.errno != EEXIST:
        raise error
    link = links.find(host, name)
    if link is None:
        raise error or Error(TAKEN, f"{name} was removed while it was made", subject="/bridge")
    return link


def random_mac() -> bytes:
    """A hardware address for one link, administered locally (IEEE 802)."""
    first, *rest = posix.urandom(6)
    return bytes([first & 0xFC | 0x02, *rest])


def _require_vlans(link: Link) -> None:
    if bridges.IFLA_BR_VLAN_DEFAULT_PVID not in link.data:
        raise _without_vlans()
    if link.data.get(bridges.IFLA_BR_VLAN_FILTERING) != bridges.ON:
        hint = f"ip link set {link.name} type bridge vlan_filtering 1"
        raise Error(UNSUPPORTED, f"{link.name} exists and does not tell VLANs apart", subject="/bridge", hint=hint)


def _without_vlans() -> Error:
    hint = "it was built without BRIDGE_VLAN_FILTERING; leave out vlan and vlanTrunk"
    return Error(UNSUPPORTED, "this kernel's bridges have no VLANs", subject="/vlan", hint=hint)


def _change(settings: Settings, link: Link) -> Request | None:
    """What has to change about a bridge, if anything has."""
    flags = links.IFF_UP | (links.IFF_PROMISC if settings.promiscuous else 0)
    data: dict[int, Value] = {}
    if settings.is_gateway:
        # An answer of a Service's endpoint on this bridge has to pass the node's address translation on its way back, so bridged
        # packets go through netfilter, if br_netfilter is loaded. Of this bridge alone: the sysctl would be for all of them.
        for kind in (bridges.IFLA_BR_NF_CALL_IPTABLES, bridges.IFLA_BR_NF_CALL_IP6TABLES):
            if link.data.get(kind) == b"\0":
                data[kind] = bridges.ON
    if link.flags & flags == flags and not data:
        return None
    attributes: dict[int, Value] = {}
    if data:
        attributes[links.IFLA_LINKINFO] = {links.IFLA_INFO_KIND: "bridge", links.IFLA_INFO_DATA: data}
    return links.change(link.index, attributes, flags=flags, mask=flags, what=link.name)


def ensure_addresses(host: Netlink, link: Link, gateways: list[Prefix], *, force: bool) -> None:
    """Give the bridge, or the gateway of a VLAN, the gateways' addresses.

    Another IPv4 address of it, or an IPv6 one of an overlapping network, is in the way: with `force` it goes.

    Raises Error(TAKEN), KernelError.
    """
    there = [one.prefix for one in addrs.of(host, link.index) if one.scope == addrs.RT_SCOPE_UNIVERSE]
    missing = [one for one in gateways if one not in there]
    if not missing:
        return
    in_the_way = [one for one in there if one not in gateways and any(_conflict(one, new) for new in missing)]
    if in_the_way and not force:
        raise Error(
            TAKEN,
            f"{link.name} already has an IP address different from {missing[0]}",
            subject="/isGateway",
            cause=f"it has {in_the_way[0]}",
            hint="with forceAddress the gateway's takes its place; two networks need two bridges",
        )
    requests = [addrs.delete(link.index, one, link.name) for one in in_the_way]
    requests += [addrs.add(link.index, one, link.name) for one in missing]
    # A bridge that somebody made without a hardware address keeps what it has now.
    requests.append(links.change(link.index, {links.IFLA_ADDRESS: link.attributes[links.IFLA_ADDRESS]}, what=link.name))
    host.execute(*requests, but=(EEXIST,))  # another ADD was faster


def _conflict(one: Prefix, other: Prefix) -> bool:
    return one.version == other.version and (one.version == 4 or one.overlaps(other))
