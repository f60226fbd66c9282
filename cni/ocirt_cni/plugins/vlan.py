"""vlan: a link in the container for the frames of one VLAN on a link of the host's."""

from __future__ import annotations

from _struct import pack

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.netlink import codec, kinds
from ocirt_cni.plugins import devices, fields, stacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netns import Namespace
    from ocirt_cni.results import Result

_KIND = "vlan"
_FIELDS = ("linkInContainer", "master", "mtu", "vlanId")
_MOST_ID = 4094  # 4095 is reserved (IEEE 802.1Q, 9.6)


def add(call: Call) -> Result:
    """The link, with addresses if the network has an IPAM plugin. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    data: dict[int, Value] = {kinds.IFLA_VLAN_ID: pack("H", _id(call))}
    master = _master(call)

    def make(namespace: Namespace) -> Link:
        return stacked.make(call, namespace, _KIND, data, master)

    return devices.add(call, make)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    _id(call)
    _master(call)
    fields.mtu(call.conf)


def delete(call: Call) -> None:
    """Remove the link, give back the addresses. Raises Error."""
    devices.delete(call, _KIND)


def check(call: Call) -> None:
    """That the link has its VLAN and MTU, and what the previous result says. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted, mtu = _id(call), fields.mtu(call.conf)

    def more(link: Link) -> None:
        devices.expect(call.ifname, "VLAN", codec.number(link.data[kinds.IFLA_VLAN_ID]), wanted)
        if mtu:
            devices.expect(call.ifname, "MTU", link.mtu, mtu)

    devices.check(call, _KIND, more)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Raises Error."""
    devices.gc(call)


def status(call: Call) -> None:
    """That the kernel has VLANs, the master is there, and addresses are. Raises Error(NOT_AVAILABLE)."""
    devices.status(call, _KIND)
    stacked.check_master(call)


def _id(call: Call) -> int:
    found: int = fields.number(call.conf, "vlanId", 0, 0, _MOST_ID)
    return found


def _master(call: Call) -> str:
    master: str = field(call.conf, "master", str, "")
    if not master:
        raise Error(INVALID_CONFIG, "it is missing", subject="/master", hint="name the link that carries the VLAN")
    return master
