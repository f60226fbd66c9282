"""Veth pairs: one end in the container's namespace, the other in the host's.

The host's end is named by a hash of its owner, and has the owner in its alias. So DEL finds it without the namespace, and GC
knows whose it is.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from errno import ENODEV
from time import monotonic

from ocirt_cni.call import Attachment, Call, field
from ocirt_cni.errors import KERNEL, TAKEN, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import links
from ocirt_cni.netlink.links import Link
from ocirt_cni.netlink.socket import KernelError, Netlink
from ocirt_cni.netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value

_MARK = "ocirt "
_LONGEST = 255  # bytes of an alias (linux/if.h, IFALIASZ)
_DIGITS = 11  # with "veth" before them, all that a name has room for. NetworkManager leaves links alone that are named so
_RTNLGRP_LINK = 1
_PATIENCE = 5.0  # seconds until a link whose other end is up should be able to send


def owner(call: Call, attachment: Attachment | None = None) -> str:
    """What stands in the alias of a link that an attachment owns: that of the call, unless another one of its network is given.

    "ocirt NETWORK CONTAINER INTERFACE"; a hash stands for what would be too long.
    """
    attachment = attachment or call.attachment
    rest = f"{attachment.container} {attachment.ifname}"
    text = _prefix(call) + rest
    return text if len(text.encode()) <= _LONGEST else f"{_prefix(call)}#{_hash(rest, 16)}"


def _prefix(call: Call) -> str:
    """What the aliases of all of a network's links begin with.

    The folder in which the network keeps its addresses is part of it, if the configuration names one: two runtimes with networks
    of one name do not clean up each other's.
    """
    network = call.network if len(call.network) < _LONGEST // 2 else f"#{_hash(call.network, 16)}"
    folder = field(field(call.conf, "ipam", dict, {}), "dataDir", str, "", "/ipam")
    return f"{_MARK}{network}@{_hash(folder, 4)} " if folder else f"{_MARK}{network} "


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()


def host_name(call: Call) -> str:
    """The name of the end in the host's namespace."""
    return name_of(owner(call))


def name_of(text: str) -> str:
    """The name of a link for what it is."""
    return "veth" + _hash(text, 6)[:_DIGITS]


def refuse_taken(namespace: Namespace, call: Call) -> None:
    """Raises Error(TAKEN) if the container has an interface of the name already (SPEC.md, "ADD": it has to be an error)."""
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
    mine = owner(call)
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
    # A new link does not take the alias and a port's attributes, hence a second request. Both are one send(2), so that no kill
    # comes between them.
    mark = links.change_named(name, {links.IFLA_IFALIAS: mine.encode(), **(port or {})})
    failed, unmarked = host.attempt(links.veth(name, call.ifname, ours, peers, up=up), mark)
    if failed is not None:
        raise failed
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


def operational(netlink: Netlink, name: str) -> Link:
    """The link, once it can send and a bridge forwards for it. Its other end has to be up.

    The kernel has it so at once, but for a job that runs a moment later. Since Linux 6.8 to ask for the link does that job.
    Before, there is something to wait for, and the kernel tells when it comes. Raises Error(KERNEL) if it does not.
    """
    link = existing(netlink, name)
    if link.operstate in (links.IF_OPER_UP, links.IF_OPER_UNKNOWN):
        return link
    deadline = monotonic() + _PATIENCE
    with Netlink() as events:
        events.join(_RTNLGRP_LINK)
        while True:
            link = existing(netlink, name)
            if link.operstate == links.IF_OPER_UP:
                return link
            if not events.wait(deadline - monotonic()):
                raise Error(KERNEL, "the link has no carrier", subject=name, cause=f"its operational state is {link.operstate}")


def existing(netlink: Netlink, name: str) -> Link:
    """A link that has to be there. Raises KernelError."""
    link = links.find(netlink, name)
    if link is None:
        raise KernelError(ENODEV, f"RTM_GETLINK {name}")
    return link


def delete(call: Call) -> None:
    """Remove the pair, wherever its ends are. What is gone is no error. Raises KernelError, or Error(TAKEN) as `create` does.

    If whoever calls drops the namespace at once, that does it.
    """
    if call.lazy:
        return
    mine = owner(call)
    with Netlink() as host:
        link = links.find(host, name_of(mine))
        if link is not None:
            _refuse_foreign(link, mine)
            _delete(host, link)
            return
    _delete_inner(call)


def release(call: Call) -> None:
    """Give back the addresses, of which the IPAM plugin may give none to others while the host's end is there. Raises Error."""
    call.link = host_name(call)
    delegate.delete(call)


def _delete_inner(call: Call) -> None:
    """Remove the container's end of a pair that another plugin made, as a previous result tells, when a node changed to ours."""
    if call.previous is None or not any(one.name == call.ifname and one.sandbox for one in call.previous.interfaces):
        return
    namespace = Namespace.find(call.netns)
    if namespace is None:
        return
    with namespace:
        link = links.find(namespace.netlink, call.ifname)
        if link is not None and link.kind == "veth":
            _delete(namespace.netlink, link)


def _delete(netlink: Netlink, link: Link) -> None:
    (error,) = netlink.attempt(links.delete(link.index, link.name))
    if error is not None and error.errno != ENODEV:
        raise error


def collect(call: Call) -> None:
    """GC: remove the pairs of the network's attachments that are not valid any more. Raises KernelError."""
    keep = {owner(call, Attachment(call.network, *one)) for one in call.valid}
    prefix = _prefix(call)
    with Netlink() as host:
        found = [one for one in links.every(host) if one.kind == "veth" and one.alias.startswith(prefix)]
        delete_all(host, [one for one in found if one.alias not in keep])


def delete_all(netlink: Netlink, stale: list[Link]) -> None:
    """Delete links, in the time that one takes. Raises KernelError."""
    if len(stale) < 2:
        for one in stale:
            _delete(netlink, one)
        return
    group = int.from_bytes(os.urandom(4), "little") >> 1 | 1  # nobody else's
    netlink.attempt(*(links.change(one.index, {links.IFLA_GROUP: group}, what=one.name) for one in stale))
    (error,) = netlink.attempt(links.delete_group(group))
    if error is not None and error.errno != ENODEV:
        raise error
