"""host-device: a link of the host's is moved into the container, and comes back with its name, its state and its alias.

What it was like is noted in its alias while it is away, before it is moved: `ocirt NETWORK CONTAINER IFNAME was NAME up ALIAS`.
So a DEL finds it by its owner wherever an ADD or DEL was killed, and also on the host, to which the kernel moves hardware whose
namespace ends.
"""

from __future__ import annotations

import os
from errno import EEXIST, EINVAL, ENODEV

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, TAKEN, Error
from ocirt_cni.ipam import delegate
from ocirt_cni.netlink import links
from ocirt_cni.netlink.socket import KernelError
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import devices, fields, owners, steps
from ocirt_cni.results import Interface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.results import Result

_FIELDS = ("device", "hwaddr", "kernelpath", "pciBusID")
_PCI = "/sys/bus/pci/devices"
_AUXILIARY = "/sys/bus/auxiliary/devices"
_DEVICES = "/sys/devices/"
_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")  # that hand a device to a program (DPDK): it has no link
_MARK = "ocirt "
_WAS = " was "
_IFNAME = 15  # bytes of a link's name
_LONGEST_OWNER = 180  # bytes of an alias, so that a name and a state have room behind it


def add(call: Call) -> Result:
    """The link of the host's in the container, with addresses if the network has an IPAM plugin. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    chosen = _Chosen(call)
    if chosen.is_driven_by_a_program:
        return devices.add_without_link(call, Interface(call.ifname, sandbox=call.netns, pci_id=chosen.pci))
    with Namespace.own() as host:
        result = devices.add(
            call,
            lambda namespace: _move_in(call, host, namespace, chosen.find(host)),
            lambda namespace, link: _move_out(call, host, namespace, link.index),
        )
    result.interfaces[-1].pci_id = chosen.pci
    return result


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    if not field(call.conf, "capabilities", dict, {}).get("deviceID"):  # the runtime may choose one
        _Chosen(call)


def delete(call: Call) -> None:
    """Move the link back, give back the addresses. Raises Error."""
    devices.take_away(call, lambda: _bring_back(call))


def check(call: Call) -> None:
    """That the link is in the container, and what the previous result says. Raises Error."""
    from ocirt_cni.plugins import inspection  # noqa: PLC0415  (an ADD needs none of it)

    fields.refuse_unknown(call, *_FIELDS)
    if _Chosen(call).is_driven_by_a_program:
        inspection.place_of(inspection.previous(call), call)
        delegate.check(call)
    else:
        devices.check(call, "")


def gc(call: Call) -> None:
    """Give links their names back that the kernel moved to the host when a namespace ended; free addresses. Raises Error."""
    steps.every(lambda: _collect(call), lambda: delegate.gc(call))


def status(call: Call) -> None:
    """That there are addresses. Raises Error(NOT_AVAILABLE)."""
    fields.refuse_unknown(call, *_FIELDS)
    devices.status(call)


class _Chosen:
    """The device that a configuration names, by one of five ways; the one that a runtime chose (`deviceID`) comes first."""

    __slots__ = ("auxiliary", "mac", "name", "path", "pci")

    def __init__(self, call: Call) -> None:
        self.name: str = field(call.conf, "device", str, "")
        self.mac: str = field(call.conf, "hwaddr", str, "")
        self.path: str = field(call.conf, "kernelpath", str, "")
        self.pci: str = field(call.conf, "pciBusID", str, "")
        self.auxiliary = ""
        self._choose(field(call.runtime, "deviceID", str, "", "/runtimeConfig"))
        self._check()

    def _choose(self, device: str) -> None:
        if not device:
            return
        where = "/runtimeConfig/deviceID"
        _check_part(device, where)
        self.name = self.mac = self.path = self.pci = ""
        if os.path.exists(f"{_PCI}/{device}"):
            self.pci = device
        elif os.path.exists(f"{_AUXILIARY}/{device}"):
            self.auxiliary = device
        else:
            raise Error(INVALID_CONFIG, f"there is no device {device} on the PCI or the auxiliary bus", subject=where)

    def _check(self) -> None:
        given = [name for name, value in zip(_FIELDS, (self.name, self.mac, self.path, self.pci), strict=True) if value]
        if not given and not self.auxiliary:
            hint = f"name the device by one of {', '.join(_FIELDS)}"
            raise Error(INVALID_CONFIG, "no device is named", subject="/device", hint=hint)
        if len(given) > 1:
            message = f"the device is named already by {given[0]}"
            raise Error(INVALID_CONFIG, message, subject=f"/{given[1]}", hint="name it in one way")
        if self.mac:
            fields.parse_mac(self.mac, "/hwaddr")
        if self.path and (not self.path.startswith(_DEVICES) or ".." in self.path.split("/")):
            raise Error(INVALID_CONFIG, f"{self.path!r} is not a path below {_DEVICES}", subject="/kernelpath")
        if self.pci:
            _check_part(self.pci, "/pciBusID")

    @property
    def is_driven_by_a_program(self) -> bool:
        """Whether a PCI device's driver is one of those without a link."""
        try:
            return bool(self.pci) and os.path.basename(os.readlink(f"{_PCI}/{self.pci}/driver")) in _DRIVERS
        except OSError:
            return False

    def find(self, host: Namespace) -> Link:
        """The host's link. Raises Error(INVALID_CONFIG)."""
        if self.name:
            found, where, what = links.find(host.netlink, self.name), "/device", self.name
        elif self.mac:
            wanted = fields.parse_mac(self.mac, "/hwaddr").hex(":")
            found = next((one for one in links.every(host.netlink) if one.mac == wanted), None)
            where, what = "/hwaddr", self.mac
        else:
            where, what, folders = self._folders()
            name = next((one for folder in folders for one in _names(folder)), "")
            found = links.find(host.netlink, name) if name else None
        if found is None:
            hint = "another container may have it"
            raise Error(INVALID_CONFIG, f"the host has no link {what}", subject=where, hint=hint)
        if found.flags & links.IFF_LOOPBACK:
            raise Error(INVALID_CONFIG, "the loopback link cannot leave the host", subject=where)
        return found

    def _folders(self) -> tuple[str, str, list[str]]:
        """The field, its value, and the folders of sysfs that may hold the names of its links."""
        if self.path:
            return "/kernelpath", self.path, [f"{self.path}/net"]
        if self.auxiliary:
            return "/runtimeConfig/deviceID", self.auxiliary, [f"{_AUXILIARY}/{self.auxiliary}/net"]
        top = f"{_PCI}/{self.pci}"
        virtio = [f"{top}/{one}/net" for one in _names(top) if one.startswith("virtio")]
        return "/pciBusID", self.pci, [f"{top}/net", *virtio]


def _check_part(text: str, where: str) -> None:
    if "/" in text or text in (".", ".."):
        raise Error(INVALID_CONFIG, f"{text!r} is not the name of a device on a bus", subject=where)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


class _Note:
    """What a link's alias says while it is away: whose it is, and what it was."""

    __slots__ = ("alias", "name", "owner", "up")

    def __init__(self, owner: str, name: str, alias: str, *, up: bool) -> None:
        self.owner = owner
        self.name = name
        self.alias = alias
        self.up = up

    @classmethod
    def read(cls, link: Link) -> _Note | None:
        """From a link; None if there is none of ours."""
        owner, was, rest = link.alias.partition(_WAS)
        name, _, rest = rest.partition(" ")
        state, _, alias = rest.partition(" ")
        if not was or not name or state not in ("up", "down") or not owner.startswith(_MARK):
            return None
        # Nobody in a container shall make a link of the host's somebody's.
        return cls(owner, name, "" if alias.startswith(_MARK) else alias, up=state == "up")

    def __str__(self) -> str:
        """An alias that was too long to be kept is lost."""
        text = f"{self.owner}{_WAS}{self.name} {'up' if self.up else 'down'}"
        whole = f"{text} {self.alias}" if self.alias else text
        return whole if len(whole.encode()) <= owners.LONGEST else text


def _owner(call: Call) -> str:
    return owners.owner(call, longest=_LONGEST_OWNER)


def _move_in(call: Call, host: Namespace, namespace: Namespace, link: Link) -> Link:
    """Note what the link was, then move and rename it in one request. Raises Error."""
    taken = _Note.read(link)
    if taken is not None:
        raise Error(TAKEN, f"{link.name} belongs to another container", subject=taken.owner.removeprefix(_MARK))
    note = _Note(_owner(call), link.name, link.alias, up=link.is_up)
    values: dict[int, Value] = {links.IFLA_IFNAME: call.ifname, links.IFLA_NET_NS_FD: namespace.fd}
    try:
        host.netlink.execute(links.change(link.index, {links.IFLA_IFALIAS: str(note).encode()}, what=link.name))
        host.netlink.execute(links.change(link.index, values, what=f"{link.name} to {call.ifname}"))
        moved = links.find(namespace.netlink, call.ifname)
        if moved is None:
            raise Error(TAKEN, "the link was moved on by somebody else", subject=call.ifname)
    except BaseException:
        steps.attempt(lambda: _return(call, host, namespace))
        raise
    return moved


def _bring_back(call: Call) -> None:
    """Find the link by its owner, in the container or on the host, and make it what it was. Raises Error."""
    with Namespace.own() as host:
        namespace = Namespace.find(call.netns)
        if namespace is None:
            _restore_owned(call, host)
            return
        with namespace:
            _return(call, host, namespace)


def _return(call: Call, host: Namespace, namespace: Namespace) -> None:
    link = _owned(call, namespace, call.ifname) or _noted_again(call, host, namespace)
    if link is not None:
        _move_out(call, host, namespace, link.index)
    else:
        _restore_owned(call, host)


def _noted_again(call: Call, host: Namespace, namespace: Namespace) -> Link | None:
    """The link of an attachment, by the previous result, that has no note: the reference plugin, whose alias is the old name,
    moved it in, or somebody in the container took the note away.
    """
    known = [] if call.previous is None else [(one.name, one.mac) for one in call.previous.interfaces if one.sandbox]
    link = links.find(namespace.netlink, call.ifname)
    if link is None or not link.mac or (link.name, link.mac) not in known or link.alias.startswith(_MARK):
        return None
    name = field(call.conf, "device", str, "") or link.alias
    if not name or " " in name or len(name.encode()) > _IFNAME or links.find(host.netlink, name) is not None:
        return None
    note = _Note(_owner(call), name, "", up=False)
    namespace.netlink.execute(links.change(link.index, {links.IFLA_IFALIAS: str(note).encode()}, what=link.name))
    return link


def _restore_owned(call: Call, host: Namespace) -> None:
    link = _owned(call, host, field(call.conf, "device", str, ""))
    if link is not None:
        _restore(host, link)


def _owned(call: Call, namespace: Namespace, likely: str) -> Link | None:
    """The link of this attachment in a namespace, looked for under its likely name first."""
    first = links.find(namespace.netlink, likely) if likely else None
    if first is not None and _is_owned(call, first):
        return first
    return next((link for link in links.every(namespace.netlink) if _is_owned(call, link)), None)


def _is_owned(call: Call, link: Link) -> bool:
    note = _Note.read(link)
    return note is not None and note.owner == _owner(call)


def returned(call: Call, host: Namespace) -> Link | None:
    """The link of this attachment that is on the host again, for other plugins of the chain. Raises KernelError."""
    wanted = owners.anywhere(_owner(call))
    for link in links.every(host.netlink):
        note = _Note.read(link)
        if note is not None and owners.anywhere(note.owner) == wanted:
            return link
    return None


def _move_out(call: Call, host: Namespace, namespace: Namespace, index: int) -> None:
    """Move the link back to the host, and make it what it was. Raises Error."""
    link = links.find_index(namespace.netlink, index)
    note = None if link is None else _Note.read(link)
    if link is None or note is None:
        return
    # Under its old name already when it arrives, so that nobody there (udev, NetworkManager) sees another one. That can fail, if
    # the container has a link of this name: then the move renames it.
    namespace.netlink.attempt(
        links.set_up(index, link.name, up=False),
        links.change(index, {links.IFLA_IFNAME: note.name}, what=link.name),
    )
    values: dict[int, Value] = {links.IFLA_IFNAME: note.name, links.IFLA_NET_NS_FD: host.fd}
    (error,) = namespace.netlink.attempt(links.change(index, values, what=f"{link.name} back to {note.name}"))
    back = _owned(call, host, note.name)
    if back is not None:
        _restore(host, back)
    elif error is not None:
        raise _explained(error, note.name)


def _restore(host: Namespace, link: Link) -> None:
    """Give a link that is on the host its name, its state and its alias back, which is the last to go. Raises KernelError."""
    note = _Note.read(link)
    if note is None:
        return
    if link.name != note.name:
        requests = [
            links.set_up(link.index, link.name, up=False),
            links.change(link.index, {links.IFLA_IFNAME: note.name}, what=f"{link.name} to {note.name}"),
        ]
        for error in host.netlink.attempt(*requests):
            if error is not None and error.errno != ENODEV:
                raise _explained(error, note.name)
    host.netlink.execute(
        links.set_up(link.index, note.name, up=note.up),
        links.change(link.index, {links.IFLA_IFALIAS: note.alias.encode()}, what=note.name),
    )


def _explained(error: KernelError, name: str) -> Error:
    if error.errno in (EEXIST, EINVAL):
        return Error(TAKEN, "the host has another link of this name by now", subject=name, cause=error.cause)
    return error


def _collect(call: Call) -> None:
    with Namespace.own() as host:
        found = [(note.owner, link) for link in links.every(host.netlink) if (note := _Note.read(link)) is not None]
        stale = owners.stale(call, {owner for owner, _ in found}, longest=_LONGEST_OWNER)
        steps.every(*((lambda link=link: _restore(host, link)) for owner, link in found if owner in stale))
