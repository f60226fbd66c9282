"""tap: a device in the container whose frames a program reads and writes (linux/Documentation/networking/tuntap.rst)."""

from __future__ import annotations

import os
from _struct import pack
from errno import EBUSY, EINVAL, ENOENT, ENXIO
from fcntl import ioctl

from ocirt_cni.call import Call, field
from ocirt_cni.errors import INVALID_CONFIG, KERNEL, NOT_AVAILABLE, TAKEN, UNSUPPORTED, Error
from ocirt_cni.netlink import codec, kinds, links
from ocirt_cni.plugins import devices, fields, owners

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netns import Namespace
    from ocirt_cni.results import Result

_KIND = "tun"  # as the kernel names them all
_FIELDS = ("bridge", "group", "mac", "mtu", "multiQueue", "owner", "selinuxContext")
_DEVICE = "/dev/net/tun"
_LABEL = "/proc/thread-self/attr/exec"  # of the next program that the thread executes
# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETGROUP = 0x400454CE
_IFF_TAP = 0x0002
_IFF_MULTI_QUEUE = 0x0100
_IFF_NO_PI = 0x1000
_MOST_ID = (1 << 32) - 2  # of users and groups


def add(call: Call) -> Result:
    """The device, with addresses if the network has an IPAM plugin. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    values: dict[int, Value] = {}
    if mtu := fields.mtu(call.conf):
        values[links.IFLA_MTU] = mtu
    if mac := fields.mac(call):
        values[links.IFLA_ADDRESS] = mac
    wanted = _Wanted(call)

    def make(namespace: Namespace) -> Link:
        if bridge := field(call.conf, "bridge", str, ""):
            values[links.IFLA_MASTER] = _bridge(namespace, bridge)
        with namespace.inside():
            wanted.make(call.ifname)
        return _finished(call, namespace, values)

    return devices.add(call, make)


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    _Wanted(call)


def delete(call: Call) -> None:
    """Remove the device, give back the addresses. Raises Error."""
    devices.delete(call, _KIND)


def check(call: Call) -> None:
    """That the device has its owner, group and queues, and what the previous result says. Raises Error."""
    fields.refuse_unknown(call, *_FIELDS)
    wanted, mtu = _Wanted(call), fields.mtu(call.conf)

    def more(link: Link) -> None:
        for what, number, kind in (("owner", wanted.owner, kinds.IFLA_TUN_OWNER), ("group", wanted.group, kinds.IFLA_TUN_GROUP)):
            if number is not None:
                devices.expect(call.ifname, what, codec.number(link.data.get(kind, b"")), number)
        several = bool(codec.number(link.data.get(kinds.IFLA_TUN_MULTI_QUEUE, b"")))
        devices.expect(call.ifname, "number of queues", _queues(several), _queues(wanted.several))
        if mtu:
            devices.expect(call.ifname, "MTU", link.mtu, mtu)

    devices.check(call, _KIND, more)


def gc(call: Call) -> None:
    """Free the addresses of attachments that are gone. Raises Error."""
    devices.gc(call)


def status(call: Call) -> None:
    """That the kernel has such devices, and that there are addresses. Raises Error(NOT_AVAILABLE)."""
    try:
        os.close(_open())
    except Error as err:
        raise Error(NOT_AVAILABLE, err.message, subject=err.subject, cause=err.cause, hint=err.hint) from None
    devices.status(call)


class _Wanted:
    """What the configuration says of the device itself."""

    __slots__ = ("group", "label", "owner", "several")

    def __init__(self, call: Call) -> None:
        self.several: bool = field(call.conf, "multiQueue", bool, False)
        self.owner: int | None = fields.number(call.conf, "owner", None, 0, _MOST_ID)
        self.group: int | None = fields.number(call.conf, "group", None, 0, _MOST_ID)
        self.label: str = field(call.conf, "selinuxContext", str, "")

    def make(self, name: str) -> None:
        """Make the device in the network namespace that the thread is in. Raises Error."""
        if self.label:
            _make_labelled(self._command(name), self.label)
        else:
            self._make(name)

    def _make(self, name: str) -> None:
        fd = _open()
        try:
            flags = _IFF_TAP | _IFF_NO_PI | (_IFF_MULTI_QUEUE if self.several else 0)
            ioctl(fd, _TUNSETIFF, pack("16sH22x", name.encode(), flags))
            if self.owner is not None:
                ioctl(fd, _TUNSETOWNER, self.owner)
            if self.group is not None:
                ioctl(fd, _TUNSETGROUP, self.group)
            ioctl(fd, _TUNSETPERSIST, 1)  # until here it goes away with the descriptor
        except OSError as err:
            if err.errno == EBUSY:
                raise Error(TAKEN, "the container has a link of this name", subject=name) from None
            raise Error(KERNEL, "the tap device cannot be made", subject=name, cause=err.strerror or "") from None
        finally:
            os.close(fd)

    def _command(self, name: str) -> list[str]:
        """The same as a command of ip-tuntap(8)."""
        found = ["ip", "tuntap", "add", "mode", "tap", "name", name]
        if self.several:
            found.append("multi_queue")
        for word, number in (("user", self.owner), ("group", self.group)):
            if number is not None:
                found += [word, str(number)]
        return found


def _make_labelled(command: list[str], label: str) -> None:
    """A tap device has the SELinux context of the program that makes it, so one is executed in this context. Raises Error."""
    _set_label(label)
    try:
        pid = os.posix_spawnp(command[0], command, os.environ)
    except OSError as err:
        hint = "install iproute2" if err.errno == ENOENT else ""
        raise Error(UNSUPPORTED, f"{command[0]} cannot be executed", cause=err.strerror or "", hint=hint) from None
    finally:
        _set_label("")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise Error(KERNEL, f"`{' '.join(command)}` failed with status {code}", subject="/selinuxContext")


def _set_label(label: str) -> None:
    try:
        fd = os.open(_LABEL, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, label.encode())
        finally:
            os.close(fd)
    except OSError as err:
        if not os.path.isdir("/sys/fs/selinux/booleans"):
            raise Error(UNSUPPORTED, "this machine does not run SELinux", subject="/selinuxContext") from None
        raise Error(INVALID_CONFIG, f"{label!r} is refused", subject="/selinuxContext", cause=err.strerror or "") from None


def _open() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as err:
        missing = err.errno in (ENOENT, ENXIO, EINVAL)
        hint = "it takes a kernel with CONFIG_TUN, and its module tun if that is built as one" if missing else ""
        raise Error(UNSUPPORTED, "it cannot be opened", subject=_DEVICE, cause=err.strerror or "", hint=hint) from None


def _bridge(namespace: Namespace, name: str) -> int:
    found = links.find(namespace.netlink, name)
    if found is None or found.kind != "bridge":
        message = f"there is no {name} in the container" if found is None else f"{name} is not a bridge"
        raise Error(INVALID_CONFIG, message, subject="/bridge")
    return found.index


def _finished(call: Call, namespace: Namespace, values: dict[int, Value]) -> Link:
    """The device after it got its owner, and what else the configuration wants. Raises Error."""
    made = links.find(namespace.netlink, call.ifname)
    if made is None:
        raise Error(KERNEL, "the device was deleted by somebody else", subject=call.ifname)
    try:
        wanted = {links.IFLA_IFALIAS: owners.owner(call).encode(), **values}
        namespace.netlink.execute(links.change(made.index, wanted, what=call.ifname))
    except BaseException:
        namespace.netlink.attempt(links.delete(made.index))
        raise
    found = links.find_index(namespace.netlink, made.index)
    return made if found is None else found


def _queues(several: bool) -> str:
    return "many" if several else "one"
