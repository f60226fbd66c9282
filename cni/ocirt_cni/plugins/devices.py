"""What the plugins share that give a container one link without a second end on the host: macvlan, ipvlan, vlan, dummy, tap,
host-device.

Each of them makes the link; addresses from the IPAM plugin (if the network has one), the result, DEL, CHECK, GC and STATUS are
here. A link that lies on one of the host's is made under a name of its own and renamed in the container: the kernel looks for the
name among the links of the one who asks (linux/net/core/rtnetlink.c, rtnl_newlink), and "eth0" is mostly there.
"""

from __future__ import annotations

from errno import ENODEV

from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, TAKEN, Error
from ocirt_cni.ipam import config, delegate
from ocirt_cni.netlink import kinds, links, routes
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import owners, settings
from ocirt_cni.plugins import plain as interfaces
from ocirt_cni.results import IP, Interface, Result, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link

_TEMPORARY = "ocirt"  # how the name begins under which a link is made
_LEAST_MTU = 68  # linux/if_ether.h, ETH_MIN_MTU
_MOST_MTU = 65535  # ETH_MAX_MTU


def add(
    call: Call,
    make: Callable[[Namespace], Link],
    undo: Callable[[Namespace, Link], None] | None = None,
    *,
    addresses: Result | None = None,
) -> Result:
    """Let `make` put a link into the container, and configure it; `undo` takes it away if that fails.

    `addresses`: where they come from instead of the IPAM plugin, if there are any in it. Raises Error.
    """
    with Namespace.open(call.netns) as namespace:
        if links.find(namespace.netlink, call.ifname) is not None:
            raise Error(TAKEN, "the container has a link of this name", subject=call.ifname)
        link = make(namespace)
        try:
            return _configured(call, namespace, link, addresses)
        except BaseException:
            (undo or _remove)(namespace, link)
            raise


def without_link(call: Call, interface: Interface) -> Result:
    """The result for a device that has no link, such as one that a program drives by itself. Raises Error."""
    return _asked(call, interface) if delegate.type_of(call) else _result(call, interface)


def _configured(call: Call, namespace: Namespace, link: Link, addresses: Result | None) -> Result:
    interface = Interface(call.ifname, link.mac, sandbox=call.netns, mtu=link.mtu)
    if addresses is not None and addresses.ips:
        result = _with_addresses(call, interface, addresses)
        interfaces.configure(namespace, link.index, call.ifname, result)
        return result
    if not delegate.type_of(call):
        namespace.netlink.execute(links.set_up(link.index, call.ifname))
        return _result(call, interface)
    result = _asked(call, interface)
    try:
        interfaces.configure(namespace, link.index, call.ifname, result)
    except BaseException:
        every(lambda: delegate.delete(call), quiet=True)
        raise
    return result


def _asked(call: Call, interface: Interface) -> Result:
    return _with_addresses(call, interface, delegate.add(call))


def _with_addresses(call: Call, interface: Interface, found: Result) -> Result:
    result = _result(call, interface)
    result.ips = [IP(one.address, one.gateway, 0) for one in found.ips]
    result.routes = found.routes
    result.dns = result.dns or found.dns
    return result


def _result(call: Call, interface: Interface) -> Result:
    return Result([interface], dns=parse_dns(call.conf, ""))


def _remove(namespace: Namespace, link: Link) -> None:
    namespace.netlink.attempt(links.delete(link.index))


def delete(call: Call, kind: str) -> None:
    """Remove the container's link, if it is of this kind and nobody else's, and give its addresses back. Raises Error."""
    remove, release = (lambda: _delete_link(call, kind)), (lambda: delegate.delete(call))
    every(*((release, remove) if config.needs_interface(call) else (remove, release)))


def _delete_link(call: Call, kind: str) -> None:
    namespace = None if call.lazy else Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        for name in (call.ifname, _temporary(call)):
            link = links.find(namespace.netlink, name)
            # One without an alias was not finished, or the reference plugin made it.
            if link is not None and link.kind == kind and link.alias in ("", owners.alias(call)):
                (error,) = namespace.netlink.attempt(links.delete(link.index, name))
                if error is not None and error.errno != ENODEV:
                    raise error


def check(call: Call, kind: str, more: Callable[[Link], None] | None = None) -> None:
    """That the link is as the previous result says, of this kind ("" for any), and what `more` looks at. Raises Error."""
    delegate.check(call)
    previous, interface = previous_interface(call)
    with Namespace.open(call.netns) as namespace:
        link = links.find(namespace.netlink, call.ifname)
        if link is None:
            raise Error(CHECK_FAILED, "the container has no such link", subject=call.ifname)
        if kind:
            expect(call.ifname, "kind", link.kind, kind)
        if interface.mac:
            expect(call.ifname, "hardware address", link.mac, interface.mac.lower())
        expect(call.ifname, "state", "up" if link.is_up else "down", "up")
        if more is not None:
            more(link)
        interfaces.check(namespace, link.index, call.ifname, previous)


def previous_interface(call: Call) -> tuple[Result, Interface]:
    """The previous result, and what it says of the container's link. Raises Error."""
    if call.previous is None:
        raise Error(INVALID_CONFIG, "CHECK needs the result of ADD", subject="/prevResult")
    for interface in call.previous.interfaces:
        if interface.name == call.ifname and interface.sandbox == call.netns:
            return call.previous, interface
    message = f"there is no interface {call.ifname} in {call.netns}"
    raise Error(CHECK_FAILED, message, subject="/prevResult/interfaces")


def expect(subject: str, what: str, found: object, wanted: object) -> None:
    """Raise Error(CHECK_FAILED) unless both are equal."""
    if found != wanted:
        raise Error(CHECK_FAILED, f"the {what} is {found}, not {wanted}", subject=subject)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Their links went with the namespaces. Raises Error."""
    delegate.gc(call)


def status(call: Call, kind: str = "") -> None:
    """That there are addresses, and that the kernel has links of this kind. Raises Error(NOT_AVAILABLE)."""
    if kind:
        with Netlink() as netlink:
            kinds.need(netlink, kind, NOT_AVAILABLE)
    delegate.status(call)


# Links on top of another one: macvlan, ipvlan, vlan.


def make_above(
    call: Call, namespace: Namespace, kind: str, data: dict[int, Value], master: str = "", mac: bytes | None = None
) -> Link:
    """A link on top of `master`, or of that of the default route, with the configuration's `mtu`. Raises Error."""
    inside: bool = field(call.conf, "linkInContainer", bool, False)
    if inside:
        return _made_above(call, namespace.netlink, namespace, kind, data, master, mac)
    with Netlink() as netlink:
        return _made_above(call, netlink, namespace, kind, data, master, mac)


def _made_above(
    call: Call, netlink: Netlink, namespace: Namespace, kind: str, data: dict[int, Value], master: str, mac: bytes | None
) -> Link:
    parent = find_master(netlink, master)
    attributes: dict[int, Value] = {links.IFLA_LINK: parent.index, links.IFLA_NET_NS_FD: namespace.fd}
    if mtu := wanted_mtu(call, parent):
        attributes[links.IFLA_MTU] = mtu
    if mac is not None:
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
    temporary = _temporary(call)
    (error,) = netlink.attempt(links.create(kind, temporary, attributes, data))
    if error is not None:
        kinds.need(netlink, kind)
        raise error
    made = links.find(namespace.netlink, temporary)
    if made is None:
        raise Error(TAKEN, "the link was deleted by somebody else", subject=temporary)
    try:
        return named(call, namespace, made)
    except BaseException:
        _remove(namespace, made)
        raise


def named(call: Call, namespace: Namespace, link: Link) -> Link:
    """A link of the container's after it got its name and its owner. Raises KernelError."""
    values: dict[int, Value] = {links.IFLA_IFNAME: call.ifname, links.IFLA_IFALIAS: owners.alias(call)}
    namespace.netlink.execute(links.change(link.index, values, what=call.ifname))
    found = links.find_index(namespace.netlink, link.index)
    return link if found is None else found


def find_master(netlink: Netlink, name: str) -> Link:
    """The link of the field `master`, else that of the default route. Raises Error(INVALID_CONFIG)."""
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


def wanted_mtu(call: Call, parent: Link) -> int:
    """The field `mtu`, which the link below has to allow; 0 if it is absent. Raises Error(INVALID_CONFIG)."""
    found = mtu(call)
    if found > parent.mtu:
        raise Error(INVALID_CONFIG, f"{found} is more than that of {parent.name}, {parent.mtu}", subject="/mtu")
    return found


def mtu(call: Call) -> int:
    """The field `mtu`; 0 if it is absent. Raises Error(INVALID_CONFIG)."""
    found: int = settings.number(call.conf, "mtu", 0, 0, _MOST_MTU)
    if 0 < found < _LEAST_MTU:
        raise Error(INVALID_CONFIG, f"{found} is less than {_LEAST_MTU}", subject="/mtu")
    return found


def check_master(call: Call) -> None:
    """That the link is there that `master` names on the host. Raises Error(NOT_AVAILABLE)."""
    master: str = field(call.conf, "master", str, "")
    if field(call.conf, "linkInContainer", bool, False):
        return
    with Netlink() as netlink:
        try:
            find_master(netlink, master)
        except Error as err:
            raise Error(NOT_AVAILABLE, err.message, subject=err.subject, hint=err.hint) from None


def _temporary(call: Call) -> str:
    return owners.name(_TEMPORARY, call)


def every(*steps: Callable[[], object], quiet: bool = False) -> None:
    """Do all steps, whatever fails, then raise the first Error; `quiet`: raise none."""
    first: Error | None = None
    for step in steps:
        try:
            step()
        except Error as err:
            first = first or err
    if first is not None and not quiet:
        raise first
