"""macvlan: a link in the container with a hardware address of its own on top of a link of the host's."""

from __future__ import annotations

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

_KIND = "macvlan"
_FIELDS = ("bcqueuelen", "linkInContainer", "mac", "master", "mode", "mtu")
_MOST_QUEUE = (1 << 32) - 1


def add(call: Call) -> Result:
    """The link, with addresses if the network has an IPAM plugin. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    data: dict[int, Value] = {kinds.IFLA_MACVLAN_MODE: _mode(call)}
    if queue := fields.number(call.conf, "bcqueuelen", 0, 0, _MOST_QUEUE):
        data[kinds.IFLA_MACVLAN_BC_QUEUE_LEN] = queue
    mac = fields.mac(call)

    def make(namespace: Namespace) -> Link:
        return stacked.make(call, namespace, _KIND, data, field(call.conf, "master", str, ""), mac)

    return devices.add(call, make)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    _mode(call)
    fields.number(call.conf, "bcqueuelen", 0, 0, _MOST_QUEUE)
    fields.mac(call)
    fields.mtu(call.conf)


def delete(call: Call) -> None:
    """Remove the link, give back the addresses. Raises Error."""
    devices.delete(call, _KIND)


def check(call: Call) -> None:
    """That the link has its mode, and what the previous result says. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted = _mode(call)
    modes = {number: name for name, number in kinds.MACVLAN_MODES.items()}

    def more(link: Link) -> None:
        found = codec.number(link.data[kinds.IFLA_MACVLAN_MODE])
        devices.expect(call.ifname, "mode", modes.get(found, found), modes[wanted])

    devices.check(call, _KIND, more)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Raises Error."""
    devices.gc(call)


def status(call: Call) -> None:
    """That the kernel has macvlan, the master is there, and addresses are. Raises Error(NOT_AVAILABLE)."""
    stacked.check_master(call)
    devices.status(call, _KIND)


def _mode(call: Call) -> int:
    mode = field(call.conf, "mode", str, "") or "bridge"
    if mode not in kinds.MACVLAN_MODES:
        raise Error(INVALID_CONFIG, f"{mode!r} is none of {', '.join(kinds.MACVLAN_MODES)}", subject="/mode")
    return kinds.MACVLAN_MODES[mode]
