"""tuning: change sysctls of the container's network, and the properties of its link, in a chain. DEL undoes it."""

from __future__ import annotations

from errno import ENODEV, ENOENT

from ocirt_cni import sysctl
from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, IO_FAILURE, Error
from ocirt_cni.netlink import codec, links
from ocirt_cni.netns import Namespace
from ocirt_cni.plugins import backups, devices, fields, steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.netlink.codec import Value
    from ocirt_cni.netlink.links import Link
    from ocirt_cni.netlink.socket import Request
    from ocirt_cni.plugins.backups import Backup
    from ocirt_cni.results import Result

_FIELDS = ("allmulti", "dataDir", "mac", "mtu", "promisc", "sysctl", "txQLen")
_FOLDER = "/run/cni/tuning"
_ALLOWED = "/etc/cni/tuning/allowlist.conf"
_MOST_MTU = (1 << 31) - 1  # a link has its own bounds
_MOST_QUEUE = (1 << 31) - 1
_OF_LINKS = ("mac", "mtu", "txQLen", "promisc", "allmulti")
_FLAGS = {"promisc": links.IFF_PROMISC, "allmulti": links.IFF_ALLMULTI}


def add(call: Call) -> Result:
    """Note the old values, set the new ones. Raises Error."""
    wanted = _Wanted(call)
    previous = _previous(call)
    with Namespace.open(call.netns) as namespace:
        link = _link(namespace, call.ifname)
        old = wanted.old(namespace, link)
        if old:
            backup = backups.add(call, wanted.folder, namespace, old)
            try:
                wanted.set(namespace, link)
            except BaseException:
                steps.attempt(lambda: _restore(call, namespace, backup), backup.remove)
                raise
        changed = links.find_index(namespace.netlink, link.index) or link
    for one in previous.interfaces:
        if (one.name, one.sandbox) == (call.ifname, call.netns):
            one.mac = changed.mac if wanted.mac else one.mac
            one.mtu = changed.mtu if wanted.mtu else one.mtu
    return previous


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    _Wanted(call)


def delete(call: Call) -> None:
    """Set the old values again, where the container is still there. Raises Error."""
    folder = _folder(call)
    steps.every(lambda: _undo(call, folder), lambda: backups.tidy(call, folder))


def check(call: Call) -> None:
    """That everything has the value that is configured. Raises Error."""
    wanted = _Wanted(call)
    _previous(call)
    with Namespace.open(call.netns) as namespace:
        link = links.find(namespace.netlink, call.ifname)
        if link is None:
            raise Error(CHECK_FAILED, "the container has no such link", subject=call.ifname)
        wanted.check(namespace, link)


def gc(call: Call) -> None:
    """Do for attachments that are gone what DEL does. Raises Error."""
    folder = _folder(call)
    valid = call.valid
    stale = [
        one
        for one in backups.every(folder)
        if one.text("network") == call.network and (one.text("container"), one.text("ifname")) not in valid
    ]
    steps.every(*((lambda one=one: _put_back(call, one)) for one in stale), lambda: backups.tidy(call, folder))


def status(call: Call) -> None:
    """That the configuration makes sense, and is allowed. Raises Error."""
    _Wanted(call)


class _Wanted:
    """The configuration; what `args.cni` says wins. None, 0 and b"": is left as it is.

    sysctls: value and pointer, by name with slashes, of the container's link where it said IFNAME
    flags: what shall be on or off, by the field's name
    """

    __slots__ = ("flags", "folder", "mac", "mtu", "queue", "sysctls")

    def __init__(self, call: Call) -> None:
        fields.refuse_unknown(call, *_FIELDS)
        self.folder = _folder(call)
        self.sysctls: dict[str, tuple[str, str]] = {}
        self.flags: dict[str, bool] = {}
        self.mtu = 0
        self.queue: int | None = None
        self.mac = fields.mac(call)
        for conf, where in ((call.conf, ""), (call.cni_args, "/args/cni")):
            self._read(conf, where)
            self.sysctls |= _sysctls(conf, where, call.ifname)

    def _read(self, conf: dict[str, Any], where: str) -> None:
        """Take over what one object says of the link."""
        self.mtu = fields.number(conf, "mtu", 0, 0, _MOST_MTU, where) or self.mtu
        self.queue = fields.number(conf, "txQLen", self.queue, 0, _MOST_QUEUE, where)
        for name in _FLAGS:
            value = field(conf, name, bool, None, where)
            if value is not None:
                self.flags[name] = value

    def old(self, namespace: Namespace, link: Link) -> dict[str, Any]:
        """The present values of what shall be changed, as a backup has them. Raises Error."""
        found: dict[str, Any] = {}
        if self.mac:
            found["mac"] = link.mac
        if self.mtu:
            found["mtu"] = link.mtu
        if self.queue is not None:
            found["txQLen"] = _queue_of(link)
        for name in self.flags:
            found[name] = bool(link.flags & _FLAGS[name])
        if self.sysctls:
            with namespace.inside():
                values = {name: sysctl.read(name) for name in self.sysctls}
            found["sysctl"] = {name: value for name, value in values.items() if value is not None}
        return found

    def set(self, namespace: Namespace, link: Link) -> None:
        """Set the new values. Raises Error."""
        with namespace.inside():
            for name, (value, where) in self.sysctls.items():
                try:
                    sysctl.write(name, value)
                except Error as err:
                    message = f"{err.subject}: {err.message}"
                    raise Error(err.code, message, subject=where, cause=err.cause, hint=err.hint) from None
        requests = _changes(link, self.mac, self.mtu, self.queue, self.flags)
        if requests:
            namespace.netlink.execute(*requests)

    def check(self, namespace: Namespace, link: Link) -> None:
        """That everything has its value. Raises Error(CHECK_FAILED)."""
        with namespace.inside():
            for name, (value, _) in self.sysctls.items():
                found = sysctl.read(name)
                # The kernel puts tabs between several values.
                if found is None or found.split() != value.split():
                    raise Error(CHECK_FAILED, f"the value is {found!r}, not {value!r}", subject=name)
        if self.mac:
            devices.expect(link.name, "hardware address", link.mac, self.mac.hex(":"))
        if self.mtu:
            devices.expect(link.name, "MTU", link.mtu, self.mtu)
        if self.queue is not None:
            devices.expect(link.name, "length of the transmit queue", _queue_of(link), self.queue)
        for flag, on in self.flags.items():
            devices.expect(link.name, flag, _word(bool(link.flags & _FLAGS[flag])), _word(on))


def _sysctls(conf: dict[str, Any], where: str, ifname: str) -> dict[str, tuple[str, str]]:
    """Value and pointer of one object's sysctls, see `_Wanted`. Raises Error."""
    given = field(conf, "sysctl", dict, {}, where)
    _refuse_forbidden({name: _pointer(where, name) for name in given})
    found: dict[str, tuple[str, str]] = {}
    for name, value in given.items():
        pointer = _pointer(where, name)
        if not isinstance(value, str):
            raise Error(INVALID_CONFIG, "this is not a string", subject=pointer, hint=f'write "{value}", in quotes')
        whole = _whole_name(name, pointer, ifname)
        if whole in found:
            raise Error(INVALID_CONFIG, f"it is the same as {found[whole][1]}", subject=pointer)
        found[whole] = (value, pointer)
    return found


def _whole_name(name: str, pointer: str, ifname: str) -> str:
    """The name of a sysctl with slashes, of the container's link where it said IFNAME. Raises Error."""
    try:
        parts = sysctl.path_of(name).split("/")[3:]
    except Error as err:
        raise Error(INVALID_CONFIG, err.message, subject=pointer) from None
    if parts[0] != "net" or len(parts) < 2:
        hint = "this plugin sets those below net"
        raise Error(INVALID_CONFIG, f"{name} is not a sysctl of the network", subject=pointer, hint=hint)
    return "/".join(parts).replace("IFNAME", ifname, 1)


def _changes(link: Link, mac: bytes, mtu: int, queue: int | None, flags: dict[str, bool]) -> list[Request]:
    """A request each, so that one that fails keeps none of the others from being done."""
    values: list[tuple[int, Value]] = []
    if mac:
        values.append((links.IFLA_ADDRESS, mac))
    if mtu:
        values.append((links.IFLA_MTU, mtu))
    if queue is not None:
        values.append((links.IFLA_TXQLEN, queue))
    requests = [links.change(link.index, {kind: value}, what=link.name) for kind, value in values]
    if flags:
        mask = sum(_FLAGS[name] for name in flags)
        on = sum(_FLAGS[name] for name, value in flags.items() if value)
        requests.append(links.change(link.index, flags=on, mask=mask, what=link.name))
    return requests


def _undo(call: Call, folder: str) -> None:
    backup = backups.find(call, folder)
    if backup is not None:
        _put_back(call, backup)


def _put_back(call: Call, backup: Backup) -> None:
    """Undo what a backup stands for, if its namespace is there, and remove it. Raises Error, and then keeps it."""
    namespace = None if call.lazy else Namespace.find(call.netns or backup.text("netns"))
    if namespace is not None:
        with namespace:
            if backup.is_of(namespace):
                _restore(call, namespace, backup)
    elif not call.lazy:
        _restore_hardware(call, backup)
    backup.remove()


def _restore(call: Call, namespace: Namespace, backup: Backup) -> None:
    """Set the values of a backup. Raises the first Error, after all were tried."""
    ifname = backup.text("ifname") or call.ifname
    steps.every(lambda: _restore_link(namespace, ifname, backup.values), lambda: _restore_sysctls(namespace, backup.values))


def _restore_hardware(call: Call, backup: Backup) -> None:
    """The same for a link that the kernel moved to the host when the namespace ended, with all that was changed. Raises Error."""
    if not any(name in backup.values for name in _OF_LINKS):
        return
    from ocirt_cni.plugins import host_device  # noqa: PLC0415  (seldom)

    with Namespace.own() as host:
        link = host_device.returned(call, host)
        if link is not None:
            _restore_link(host, link.name, backup.values)


def _restore_link(namespace: Namespace, ifname: str, values: dict[str, Any]) -> None:
    link = links.find(namespace.netlink, ifname)
    if link is None:
        return
    flags = {name: bool(values[name]) for name in _FLAGS if name in values}
    mac = fields.parse_mac(values["mac"], "mac") if values.get("mac") else b""
    requests = _changes(link, mac, values.get("mtu", 0), values.get("txQLen"), flags)
    namespace.netlink.execute(*requests, but=(ENODEV,))


def _restore_sysctls(namespace: Namespace, values: dict[str, Any]) -> None:
    found = values.get("sysctl", {})
    if found:
        with namespace.inside():
            # That of a link that is gone went with it.
            steps.every(*((lambda name=name: sysctl.write(name, found[name], optional=True)) for name in found))


def _previous(call: Call) -> Result:
    if call.previous is None:
        raise Error(INVALID_CONFIG, "tuning comes after another plugin in a chain", subject="/prevResult")
    return call.previous


def _link(namespace: Namespace, name: str) -> Link:
    link = links.find(namespace.netlink, name)
    if link is None:
        raise Error(INVALID_CONFIG, "the container has no such link", subject=name)
    return link


def _queue_of(link: Link) -> int:
    return codec.number(link.attributes.get(links.IFLA_TXQLEN, b""))


def _folder(call: Call) -> str:
    folder: str = field(call.conf, "dataDir", str, "") or _FOLDER
    if not folder.startswith("/"):
        raise Error(INVALID_CONFIG, f"{folder!r} is not an absolute path", subject="/dataDir")
    return folder


def _pointer(where: str, name: str) -> str:
    return f"{where}/sysctl/{name.replace('~', '~0').replace('/', '~1')}"


def _word(on: bool) -> str:  # noqa: FBT001
    return "on" if on else "off"


def _refuse_forbidden(names: dict[str, str]) -> None:
    """Refuse sysctls, by name and pointer, that the machine's list of patterns does not allow, if it has one. Raises Error."""
    patterns = _allowed() if names else None
    if patterns is None:
        return
    import re  # noqa: PLC0415  (costs an executable 5 ms)

    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as err:
            raise Error(INVALID_CONFIG, f"{pattern!r} is not a regular expression", subject=_ALLOWED, cause=str(err)) from None
    for name, where in names.items():
        if not any(re.search(pattern, name) for pattern in patterns):
            hint = f"allowed are: {', '.join(patterns) or 'none'}"
            raise Error(INVALID_CONFIG, f"{_ALLOWED} does not allow {name}", subject=where, hint=hint)


def _allowed() -> list[str] | None:
    """The patterns of the list, a line each; None if the machine has none."""
    try:
        with open(_ALLOWED, encoding="utf-8") as file:
            return [line.strip() for line in file if line.strip()]
    except OSError as err:
        if err.errno == ENOENT:
            return None
        raise Error(IO_FAILURE, "it cannot be read", subject=_ALLOWED, cause=err.strerror or "") from None
