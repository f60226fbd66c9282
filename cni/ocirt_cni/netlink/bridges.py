"""Bridges, their ports and VLANs (linux/if_link.h, linux/if_bridge.h)."""

from __future__ import annotations

from _struct import pack

from ocirt_cni.netlink import codec, links
from ocirt_cni.netlink.socket import Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cni.netlink.codec import Value

# Of a bridge, in IFLA_INFO_DATA.
IFLA_BR_VLAN_FILTERING = 7
IFLA_BR_MCAST_SNOOPING = 23
IFLA_BR_NF_CALL_IPTABLES = 36
IFLA_BR_NF_CALL_IP6TABLES = 37
IFLA_BR_VLAN_DEFAULT_PVID = 39
# Of a port, in IFLA_INFO_SLAVE_DATA.
IFLA_BRPORT_MODE = 4  # hairpin
IFLA_BRPORT_ISOLATED = 33

ON, OFF = b"\1", b"\0"  # the value of an attribute of one byte

_PF_BRIDGE = 7
_RTM_SETLINK = 19
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_BRVLAN = 1 << 1
_IFLA_BRIDGE_VLAN_INFO = 2
PVID = 1 << 1  # BRIDGE_VLAN_INFO_PVID: of what comes in without a tag
UNTAGGED = 1 << 2  # BRIDGE_VLAN_INFO_UNTAGGED: goes out without a tag


def port(attributes: dict[int, Value]) -> dict[int, Value]:
    """Attributes of a port, as an attribute of its link."""
    return {links.IFLA_LINKINFO: {links.IFLA_INFO_SLAVE_KIND: "bridge", links.IFLA_INFO_SLAVE_DATA: attributes}}


def add_vlans(index: int, vlans: Iterable[tuple[int, int]], what: str = "") -> Request:
    """Let a port take part in VLANs: (number, flags) of each."""
    return _vlans(_RTM_SETLINK, index, vlans, f"RTM_SETLINK {what or index} (VLANs)")


def delete_vlans(index: int, vlans: Iterable[int], what: str = "") -> Request:
    """Take a port out of VLANs."""
    return _vlans(links.RTM_DELLINK, index, [(number, 0) for number in vlans], f"RTM_DELLINK {what or index} (VLANs)")


def _vlans(kind: int, index: int, vlans: Iterable[tuple[int, int]], what: str) -> Request:
    infos: list[tuple[int, Value]] = [(_IFLA_BRIDGE_VLAN_INFO, pack("HH", flags, number)) for number, flags in vlans]
    head = pack("BxHiII", _PF_BRIDGE, 0, index, 0, 0)
    return Request(kind, 0, head + codec.attribute(links.IFLA_AF_SPEC, infos), what)


def vlans_of(netlink: Netlink, index: int) -> dict[int, int]:
    """The VLANs of a port, with their flags. Raises KernelError."""
    head = pack("BxHiII", _PF_BRIDGE, 0, 0, 0, 0) + codec.attribute(_IFLA_EXT_MASK, _RTEXT_FILTER_BRVLAN)
    found: dict[int, int] = {}
    for contents in netlink.dump(Request(links.RTM_GETLINK, 0, head, "RTM_GETLINK (VLANs)")):
        link = links.Link(contents)
        if link.index != index:
            continue
        for kind, value in codec.each(link.attributes.get(links.IFLA_AF_SPEC, b"")):
            if kind == _IFLA_BRIDGE_VLAN_INFO:
                found[codec.number(value[2:4])] = codec.number(value[:2])
    return found
