"""What the plugins share that give a container one link without a second end on the host: macvlan, ipvlan, vlan, dummy, tap,
host-device.

Each of them makes the link; addresses from the IPAM plugin (if the network has one), the result, DEL, CHECK, GC and STATUS are
here.
"""

from __future__ import annotations

from errno import ENODEV

from ocirt_cni.call import Call
from ocirt_cni.errors import CHECK_FAILED, NOT_AVAILABLE, Error
from ocirt_cni.ipam import config, delegate
from ocirt_cni.netlink import kinds, links
from ocirt_cni.netlink.socket import Netlink
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import interfaces, owners, pairs, steps
from ocirt_cni.results import IP, Interface, Result, parse_dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_cni.netlink.links import Link
    from ocirt_cni.plugins.steps import Step


def add(
    call: Call,
    make: Callable[[Namespace], Link],
    undo: Callable[[Namespace, Link], None] | None = None,
    *,
    moved: Result | None = None,
) -> Result:
    """Let `make` put a link into the container, and configure it; `undo` takes it away if that fails.

    moved: the result of an earlier plugin, whose addresses this link takes over. Raises Error.
    """
    with Namespace.open(call.netns) as namespace:
        pairs.refuse_taken(namespace, call)
        link = make(namespace)
        try:
            made = _configured(call, namespace, link, moved)
        except BaseException:
            (undo or remove)(namespace, link)
            raise
    return made if moved is not None else _after_others(call, made)


def add_without_link(call: Call, interface: Interface) -> Result:
    """The result for a device that has no link, as a program drives it by itself. Raises Error."""
    return _after_others(call, _asked(call, interface) if delegate.type_of(call) else _result(call, interface))


def _after_others(call: Call, made: Result) -> Result:
    return made if call.previous is None else call.previous.joined(made)


def _configured(call: Call, namespace: Namespace, link: Link, moved: Result | None) -> Result:
    interface = Interface(call.ifname, link.mac, sandbox=call.netns, mtu=link.mtu)
    if moved is not None:
        result = _with_addresses(call, interface, moved)
        interfaces.configure(namespace, call.ifname, result, number=0)
        return result
    if not delegate.type_of(call):
        namespace.netlink.execute(links.set_up(link.index, call.ifname))
        return _result(call, interface)
    result = _asked(call, interface)
    try:
        interfaces.configure(namespace, call.ifname, result, number=0)
    except BaseException:
        steps.attempt(lambda: delegate.delete(call))
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


def remove(namespace: Namespace, link: Link) -> None:
    """Delete a link of the container's after something failed, which is what is reported."""
    namespace.netlink.attempt(links.delete(link.index))


def delete(call: Call, kind: str) -> None:
    """Remove the container's link, if it is of this kind and nobody else's, and give its addresses back. Raises Error."""
    take_away(call, lambda: _delete_link(call, kind))


def take_away(call: Call, remove: Step) -> None:
    """Take the link away and give its addresses back, in the order that suits the IPAM plugin. Raises Error."""

    def release() -> None:
        delegate.delete(call)

    steps.every(*((release, remove) if config.needs_interface(call) else (remove, release)))


def _delete_link(call: Call, kind: str) -> None:
    namespace = None if call.lazy else Namespace.find(call.netns)
    if namespace is None:
        return
    owner = owners.owner(call)
    with namespace:
        for link in links.find_several(namespace.netlink, call.ifname, temporary_name(call)):
            # One without an alias was not finished, or the reference plugin made it.
            if link is not None and link.kind == kind and link.alias in ("", owner):
                namespace.netlink.execute(links.delete(link.index, link.name), but=(ENODEV,))


def check(call: Call, kind: str, more: Callable[[Link], None] | None = None) -> None:
    """That the link is as the previous result says, of this kind ("" for any), and what `more` looks at. Raises Error."""
    from ocirt_cni.plugins import inspection  # noqa: PLC0415  (an ADD needs none of it)

    result = inspection.previous(call)
    number = inspection.place_of(result, call)
    delegate.check(call)
    with Namespace.open(call.netns) as namespace:
        if not kind:
            found = links.find(namespace.netlink, call.ifname)
            kind = "" if found is None else found.kind
        link = inspection.interface(namespace, call, result, number, kind)
        if more is not None:
            more(link)


def expect(subject: str, what: str, found: object, wanted: object) -> None:
    """Raise Error(CHECK_FAILED) unless both are equal."""
    if found != wanted:
        raise Error(CHECK_FAILED, f"its {what} is {found}, not {wanted}", subject=subject)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Their links went with the namespaces. Raises Error."""
    delegate.gc(call)


def status(call: Call, kind: str = "") -> None:
    """That there are addresses, and that the kernel has links of this kind. Raises Error(NOT_AVAILABLE)."""
    if kind:
        with Netlink() as netlink:
            kinds.need(netlink, kind, NOT_AVAILABLE)
    delegate.status(call)


def temporary_name(call: Call) -> str:
    """The name under which a link is made that gets its own in the container."""
    return owners.name("ocirt", owners.owner(call))
