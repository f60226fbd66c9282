"""The addresses of a network on this host: who holds which, in the folder that the reference host-local plugin keeps.

    DATADIR/NETWORK/lock                   flock(2), held for every change
    DATADIR/NETWORK/10.1.0.7               a lease: the container, CR LF, the interface
    DATADIR/NETWORK/last_reserved_ip.0     where the search for the set of ranges 0 goes on
    DATADIR/NETWORK/.ocirt/                ours:
        boot -> BOOT_ID                    the boot of the machine that the leases are of
        of/CONTAINER:IFNAME -> ADDRESSES   what an attachment holds
        whole.0 -> RANGES                  every address of set 0 was handed out once
        freed                              see `freed`

The files above `.ocirt` are the truth. The plugin can be changed for the reference's and back, with leases, and both can work on
one folder. Whether an attachment has a lease is seen in `of`, without reading all leases, unless the reference made some since:
it writes its last address as 10.1.0.7; we write ::ffff:10.1.0.7, which it reads as the same.

The order of changes keeps every moment sound. A lease is named in `of` before it is made, and goes before its name there does,
so that DEL finds all that an ADD made when it was killed. A lease is renamed into place, so there is none without an owner; one
of the reference's may be empty, and then it is none. `of` and `boot` are symlinks because those are made with their contents at
once.

Nothing is synced: what the power's failure tears is of a previous boot then.
"""

from __future__ import annotations

import posix
from errno import EINVAL, ENOENT
from fcntl import LOCK_EX, flock

from ocirt_cni import files
from ocirt_cni.addresses import Address
from ocirt_cni.call import Attachment
from ocirt_cni.errors import TAKEN, Error
from ocirt_cni.ipam import boot
from ocirt_cni.ipam.freed import Freed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DATA_DIR = "/var/lib/cni/networks"
_LAST = "last_reserved_ip."
_NAME_MAX = 255
_NEW = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC


class Owner:
    """Whose a lease is. `ifname` "": of the container as a whole, as old versions of the reference wrote it."""

    __slots__ = ("container", "ifname")

    def __init__(self, container: str, ifname: str) -> None:
        self.container = container
        self.ifname = ifname

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """From the contents of a lease; None if it has none."""
        container, _, ifname = text.strip().partition("\r\n")
        return cls(container, ifname) if container else None

    def owns(self, attachment: Attachment) -> bool:
        """Whether it is this attachment."""
        return self.container == attachment.container and self.ifname in (attachment.ifname, "")

    def __str__(self) -> str:
        return f"{self.container} {self.ifname}".rstrip()


class Store:
    """The folder of a network, locked for as long as the context lasts. Methods raise OSError."""

    __slots__ = ("_fd", "_ours", "freed", "path")

    def __init__(self, data_dir: str, network: str) -> None:
        """Makes the folder if need be. It is locked by `with`."""
        self.path = f"{data_dir}/{network}"
        self._ours = f"{self.path}/.ocirt"
        self.freed = Freed(f"{self._ours}/freed")
        if not files.is_directory(f"{self._ours}/of"):
            files.make_directories(self.path, 0o755)
            files.make_directories(f"{self._ours}/of", 0o700)
        self._fd = posix.open(f"{self.path}/lock", posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)

    @classmethod
    def find(cls, data_dir: str, network: str) -> Store | None:
        """The same; None if there is no folder, and so no lease."""
        return cls(data_dir, network) if files.is_directory(f"{data_dir}/{network}") else None

    def __enter__(self) -> Store:
        try:
            flock(self._fd, LOCK_EX)
            self._forget_other_boots()
        except BaseException:
            posix.close(self._fd)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        posix.close(self._fd)

    # Leases

    def owner(self, address: Address) -> Owner | None:
        """Who holds an address; None if nobody does."""
        return _owner(f"{self.path}/{address}")

    def leases(self) -> Iterator[tuple[Address, Owner | None]]:
        """All leases, by reading each. Without an owner: an empty file, which the reference leaves when it is killed."""
        for name in posix.listdir(self.path):
            try:
                address = Address.parse(name)
            except ValueError:
                continue
            yield address, self.owner(address)

    def held(self, attachment: Attachment, *, thoroughly: bool = True) -> list[Address]:
        """What an attachment holds; `thoroughly`: also if the index knows of nothing."""
        named = [address for address in self._indexed(attachment) if self._holds(attachment, address)]
        if named or not thoroughly:
            return named
        found = [(address, owner) for address, owner in self.leases() if owner is not None and owner.owns(attachment)]
        # Those of the container as a whole only if it has none that names the interface, as the reference has it.
        return [address for address, owner in found if owner.ifname] or [address for address, _ in found]

    def lease(self, attachment: Attachment, addresses: list[Address]) -> None:
        """Give free addresses to an attachment: all or none. Raises Error(TAKEN)."""
        before = [address for address in self._indexed(attachment) if self._holds(attachment, address)]
        self._index(attachment, before + addresses)
        try:
            for address in addresses:
                owner = self.owner(address)
                if owner is not None:
                    raise Error(TAKEN, f"it belongs to {owner}", subject=str(address))
                self._write(str(address), f"{attachment.container}\r\n{attachment.ifname}")
                self.freed.remove(address)
        except BaseException:
            self.undo(attachment, addresses)
            raise
        self.freed.shrink()

    def undo(self, attachment: Attachment, addresses: list[Address]) -> None:
        """Take back what was just given, which nobody has used."""
        for address in addresses:
            if self._holds(attachment, address):
                posix.unlink(f"{self.path}/{address}")
        self._index(attachment, [address for address in self._indexed(attachment) if address not in addresses])

    def release(self, attachment: Attachment, link: str = "") -> list[Address]:
        """Free what an attachment holds; `link`: that of the host by which it was reached. What was freed."""
        found = self.held(attachment)
        for address in found:
            self.free(address, link)
        self._index(attachment, [])
        _unlink(f"{self._ours}/new")  # of an ADD that was killed, perhaps this one's
        return found

    def free(self, address: Address, link: str = "") -> None:
        """Free an address, whoever holds it."""
        try:
            self.freed.append(address, link)
        finally:
            _unlink(f"{self.path}/{address}")

    def _holds(self, attachment: Attachment, address: Address) -> bool:
        owner = self.owner(address)
        return owner is not None and owner.owns(attachment)

    # Where to look for a free address

    def last(self, number: int) -> Address | None:
        """The address of a set of ranges that was handed out last."""
        text = _read(f"{self.path}/{_LAST}{number}")
        try:
            return Address.parse(text)
        except ValueError:
            return None

    def set_last(self, number: int, address: Address) -> None:
        """Note it, so that the reference goes on from there.

        In place: ext4 begins to write to the disk when a file is renamed over another, which costs as much as all the rest. If it
        is killed here, an address may be cut off; then the search begins too early.
        """
        text = _marked(address).encode()
        fd = posix.open(f"{self.path}/{_LAST}{number}", posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
        try:
            if posix.fstat(fd).st_size > len(text):
                posix.ftruncate(fd, len(text))
            posix.pwrite(fd, text, 0)
        finally:
            posix.close(fd)

    def whole(self, number: int) -> str:
        """The ranges of a set, each of whose addresses was handed out once; "" if there are none."""
        return _target(f"{self._ours}/whole.{number}") or ""

    def set_whole(self, number: int, ranges: str) -> None:
        """Note them."""
        self._link(f"whole.{number}", ranges)

    def adopt(self, number: int, base: Address) -> None:
        """Index what the reference leased since we looked last; `base`: for the record, if nothing was leased yet."""
        text = _read(f"{self.path}/{_LAST}{number}")
        if ":" in text and "." in text:
            return
        found: dict[tuple[str, str], list[Address]] = {}
        for address, owner in self.leases():
            if owner is not None:
                found.setdefault((owner.container, owner.ifname), []).append(address)
        for (container, ifname), addresses in found.items():
            attachment = Attachment("", container, ifname)
            if ifname and set(self._indexed(attachment)) != set(addresses):
                self._index(attachment, addresses)
        self._tidy()
        self.set_last(number, self.last(number) or base)

    # What nobody will free

    def collect(self, valid: frozenset[tuple[str, str]]) -> list[Address]:
        """Free all but what the attachments in `valid` hold: (container, interface). What was freed."""
        known = valid | {(container, None) for container, _ in valid}
        gone = []
        for address, owner in self.leases():
            if owner is None or (owner.container, owner.ifname or None) not in known:
                self.free(address)
                gone.append(address)
        self._tidy()
        return gone

    def _tidy(self) -> None:
        """Drop from the index what holds nothing: of an ADD that was killed, or freed by the reference."""
        for name in posix.listdir(f"{self._ours}/of"):
            path = f"{self._ours}/of/{name}"
            if not any(files.exists(f"{self.path}/{address}") for address in _addresses(_target(path) or "")):
                _unlink(path)
        _unlink(f"{self._ours}/new")

    def _forget_other_boots(self) -> None:
        """Free what was leased before the machine booted: no container outlives that."""
        current = boot.identity()
        if not current or _target(f"{self._ours}/boot") == current:
            return
        since = boot.began()
        freed_some = False
        for address, owner in self.leases():
            path = f"{self.path}/{address}"
            if owner is None or posix.stat(path).st_mtime < since:
                _unlink(path)
                freed_some = True
        if freed_some:
            self._tidy()
        self._begin_anew()
        self._link("boot", current)

    def _begin_anew(self) -> None:
        """Nothing of the order of reuse counts after a boot."""
        for name in posix.listdir(self._ours):
            if name == "freed" or name.startswith("whole."):
                _unlink(f"{self._ours}/{name}")

    # Files

    def _indexed(self, attachment: Attachment) -> list[Address]:
        return _addresses(_target(f"{self._ours}/of/{_name(attachment)}") or "")

    def _index(self, attachment: Attachment, addresses: list[Address]) -> None:
        name = _name(attachment)
        if addresses:
            self._link(f"of/{name}", " ".join([str(address) for address in addresses]))
        else:
            _unlink(f"{self._ours}/of/{name}")

    def _link(self, name: str, target: str) -> None:
        """Make or change a symlink of ours."""
        try:
            posix.symlink(target, f"{self._ours}/{name}")
        except FileExistsError:
            _unlink(f"{self._ours}/new")
            posix.symlink(target, f"{self._ours}/new")
            posix.rename(f"{self._ours}/new", f"{self._ours}/{name}")

    def _write(self, name: str, text: str) -> None:
        """Make a file, whole or not at all."""
        new = f"{self._ours}/new"
        try:
            fd = posix.open(new, _NEW, 0o600)
        except FileExistsError:  # of somebody who was killed
            _unlink(new)
            fd = posix.open(new, _NEW, 0o600)
        try:
            posix.write(fd, text.encode())
        except OSError:
            _unlink(new)
            raise
        finally:
            posix.close(fd)
        posix.rename(new, f"{self.path}/{name}")


def _name(attachment: Attachment) -> str:
    name = f"{attachment.container}:{attachment.ifname}"
    if len(name) <= _NAME_MAX:
        return name
    from hashlib import sha256  # noqa: PLC0415  (it takes a millisecond, and no runtime has names that long)

    return sha256(name.encode()).hexdigest()


def _marked(address: Address) -> str:
    """An address in a form that says we wrote it: with its last bytes as in IPv4, which the reference reads and never writes."""
    packed = address.packed.rjust(16, b"\xff")
    tail = ".".join([str(byte) for byte in packed[12:]])
    return f"::ffff:{tail}" if address.version == 4 else f"{packed[:12].hex(':', 2)}:{tail}"


def _addresses(text: str) -> list[Address]:
    try:
        return [Address.parse(one) for one in text.split()]
    except ValueError:
        return []  # an index that somebody spoilt costs time, and nothing else


def _owner(path: str) -> Owner | None:
    return Owner.parse(_read(path))


def _read(path: str) -> str:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return posix.read(fd, 1 << 16).decode(errors="replace")
    finally:
        posix.close(fd)


def _target(path: str) -> str | None:
    try:
        return posix.readlink(path)
    except OSError as err:
        if err.errno in (ENOENT, EINVAL):  # EINVAL: it is no symlink, so not ours
            return None
        raise


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass
