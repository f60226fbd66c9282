"""Links: RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK (rtnetlink(7), linux/if_link.h)."""

from __future__ import annotations

from _struct import pack, unpack_from
from errno import ENODEV

from ocirt_cni.netlink import codec
from ocirt_cni.netlink.socket import KernelError, Netlink, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocirt_cni.netlink.codec import Attributes, Value

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_PROMISC = 0x100
IFF_ALLMULTI = 0x200
IF_OPER_UP = 6
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_TXQLEN = 13
IFLA_OPERSTATE = 16
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_AF_SPEC = 26
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
VETH_INFO_PEER = 1


class Link:
    """A link as the kernel describes it."""

    __slots__ = ("attributes", "data", "flags", "index", "kind", "port")

    def __init__(self, contents: bytes) -> None:
        self.index: int = unpack_from("i", contents, 4)[0]
        self.flags: int = unpack_from("I", contents, 8)[0]
        self.attributes: Attributes = codec.parse(contents, 16)
        info = codec.parse(self.attributes.get(IFLA_LINKINFO, b""))
        self.kind = codec.text(info.get(IFLA_INFO_KIND, b""))
        self.data: Attributes = codec.parse(info.get(IFLA_INFO_DATA, b""))
        self.port: Attributes = codec.parse(info.get(IFLA_INFO_SLAVE_DATA, b""))

    @property
    def name(self) -> str:
        """The name."""
        return codec.text(self.attributes.get(IFLA_IFNAME, b""))

    @property
    def mac(self) -> str:
        """The hardware address, as in 02:00:00:00:00:01; "" if it has none."""
        return self.attributes.get(IFLA_ADDRESS, b"").hex(":")

    @property
    def mtu(self) -> int:
        """In bytes."""
        return codec.number(self.attributes.get(IFLA_MTU, b""))

    @property
    def alias(self) -> str:
        """What somebody noted on it; "" if nobody did."""
        return codec.text(self.attributes.get(IFLA_IFALIAS, b""))

    @property
    def master(self) -> int:
        """The index of the bridge that it is a port of; 0 if of none."""
        return codec.number(self.attributes.get(IFLA_MASTER, b""))

    @property
    def parent(self) -> int:
        """The index of the link below it, or of a veth's other end; 0 if there is none."""
        return codec.number(self.attributes.get(IFLA_LINK, b""))

    @property
    def operstate(self) -> int:
        """IF_OPER_*: what it is able to do (Documentation/networking/operstates.rst)."""
        return codec.number(self.attributes.get(IFLA_OPERSTATE, b""))

    @property
    def is_up(self) -> bool:
        """Whether it was brought up."""
        return bool(self.flags & IFF_UP)


def header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg. `change`: which bits of `flags` count."""
    return pack("BxHiII", 0, 0, index, flags, change)


def find(netlink: Netlink, name: str) -> Link | None:
    """The link of that name, if there is one. Raises KernelError."""
    request = Request(RTM_GETLINK, 0, header() + codec.attribute(IFLA_IFNAME, name), f"RTM_GETLINK {name}")
    return _found(netlink, request)


def find_several(netlink: Netlink, *names: str) -> list[Link | None]:
    """The same for several names, in one go."""
    requests = [Request(RTM_GETLINK, 0, header() + codec.attribute(IFLA_IFNAME, name), f"RTM_GETLINK {name}") for name in names]
    found: list[Link | None] = []
    for answer in netlink.gather(*requests):
        if not isinstance(answer, KernelError):
            found.append(Link(answer))
        elif answer.errno == ENODEV:
            found.append(None)
        else:
            raise answer
    return found


def find_index(netlink: Netlink, index: int) -> Link | None:
    """The link of that index, if there is one. Raises KernelError."""
    return _found(netlink, Request(RTM_GETLINK, 0, header(index), f"RTM_GETLINK {index}"))


def _found(netlink: Netlink, request: Request) -> Link | None:
    try:
        return Link(netlink.get(request))
    except KernelError as err:
        if err.errno == ENODEV:
            return None
        raise


def every(netlink: Netlink) -> list[Link]:
    """All links. Raises KernelError."""
    return [Link(contents) for contents in netlink.dump(Request(RTM_GETLINK, 0, header(), "RTM_GETLINK"))]


def create(
    kind: str,
    name: str,
    attributes: dict[int, Value] | None = None,
    data: dict[int, Value] | None = None,
    *,
    up: bool = False,
) -> Request:
    """Make a link of a kind: "bridge", "veth", …; `data`: the attributes of its kind, within IFLA_INFO_DATA."""
    info: dict[int, Value] = {IFLA_INFO_KIND: kind}
    if data:
        info[IFLA_INFO_DATA] = data
    values: dict[int, Value] = {IFLA_IFNAME: name, **(attributes or {}), IFLA_LINKINFO: info}
    flags = IFF_UP if up else 0
    contents = header(0, flags, flags) + codec.attributes(values)
    return Request(RTM_NEWLINK, codec.NLM_F_CREATE | codec.NLM_F_EXCL, contents, f"RTM_NEWLINK {name} ({kind})")


def veth(
    name: str,
    peer: str,
    attributes: dict[int, Value] | None = None,
    of_peer: dict[int, Value] | None = None,
    *,
    up: bool = False,
) -> Request:
    """Make a pair. With IFLA_NET_NS_FD among its attributes the peer is born in that namespace, with IFLA_MASTER a port is.

    `up` is for the first; the peer has to be brought up in its own namespace (ENOTCONN otherwise).
    """
    other = header() + codec.attributes({IFLA_IFNAME: peer, **(of_peer or {})})
    request = create("veth", name, attributes, {VETH_INFO_PEER: other}, up=up)
    request.what = f"RTM_NEWLINK {name} and {peer} (veth)"
    return request


def change(index: int, attributes: dict[int, Value] | None = None, *, flags: int = 0, mask: int = 0, what: str = "") -> Request:
    """Set attributes of a link, and those of its flags that are in `mask`."""
    return Request(
        RTM_NEWLINK, 0, header(index, flags, mask) + codec.attributes(attributes or {}), f"RTM_NEWLINK {what or index}"
    )


def change_named(name: str, attributes: dict[int, Value] | None = None, *, flags: int = 0) -> Request:
    """The same by name, of a link that an earlier request of the same batch makes; `flags` are set."""
    values: dict[int, Value] = {IFLA_IFNAME: name, **(attributes or {})}
    return Request(RTM_NEWLINK, 0, header(0, flags, flags) + codec.attributes(values), f"RTM_NEWLINK {name}")


def set_up(index: int, what: str = "", *, up: bool = True) -> Request:
    """Bring a link up, or down."""
    return change(index, flags=IFF_UP if up else 0, mask=IFF_UP, what=what)


def delete_group(group: int) -> Request:
    """Delete all links of a group (IFLA_GROUP) at once, which takes no longer than one."""
    return Request(RTM_DELLINK, 0, header() + codec.attribute(IFLA_GROUP, group), f"RTM_DELLINK of group {group}")


def delete(index: int, what: str = "") -> Request:
    """Delete a link, and with a veth its peer. The kernel takes some 20 ms, in which it waits for all users of the link."""
    return Request(RTM_DELLINK, 0, header(index), f"RTM_DELLINK {what or index}")
