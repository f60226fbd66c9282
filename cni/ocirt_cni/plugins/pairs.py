"""Veth pairs: one end in the container's namespace, the other in the host's.

The host's end is named by a hash of its owner, and has the owner in its alias. So DEL finds it without the namespace, and GC
knows whose it is.
"""

from __future__ import annotations

import posix
from _socket import AF_INET6
from _thread import allocate_lock, start_new_thread
from errno import ENODEV
from time import monotonic

from ocirt_cni.call import Call
from ocirt_cni.errors import INVALID_NETNS, KERNEL, TAKEN, Error
from ocirt_cni.ipam import config
from ocirt_cni.netlink import links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import KernelError, Netlink
from ocirt_cni.plugins import owners, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_cni.call import Attachment
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netns import Namespace
    from ocirt_cni.plugins.steps import Step

_RTNLGRP_LINK = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
# A bridge's port needs no IPv6 address of its own, which would be two more routes of the host's. A kernel without IPv6 refuses
# this, which is no matter.
_WITHOUT_ADDRESS: dict[int, Value] = {
    links.IFLA_AF_SPEC: {AF_INET6: {_IFLA_INET6_ADDR_GEN_MODE: b"\1"}}
}  # IN6_ADDR_GEN_MODE_NONE
_PATIENCE = 20.0  # seconds until a link whose other end is up should be able to send; under load the kernel takes its time


def host_name(call: Call) -> str:
    """The name of the end in the host's namespace."""
    return name_of(owners.owner(call))


def name_of(text: str) -> str:
    """The name of a link for what it is."""
    # With so many digits: NetworkManager leaves links alone that are named so.
    return owners.name("veth", text)


def refuse_taken(namespace: Namespace, call: Call) -> None:
    """Refuse an interface that the container has already (SPEC.md, "ADD": it has to be an error), and the host as a container.

    Raises Error(TAKEN), Error(INVALID_NETNS).
    """
    if namespace.is_own():
        raise Error(INVALID_NETNS, f"{call.netns} is the plugin's own network namespace", subject="CNI_NETNS")
    if links.find(namespace.netlink, call.ifname) is not None:
        raise Error(
            TAKEN,
            f"{call.netns} has an interface {call.ifname} already",
            subject="CNI_IFNAME",
            hint="DEL has to come between two ADDs of one interface",
        )


def create(
    host: Netlink,
    namespace: Namespace,
    call: Call,
    *,
    mtu: int = 0,
    mac: bytes = b"",
    master: int = 0,
    port: dict[int, Value] | None = None,
    up: bool = False,
    existing: Link | None = None,
) -> str:
    """Make the pair; the name of its end in the host's namespace. The other one is born in the container's, and is down.

    mtu, mac: of both ends, of the container's; 0 and nothing: the kernel chooses
    master, port: index of the bridge that the host's end is a port of, and more attributes of it
    up: whether the host's end is brought up
    existing: what is known by the name of the host's end, if anything is. What an ADD left that was killed is made anew

    Raises Error(TAKEN) if it is not the attachment's, or KernelError.
    """
    mine = owners.owner(call)
    name = name_of(mine)
    if existing is not None:
        _refuse_foreign(existing, mine)
        _delete(host, existing)
    ours: dict[int, Value] = {}
    peers: dict[int, Value] = {links.IFLA_NET_NS_FD: namespace.fd}
    if mtu:
        ours[links.IFLA_MTU] = peers[links.IFLA_MTU] = mtu
    if mac:
        peers[links.IFLA_ADDRESS] = mac
    if master:
        ours[links.IFLA_MASTER] = master
    # A new link does not take the alias and a port's attributes, hence a second request. All are one send(2), so that no kill
    # comes between them. It comes up last: at each change of a link that is up the kernel looks through all routes.
    mark = links.change_named(name, {links.IFLA_IFALIAS: mine.encode(), **(port or {})})
    rest = [links.change_named(name, _WITHOUT_ADDRESS)] if master else []
    if up:
        rest.append(links.change_named(name, flags=links.IFF_UP))
    failed, unmarked, *others = host.attempt(links.veth(name, call.ifname, ours, peers), mark, *rest)
    if failed is not None:
        raise failed
    unmarked = unmarked or (others[-1] if up else None)
    if unmarked is not None:
        found = links.find(host, name)
        if found is not None:
            _delete(host, found)
        raise unmarked
    return name


def _refuse_foreign(link: Link, mine: str) -> None:
    """What was made by a kernel that took no alias yet is ours by its name."""
    if link.kind != "veth" or link.alias not in ("", mine):
        raise Error(
            TAKEN,
            "the link is not this attachment's",
            subject=link.name,
            cause=f"it is a {link.kind or 'physical one'} with the alias {link.alias!r}",
        )


def settle(host: Netlink, namespace: Namespace, call: Call) -> tuple[Link, Link]:
    """Both ends, the host's first, once they can send and a bridge forwards for them. Both have to be up.

    The kernel has it so at once, but for a job that runs a moment later. Since Linux 6.8 to ask for a link does that job. Before,
    there is something to wait for, and the kernel tells when it comes. Raises Error(KERNEL) if it does not.
    """
    outer = _settled(host, host_name(call), Netlink)
    return outer, _settled(namespace.netlink, call.ifname, namespace.open_netlink)


def _settled(netlink: Netlink, name: str, open_netlink: Callable[[], Netlink]) -> Link:
    link = existing(netlink, name)
    if link.operstate == links.IF_OPER_UP:
        return link
    deadline = monotonic() + _PATIENCE
    with open_netlink() as events:
        events.join(_RTNLGRP_LINK)
        while True:
            link = existing(netlink, name)
            if link.operstate == links.IF_OPER_UP:
                return link
            if not events.wait(deadline - monotonic()):
                raise Error(KERNEL, "the link has no carrier", subject=name, cause=f"its operational state is {link.operstate}")


def is_there(attachment: Attachment, folder: str) -> bool:
    """Whether the host has the end of an attachment's pair; `folder` as with `owners.owner_of`. Raises KernelError."""
    with Netlink() as host:
        return links.find(host, name_of(owners.owner_of(attachment, folder))) is not None


def existing(netlink: Netlink, name: str) -> Link:
    """A link that has to be there. Raises KernelError."""
    link = links.find(netlink, name)
    if link is None:
        raise KernelError(ENODEV, f"RTM_GETLINK {name}")
    return link


def detach(call: Call, plugin: str) -> None:
    """DEL of a plugin: the pair, its rules and the addresses. Of the configuration only `ipam` matters. Raises Error."""
    from ocirt_cni.main import preload  # noqa: PLC0415  (an executable has it, and none of what follows)

    rest = f"{plugin} DEL, then"
    if config.needs_interface(call):
        preload(rest)
    released = begin_release(call)
    removed = begin_removal(call)
    preload(rest)  # while the kernel removes the pair
    from ocirt_cni.ipam import delegate  # noqa: PLC0415
    from ocirt_cni.nft import changes  # noqa: PLC0415

    last = (released, removed) if delegate.minds_links(call) else (removed, released)
    steps.every(lambda: changes.remove(call.attachment, plugin), *last)


def begin_removal(call: Call) -> Step:
    """Begin to remove the pair, wherever its ends are. Returned is the step that waits until it is gone, and raises what failed.

    The kernel takes 20 ms, in which it waits for readers of the link; rules can be removed meanwhile, and modules loaded. What is
    gone is no error. If whoever calls drops the namespace at once, that does it. The step raises KernelError, or Error(TAKEN) as
    `create` does.
    """
    if call.lazy:
        return _nothing
    try:
        return _begin(call)
    except Error as err:
        return _failing(err)


def _begin(call: Call) -> Step:
    mine = owners.owner(call)
    host = Netlink()
    try:
        link = links.find(host, name_of(mine))
        if link is None:
            host.close()
            return lambda: _remove_inner(call)
        _refuse_foreign(link, mine)
    except BaseException:
        host.close()
        raise
    failed: list[BaseException] = []
    begun, done = allocate_lock(), allocate_lock()
    begun.acquire()
    done.acquire()

    def run() -> None:
        try:
            begun.release()
            with host:
                _delete(host, link)
        except BaseException as err:  # noqa: BLE001  (it is raised where somebody waits)
            failed.append(err)
        finally:
            done.release()

    def finish() -> None:
        done.acquire()
        if failed:
            raise failed[0]

    try:
        start_new_thread(run, ())
    except RuntimeError:  # as many threads as there may be
        run()
    begun.acquire()  # else the thread may wait for the interpreter as long as the removal takes
    return finish


def _nothing() -> None:
    pass


def _failing(error: Error) -> Step:
    def fail() -> None:
        raise error

    return fail


def begin_release(call: Call) -> Step:
    """Give the addresses back at once, if the IPAM plugin works with the interface; else by the step that is returned.

    That is for after the pair is gone. It raises Error, whenever the addresses were given back.
    """
    if not config.needs_interface(call):
        return lambda: release(call)
    try:
        release(call)
    except Error as err:
        return _failing(err)
    return _nothing


def release(call: Call) -> None:
    """Give back the addresses, of which the IPAM plugin may give none to others while the host's end is there. Raises Error."""
    from ocirt_cni.ipam import delegate  # noqa: PLC0415  (loaded while the kernel removes the pair)

    call.link = host_name(call)
    delegate.delete(call)


def _remove_inner(call: Call) -> None:
    """Remove the container's end of a pair that another plugin made, as a previous result tells, when a node changed to ours."""
    if call.previous is None or not any(one.name == call.ifname and one.sandbox for one in call.previous.interfaces):
        return
    from ocirt_cni.netns import Namespace  # noqa: PLC0415  (most calls of DEL end before, and it loads ctypes)

    namespace = Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        link = links.find(namespace.netlink, call.ifname)
        if link is not None and link.kind == "veth":
            _delete(namespace.netlink, link)


def _delete(netlink: Netlink, link: Link) -> None:
    netlink.execute(links.delete(link.index, link.name), but=(ENODEV,))


def collect(call: Call) -> None:
    """GC: remove the pairs of the network's attachments that are not valid any more. Raises KernelError."""
    with Netlink() as host:
        found = [one for one in links.every(host) if one.kind == "veth"]
        stale = owners.stale(call, {one.alias for one in found})
        delete_all(host, [one for one in found if one.alias in stale])


def delete_all(netlink: Netlink, stale: list[Link]) -> None:
    """Delete links, in the time that one takes. Raises KernelError."""
    if len(stale) < 2:
        for one in stale:
            _delete(netlink, one)
        return
    group = int.from_bytes(posix.urandom(4), "little") >> 1 | 1  # nobody else's
    netlink.attempt(*(links.change(one.index, {links.IFLA_GROUP: group}, what=one.name) for one in stale))
    netlink.execute(links.delete_group(group), but=(ENODEV,))
