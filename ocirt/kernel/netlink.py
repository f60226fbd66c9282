"""Links and addresses by netlink (netlink(7), rtnetlink(7)): as much as it takes to move a link to another namespace.

Loaded only for `linux.netDevices`. Every function raises CallError, with what the kernel said beside the errno as its file name.
"""

from __future__ import annotations

from _socket import AF_NETLINK, SOCK_CLOEXEC, SOCK_RAW, socket
from _struct import pack, unpack_from
from errno import EINTR

from ocirt.kernel.ffi import CallError
from ocirt.paths import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Attributes = dict[int, bytes]

# linux/netlink.h
_SOL_NETLINK = 270
_NETLINK_ROUTE = 0
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 0x1
_NLM_F_MULTI = 0x2
_NLM_F_ACK = 0x4
_NLM_F_DUMP_INTR = 0x10
_NLM_F_DUMP = 0x300
_NLM_F_EXCL = 0x200
_NLM_F_CREATE = 0x400
_NLM_F_ACK_TLVS = 0x200
_NLMSGERR_ATTR_MSG = 1
_NLA_TYPE_MASK = 0x3FFF

# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_RTM_NEWLINK = 16
_RTM_GETLINK = 18
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_IFLA_IFNAME = 3
_IFLA_NET_NS_FD = 28
_IFLA_PROP_LIST = 52
_IFA_LOCAL = 2
_IFA_FLAGS = 8
_IFA_KEPT = (1, _IFA_LOCAL, 4, 9)  # IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY
_IFA_F_PERMANENT = 0x80
# Of the flags those that somebody chose: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN. The others are states.
_IFA_F_CHOSEN = 0x02 | 0x10 | 0x100 | 0x200 | 0x400
_RT_SCOPE_UNIVERSE = 0
_IFF_UP = 1

_LARGEST = 1 << 17
_TRIES = 5  # for a dump that something changed meanwhile


class Address:
    """An address of a link: `family` (AF_*), `prefix` (in bits), `flags` (IFA_F_*), and the attributes that hold it."""

    __slots__ = ("attributes", "family", "flags", "prefix")

    def __init__(self, family: int, prefix: int, flags: int, attributes: Attributes) -> None:
        self.family = family
        self.prefix = prefix
        self.flags = flags
        self.attributes = attributes


class Netlink:
    """A socket to the network namespace that the process is in when it is made; it stays there."""

    def __init__(self) -> None:
        try:
            self._socket = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, _NETLINK_ROUTE)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        except OSError as err:
            raise CallError(err.errno or 0, "socket") from None
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def find(self, name: str) -> tuple[int, list[str]]:
        """(number, names) of the link that has this name or alternative name; its own stands first. ENODEV if there is none."""
        ((_, message),) = self._request(_RTM_GETLINK, 0, _link(0) + _attribute(_IFLA_IFNAME, _text(name)))
        return unpack_from("i", message, 4)[0], _names(message)

    def names(self) -> set[str]:
        """The names of all links, with the alternative ones."""
        found: set[str] = set()
        for _, message in self._dump(_RTM_GETLINK, _link(0)):
            found.update(_names(message))
        return found

    def addresses(self, index: int) -> list[Address]:
        """The addresses of a link that go with it: permanent ones of global scope (config-linux.md, "Network Devices")."""
        found = []
        for _, message in self._dump(_RTM_GETADDR, pack("BBBBI", 0, 0, 0, 0, 0)):
            family, prefix, flags, scope, owner = unpack_from("BBBBI", message)
            attributes = parse(message, 8)
            if _IFA_FLAGS in attributes:
                flags = unpack_from("I", attributes[_IFA_FLAGS])[0]
            if owner == index and scope == _RT_SCOPE_UNIVERSE and flags & _IFA_F_PERMANENT:
                kept = {kind: attributes[kind] for kind in _IFA_KEPT if kind in attributes}
                found.append(Address(family, prefix, flags & _IFA_F_CHOSEN, kept))
        return found

    def move(self, index: int, namespace_fd: int, name: str) -> None:
        """Move a link into a network namespace, where it is called `name`; the kernel takes it down.

        It moves first: EEXIST may mean that it is there by now, under the name that it had.
        """
        body = _link(index) + _attribute(_IFLA_IFNAME, _text(name)) + _attribute(_IFLA_NET_NS_FD, pack("I", namespace_fd))
        self._request(_RTM_NEWLINK, _NLM_F_ACK, body)

    def set_up(self, index: int, *, up: bool = True) -> None:
        """Bring a link up, or down."""
        self._request(_RTM_NEWLINK, _NLM_F_ACK, _link(index, _IFF_UP if up else 0, _IFF_UP))

    def add(self, index: int, address: Address) -> None:
        """Give a link an address. EEXIST if it has it."""
        body = pack("BBBBI", address.family, address.prefix, 0, _RT_SCOPE_UNIVERSE, index)
        for kind, value in address.attributes.items():
            body += _attribute(kind, value)
        if address.flags:
            body += _attribute(_IFA_FLAGS, pack("I", address.flags))
        self._request(_RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, body)

    def _dump(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        for _ in range(_TRIES):
            found = self._request(kind, _NLM_F_DUMP, body)
            if not any(flags & _NLM_F_DUMP_INTR for flags, _ in found):
                return found
        raise CallError(EINTR, "netlink", "the links change all the time")

    def _request(self, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
        """Send a request; (flags, contents) of the messages that answer it."""
        self._sequence += 1
        try:
            self._socket.send(pack("IHHII", 16 + len(body), kind, flags | _NLM_F_REQUEST, self._sequence, 0) + body)
            found: list[tuple[int, bytes]] = []
            while True:
                for answer, marks, sequence, contents in _messages(self._socket.recv(_LARGEST)):
                    if sequence != self._sequence:
                        continue
                    if answer == _NLMSG_ERROR:
                        errno = -unpack_from("i", contents)[0]
                        if errno:
                            raise CallError(errno, "netlink", _said(marks, contents))
                        return found
                    if answer == _NLMSG_DONE:
                        errno = -unpack_from("i", contents)[0] if len(contents) > 3 else 0
                        if errno:
                            raise CallError(errno, "netlink")
                        return [*found, (marks, b"")] if marks & _NLM_F_DUMP_INTR else found
                    found.append((marks, contents))
                    if not marks & _NLM_F_MULTI:
                        return found
        except CallError:
            raise
        except OSError as err:
            raise CallError(err.errno or 0, "netlink") from None


def free_name(template: str, taken: set[str]) -> str:
    """`template` with the lowest number in the place of `%d` that makes a name nobody has, as the kernel would choose it."""
    before, _, after = template.partition("%d")
    number = 0
    while f"{before}{number}{after}" in taken:
        number += 1
    return f"{before}{number}{after}"


def parse(message: bytes, start: int) -> Attributes:
    """The attributes of a message, from byte `start` on, by their type."""
    return dict(_each(message, start))


def _each(message: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start + 4 <= len(message):
        size, kind = unpack_from("HH", message, start)
        if size < 4:
            return
        yield kind & _NLA_TYPE_MASK, message[start + 4 : start + size]
        start += size + 3 & ~3


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, contents) of each message in a datagram."""
    start = 0
    while start + 16 <= len(data):
        size, kind, flags, sequence = unpack_from("IHHI", data, start)
        if size < 16:
            return
        yield kind, flags, sequence, data[start + 16 : start + size]
        start += size + 3 & ~3


def _said(flags: int, contents: bytes) -> str | None:
    """The kernel's own words for an error, where it has any: they follow the header that was refused."""
    if not flags & _NLM_F_ACK_TLVS:
        return None
    text = parse(contents, 20).get(_NLMSGERR_ATTR_MSG)
    return text.rstrip(b"\0").decode("utf-8", "replace") if text else None


def _link(index: int, flags: int = 0, change: int = 0) -> bytes:
    return pack("BxHiII", 0, 0, index, flags, change)


def _attribute(kind: int, value: bytes) -> bytes:
    return pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _names(message: bytes) -> list[str]:
    """The names in a message about a link: its own, then the alternative ones."""
    attributes = parse(message, 16)
    texts = [attributes[_IFLA_IFNAME], *(text for _, text in _each(attributes.get(_IFLA_PROP_LIST, b""), 0))]
    return [text.rstrip(b"\0").decode("utf-8", "surrogateescape") for text in texts]


def _text(name: str) -> bytes:
    return encode(name) + b"\0"
