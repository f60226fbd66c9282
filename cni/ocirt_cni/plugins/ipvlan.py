"""ipvlan: a link in the container with the hardware address of the host's link below it, told apart by its IP addresses."""

from __future__ import annotations

from _struct import pack

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import codec, kinds
from ocirt_cni.plugins import devices, fields, stacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netns import Namespace
    from ocirt_cni.results import Result

_KIND = "ipvlan"
_FIELDS = ("linkInContainer", "master", "mode", "mtu")


def add(call: Call) -> Result:
    """The link, with addresses from the IPAM plugin, or without one those of the plugin before it. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    data: dict[int, Value] = {kinds.IFLA_IPVLAN_MODE: pack("H", _mode(call))}
    master = _master(call)

    def make(namespace: Namespace) -> Link:
        return stacked.make(call, namespace, _KIND, data, master)

    takes_over = not delegate.type_of(call) and call.previous is not None and call.previous.ips
    return devices.add(call, make, moved=call.previous if takes_over else None)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    _mode(call)
    fields.mtu(call.conf)


def delete(call: Call) -> None:
    """Remove the link, give back the addresses. Raises Error."""
    devices.delete(call, _KIND)


def check(call: Call) -> None:
    """That the link has its mode, and what the previous result says. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted = _mode(call)
    modes = {number: name for name, number in kinds.IPVLAN_MODES.items()}

    def more(link: Link) -> None:
        found = codec.number(link.data[kinds.IFLA_IPVLAN_MODE])
        devices.expect(call.ifname, "mode", modes.get(found, found), modes[wanted])

    devices.check(call, _KIND, more)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Raises Error."""
    devices.gc(call)


def status(call: Call) -> None:
    """That the kernel has ipvlan, the master is there, and addresses are. Raises Error(NOT_AVAILABLE)."""
    devices.status(call, _KIND)
    if call.conf.get("master"):  # else it may come from the plugin before this one
        stacked.check_master(call)


def _mode(call: Call) -> int:
    mode = field(call.conf, "mode", str, "") or "l2"
    if mode not in kinds.IPVLAN_MODES:
        raise Error(INVALID_CONFIG, f"{mode!r} is none of {', '.join(kinds.IPVLAN_MODES)}", subject="/mode")
    return kinds.IPVLAN_MODES[mode]


def _master(call: Call) -> str:
    """The field `master`; in a chain it may be the one interface of the plugin before; "": that of the default route."""
    master: str = field(call.conf, "master", str, "")
    if master or call.previous is None:
        return master
    names = [one.name for one in call.previous.interfaces if one.name]
    if len(names) != 1:
        message = f"it is missing, and the previous result has {len(names)} interfaces, not one"
        raise Error(INVALID_CONFIG, message, subject="/master")
    return names[0]
