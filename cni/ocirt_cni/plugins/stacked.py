"""Links of a container's on top of a link of the host's (or the container's): macvlan, ipvlan, vlan.

They are made under a name of their own and renamed in the container: the kernel looks for the name of a new link among those of
the one who asks (linux/net/core/rtnetlink.c, rtnl_newlink), and the host mostly has an eth0.
"""

from __future__ import annotations

from errno import ENODEV

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, NOT_AVAILABLE, Error
from ocirt_cni.netlink import kinds, links, routes
from ocirt_cni.netlink.socket import KernelError, Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import devices, fields, owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link


def make(call: Call, namespace: Namespace, kind: str, data: dict[int, Value], master: str, mac: bytes = b"") -> Link:
    """A link on top of `master`, or if that is empty, of that of the default route; with the field `mtu`. Raises Error."""
    if _is_inside(call):
        return _made(call, namespace.netlink, namespace, kind, data, master, mac)
    with Netlink() as netlink:
        return _made(call, netlink, namespace, kind, data, master, mac)


def _made(call: Call, netlink: Netlink, namespace: Namespace, kind: str, data: dict[int, Value], master: str, mac: bytes) -> Link:
    parent = _parent(netlink, master)
    attributes: dict[int, Value] = {links.IFLA_LINK: parent.index, links.IFLA_NET_NS_FD: namespace.fd}
    if mtu := _mtu(call, parent):
        attributes[links.IFLA_MTU] = mtu
    if mac:
        attributes[links.IFLA_ADDRESS] = mac
    return make_named(call, netlink, namespace, kind, attributes, data)


def make_named(
    call: Call,
    netlink: Netlink,
    namespace: Namespace,
    kind: str,
    attributes: dict[int, Value],
    data: dict[int, Value] | None = None,
) -> Link:
    """A link that is made by way of `netlink`, in the container by its attributes; with its name and owner. Raises Error."""
    temporary = devices.temporary_name(call)
    (error,) = netlink.attempt(links.create(kind, temporary, attributes, data))
    if error is not None:
        kinds.need(netlink, kind)
        raise error
    made = _existing(namespace.netlink, temporary)
    try:
        values: dict[int, Value] = {links.IFLA_IFNAME: call.ifname, links.IFLA_IFALIAS: owners.owner(call).encode()}
        namespace.netlink.execute(links.change(made.index, values, what=call.ifname))
        return _existing(namespace.netlink, call.ifname)
    except BaseException:
        devices.remove(namespace, made)
        raise


def check_master(call: Call) -> None:
    """That the link that `master` names is there, if it is the host's. Raises Error(NOT_AVAILABLE)."""
    if _is_inside(call):
        return
    with Netlink() as netlink:
        try:
            _mtu(call, _parent(netlink, field(call.conf, "master", str, "")))
        except Error as err:
            raise Error(NOT_AVAILABLE, err.message, subject=err.subject, hint=err.hint) from None


def _is_inside(call: Call) -> bool:
    found: bool = field(call.conf, "linkInContainer", bool, False)
    return found


def _existing(netlink: Netlink, name: str) -> Link:
    found = links.find(netlink, name)
    if found is None:
        raise KernelError(ENODEV, f"RTM_GETLINK {name}")
    return found


def _parent(netlink: Netlink, name: str) -> Link:
    if name:
        found = links.find(netlink, name)
        if found is None:
            raise Error(INVALID_CONFIG, f"there is no link {name}", subject="/master")
        return found
    for family in routes.FAMILIES:
        for route in sorted(routes.every(netlink, family), key=lambda one: one.priority):
            found = links.find_index(netlink, route.output) if not route.destination.length and route.output else None
            if found is not None:
                return found
    hint = "name the link that the container's shall be on top of"
    raise Error(INVALID_CONFIG, "it is missing, and there is no default route", subject="/master", hint=hint)


def _mtu(call: Call, parent: Link) -> int:
    found = fields.mtu(call.conf)
    if found > parent.mtu:
        raise Error(INVALID_CONFIG, f"{found} is more than that of {parent.name}, {parent.mtu}", subject="/mtu")
    return found
