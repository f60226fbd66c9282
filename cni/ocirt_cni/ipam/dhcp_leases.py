"""The leases of the DHCP daemon: each with its interface and client; on disk as well, so that a new daemon goes on with them."""

from __future__ import annotations

import contextlib
import os
from hashlib import sha256
from random import SystemRandom

from ocirt_cni import jsonio
from ocirt_cni.call import Attachment
from ocirt_cni.errors import UNKNOWN_CONTAINER, Error
from ocirt_cni.ipam import boot
from ocirt_cni.ipam.dhcp_client import BOUND, REBINDING, RENEWING, Client, Lease, Timing
from ocirt_cni.ipam.dhcp_message import Message
from ocirt_cni.ipam.dhcp_socket import Link
from ocirt_cni.netlink import links
from ocirt_cni.netns import Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

STATE = "/run/cni/dhcp"


class Place:
    """An interface in a network namespace, found again by the path; not, if another namespace is there now.

    Nothing is kept open, or the namespace would live as long as the lease.
    """

    __slots__ = ("identity", "ifname", "netns")

    def __init__(self, netns: str, ifname: str, identity: tuple[int, int] | None = None) -> None:
        """`identity` None: of the namespace that is there. Raises Error if nothing is."""
        self.netns = netns
        self.ifname = ifname
        self.identity = identity or self._identity()

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self.netns)
        except OSError as err:
            raise Error(
                UNKNOWN_CONTAINER, "the network namespace is gone", subject=self.netns, cause=err.strerror or ""
            ) from None
        return found.st_dev, found.st_ino

    @property
    def is_there(self) -> bool:
        """Whether it is the namespace that it was."""
        try:
            return self._identity() == self.identity
        except Error:
            return False

    @contextlib.contextmanager
    def enter(self) -> Iterator[tuple[Namespace, links.Link]]:
        """The namespace and the interface. Raises Error if one of them is gone."""
        if not self.is_there:
            raise Error(UNKNOWN_CONTAINER, "the network namespace is gone", subject=self.netns)
        with Namespace.open(self.netns) as namespace:
            link = links.find(namespace.netlink, self.ifname)
            if link is None:
                raise Error(UNKNOWN_CONTAINER, f"there is no interface {self.ifname}", subject=self.netns)
            yield namespace, link

    def open(self) -> tuple[Link, bytes]:
        """A socket on the interface, which is brought up, and its hardware address. Raises Error, OSError."""
        with self.enter() as (namespace, link):
            if not link.is_up:
                namespace.netlink.execute(links.set_up(link.index, self.ifname))
            with namespace.inside():
                return Link(self.ifname), bytes.fromhex(link.mac.replace(":", ""))

    def down(self) -> None:
        """Bring the interface down. Raises Error."""
        with self.enter() as (namespace, link):
            namespace.netlink.execute(links.set_up(link.index, self.ifname, up=False))


class Held:
    """The lease of an attachment, or the search for one. `link` is open while an answer is expected."""

    __slots__ = ("attachment", "client", "link", "place", "priority", "with_dns")

    def __init__(self, attachment: Attachment, place: Place, client: Client, priority: int, *, with_dns: bool) -> None:
        self.attachment = attachment
        self.place = place
        self.client = client
        self.priority = priority
        self.with_dns = with_dns
        self.link: Link | None = None

    @property
    def is_held(self) -> bool:
        """Whether there is a lease."""
        return self.client.state in (BOUND, RENEWING, REBINDING)


class Folder:
    """The leases on disk, a file each."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.path = path
        os.makedirs(path, 0o700, exist_ok=True)

    def _file(self, attachment: Attachment) -> str:
        return f"{self.path}/{sha256(str(attachment).encode()).hexdigest()}.json"

    def save(self, held: Held) -> None:
        """Write a lease down. Raises OSError."""
        lease = held.client.lease
        assert lease is not None, "it was just got"
        document = {
            "boot": boot.identity(),
            "attachment": str(held.attachment),
            "netns": held.place.netns,
            "identity": list(held.place.identity),
            "mac": held.client.mac.hex(),
            "options": {str(code): value.hex() for code, value in held.client.options.items()},
            "priority": held.priority,
            "withDNS": held.with_dns,
            "ack": lease.ack.encode(reply=True).hex(),
            "server": lease.mac.hex(),
            "since": lease.since,
        }
        file = self._file(held.attachment)
        with open(f"{file}.new", "w", encoding="utf-8") as new:
            new.write(jsonio.dumps(document))
        os.rename(f"{file}.new", file)

    def remove(self, attachment: Attachment) -> None:
        """Forget a lease."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(attachment))

    def load(self, timing: Timing, now: float, *, broadcast: bool) -> Iterator[Held]:
        """The leases of this boot; files that are something else are removed. Raises OSError."""
        for name in os.listdir(self.path):
            path = f"{self.path}/{name}"
            with open(path, "rb") as file:
                data = file.read()
            try:
                document = jsonio.load_object(data, path)
                if document["boot"] != boot.identity():
                    raise ValueError("it is of another boot")
                held = _held(document, timing, now, broadcast=broadcast)
            except (Error, AttributeError, KeyError, TypeError, ValueError):
                os.unlink(path)
            else:
                yield held


def _held(document: dict[str, Any], timing: Timing, now: float, *, broadcast: bool) -> Held:
    attachment = Attachment.parse(document["attachment"])
    if attachment is None:
        raise ValueError("it names no attachment")
    device, inode = document["identity"]
    place = Place(os.fspath(document["netns"]), attachment.ifname, (int(device), int(inode)))
    options = {int(code): bytes.fromhex(value) for code, value in document["options"].items()}
    client = Client(bytes.fromhex(document["mac"]), options, SystemRandom(), timing, broadcast=broadcast)
    ack = Message.decode(bytes.fromhex(document["ack"]))
    client.resume(Lease(ack, bytes.fromhex(document["server"]), float(document["since"])), now)
    return Held(attachment, place, client, int(document["priority"]), with_dns=bool(document["withDNS"]))
