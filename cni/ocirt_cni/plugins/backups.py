"""What a link and its sysctls were before `tuning` changed them: a file per attachment, `CONTAINER_IFNAME.json` in a folder.

It is written before the first change and removed after the last one is undone, so that DEL can undo what an ADD that was killed
had come to. Its name and most fields are the reference's; `sysctl` and those that say whose it is are ours.
"""

from __future__ import annotations

import posix
from errno import ENOENT

from ocirt_cni import files, jsonio
from ocirt_cni.errors import IO_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.call import Call
    from ocirt_cni.netns import Namespace

_END = ".json"


class Backup:
    """The old values of one attachment.

    values: as in the file: mac, mtu, promisc, allmulti, txQLen, sysctl (by name, with slashes), as far as they were changed, and
        network, container, ifname, netns, inode (of the namespace). A file of the reference's has none of these five
    """

    __slots__ = ("path", "values")

    def __init__(self, path: str, values: dict[str, Any]) -> None:
        self.path = path
        self.values = values

    def text(self, name: str) -> str:
        """One of the texts in it; "" if it is not there."""
        return str(self.values.get(name, ""))

    def is_of(self, namespace: Namespace) -> bool:
        """Whether it was made in this namespace, and not in an earlier one at the same path."""
        return self.values.get("inode") in (None, _inode(namespace))

    def save(self, network: str) -> None:
        """Write the file, whole or not at all. Raises Error(IO_FAILURE)."""
        temporary = f"{self.path}{_temporary(network)}"
        try:
            files.make_directories(self.path.rpartition("/")[0], 0o700)
            fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
            try:
                data = jsonio.dumps(self.values).encode()
                while data:
                    data = data[posix.write(fd, data) :]
            finally:
                posix.close(fd)
            posix.rename(temporary, self.path)
        except OSError as err:
            _unlink(temporary)
            raise Error(IO_FAILURE, "the old values cannot be noted", subject=self.path, cause=err.strerror or "") from None

    def remove(self) -> None:
        """Remove the file. Raises Error(IO_FAILURE)."""
        _unlink(self.path)


def add(call: Call, folder: str, namespace: Namespace, values: dict[str, Any]) -> Backup:
    """Note old values. Those that an earlier plugin of the chain noted are older, and stay. Raises Error(IO_FAILURE)."""
    inode = _inode(namespace)
    found = find(call, folder)
    if found is not None and (found.text("network"), found.values.get("inode")) == (call.network, inode):
        values = {**values, **found.values, "sysctl": {**values.get("sysctl", {}), **found.values.get("sysctl", {})}}
    owner = {"network": call.network, "container": call.container, "ifname": call.ifname, "netns": call.netns, "inode": inode}
    made = Backup(_path(call, folder), {**values, **owner})
    made.save(call.network)
    return made


def find(call: Call, folder: str) -> Backup | None:
    """The attachment's; None if there is none. Raises Error(IO_FAILURE)."""
    return _read(_path(call, folder))


def every(folder: str) -> list[Backup]:
    """All of a folder. Raises Error(IO_FAILURE)."""
    found = (_read(f"{folder}/{name}") for name in _names(folder) if name.endswith(_END))
    return [one for one in found if one is not None]


def tidy(call: Call, folder: str) -> None:
    """Remove what an ADD of the network left that was killed while it wrote. Raises Error(IO_FAILURE)."""
    end = _temporary(call.network)
    # With DEL the attachment's, with GC, beside which there is no ADD, all.
    wanted = _path(call, folder).rpartition("/")[2] + end if call.container else ""
    for name in _names(folder):
        if name == wanted or (not wanted and name.endswith(end)):
            _unlink(f"{folder}/{name}")


def _names(folder: str) -> list[str]:
    try:
        return posix.listdir(folder)
    except OSError as err:
        if err.errno == ENOENT:
            return []
        raise Error(IO_FAILURE, "it cannot be read", subject=folder, cause=err.strerror or "") from None


def _read(path: str) -> Backup | None:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as err:
        if err.errno == ENOENT:
            return None
        raise Error(IO_FAILURE, "the old values cannot be read", subject=path, cause=err.strerror or "") from None
    try:
        return Backup(path, jsonio.load_object(data, path))
    except Error:  # the reference writes in place, so a part of a file may be all that a crash left
        return Backup(path, {})


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except OSError as err:
        if err.errno != ENOENT:
            raise Error(IO_FAILURE, "it cannot be removed", subject=path, cause=err.strerror or "") from None


def _path(call: Call, folder: str) -> str:
    return f"{folder}/{call.container}_{call.ifname}{_END}"


def _temporary(network: str) -> str:
    return f"@{network}.new"  # the name of a network has no @


def _inode(namespace: Namespace) -> int:
    return posix.fstat(namespace.fd).st_ino
