"""What was attached: one file an attachment, where libcni keeps it and as libcni writes it.

So attachments survive a change from libcni to us and back. A file is complete or not there: it is written beside the folder and
renamed into it. It is not synced: after a power cut nothing of what it describes exists any more, and undoing needs no file.
"""

from __future__ import annotations

import os
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from ocirt_cni import jsonio
from ocirt_cni.call import Attachment
from ocirt_cni.errors import INVALID_ENVIRONMENT, IO_FAILURE, TAKEN, Error
from ocirt_cni.results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FOLDER = "/var/lib/cni"
_KIND = "cniCacheV1"
_RESULTS = ("results", "cache/results")  # the second one was libcni's in 2019


class Entry:
    """One attachment, as it was made.

    attachment, netns: whose it is; netns is the path that it had
    args: CNI_ARGS, in order; capabilities: the values of capabilities
    config: the network's configuration as JSON; b"" in files of old
    result: what ADD returned, as JSON
    """

    __slots__ = ("args", "attachment", "capabilities", "config", "netns", "result")

    def __init__(
        self,
        attachment: Attachment,
        netns: str,
        args: tuple[tuple[str, str], ...],
        capabilities: Mapping[str, Any],
        config: bytes,
        result: dict[str, Any] | None,
    ) -> None:
        self.attachment = attachment
        self.netns = netns
        self.args = args
        self.capabilities = dict(capabilities)
        self.config = config
        self.result = result

    def parsed(self) -> Result | None:
        """The result. Raises Error if it is none."""
        return None if self.result is None else Result.parse(self.result, f"the cached result of {self.attachment}")

    def document(self) -> dict[str, Any]:
        """As it stands in the file."""
        found: dict[str, Any] = {
            "kind": _KIND,
            "containerId": self.attachment.container,
            "config": b2a_base64(self.config, newline=False).decode(),
            "ifName": self.attachment.ifname,
            "networkName": self.attachment.network,
        }
        more = {
            "netns": self.netns,
            "cniArgs": [list(pair) for pair in self.args],
            "capabilityArgs": self.capabilities,
            "result": self.result,
        }
        return found | {key: value for key, value in more.items() if value}


class Cache:
    """The folder of attachments. `folder`: libcni's cache directory."""

    def __init__(self, folder: str = FOLDER) -> None:
        self.folder = folder
        self.own = f"{folder}/ocirt"  # files that are being written, and the lock

    def path(self, attachment: Attachment) -> str:
        """Where an attachment's file is."""
        return f"{self.folder}/{_RESULTS[0]}/{_name(attachment)}"

    def find(self, attachment: Attachment) -> Entry | None:
        """The attachment's entry; None if there is none that can be read."""
        for folder in _RESULTS:
            found = _read(f"{self.folder}/{folder}/{_name(attachment)}", attachment)
            if found is not None:
                return found
        return None

    def save(self, entry: Entry) -> None:
        """Write it. Raises Error, then nothing has changed."""
        target = self.path(entry.attachment)
        other = _read(target)
        if other is not None and other.attachment != entry.attachment:
            hint = "names of networks and containers with dashes can give the same name of a file"
            raise Error(TAKEN, f"the file belongs to {other.attachment}", subject=target, hint=hint)
        scratch = self._scratch(entry.attachment)
        try:
            for folder in (os.path.dirname(target), self.own):
                os.makedirs(folder, 0o700, exist_ok=True)
            # What a killed ADD left there is written over, or goes with DEL.
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(jsonio.dumps(entry.document()).encode())
            os.rename(scratch, target)
        except OSError as err:
            _unlink(scratch)
            raise Error(IO_FAILURE, "the result cannot be kept", subject=target, cause=err.strerror or "") from None

    def remove(self, attachment: Attachment) -> None:
        """Forget it; no error if it is not there. Raises Error(IO_FAILURE)."""
        _unlink(self._scratch(attachment))
        for folder in _RESULTS:
            path = f"{self.folder}/{folder}/{_name(attachment)}"
            other = _read(path)
            if other is None or other.attachment == attachment:  # what cannot be read goes too
                try:
                    _unlink(path)
                except OSError as err:
                    raise Error(IO_FAILURE, "the file cannot be removed", subject=path, cause=err.strerror or "") from None

    def attachments(self, container: str = "", network: str = "") -> list[Entry]:
        """All, or those of a container or a network, by name. Files that cannot be read are left out."""
        found: dict[str, Entry] = {}
        for folder in reversed(_RESULTS):
            try:
                names = os.listdir(f"{self.folder}/{folder}")
            except OSError:
                continue
            for name in names:
                # A file of old has no fields, and its name cannot be taken apart.
                entry = _read(f"{self.folder}/{folder}/{name}") if f"-{container}" in name and name.startswith(network) else None
                if (
                    entry is not None
                    and container in ("", entry.attachment.container)
                    and network in ("", entry.attachment.network)
                ):
                    found[name] = entry
        return [found[name] for name in sorted(found)]

    def sweep(self, network: str) -> None:
        """Remove what killed writers left of a network, of which nothing is being attached. Raises Error(IO_FAILURE)."""
        try:
            names = os.listdir(self.own)
        except FileNotFoundError:
            return
        for name in names:
            owner = Attachment.parse(name)
            if owner is not None and owner.network == network:
                try:
                    _unlink(f"{self.own}/{name}")
                except OSError as err:
                    raise Error(IO_FAILURE, "the file cannot be removed", subject=name, cause=err.strerror or "") from None

    def _scratch(self, attachment: Attachment) -> str:
        _name(attachment)  # which is as long
        return f"{self.own}/{attachment}"


def _name(attachment: Attachment) -> str:
    name = f"{attachment.network}-{attachment.container}-{attachment.ifname}"
    if len(name.encode()) > 255:  # NAME_MAX
        hint = "the names of network, container and interface together may have 253 bytes"
        raise Error(INVALID_ENVIRONMENT, f"{len(name.encode())} bytes are too long for the name of a file", hint=hint)
    return name


def _read(path: str, attachment: Attachment | None = None) -> Entry | None:
    """A file's entry, if it can be read and is the attachment's. A file of old holds a result alone."""
    try:
        with open(path, "rb") as file:
            document = jsonio.load_object(file.read(), path)
        if document.get("kind") != _KIND:
            return None if attachment is None or not document.get("cniVersion") else Entry(attachment, "", (), {}, b"", document)
        return _entry(document, attachment)
    except (OSError, Error, Base64Error, ValueError, TypeError, KeyError):
        return None


def _entry(document: dict[str, Any], attachment: Attachment | None) -> Entry | None:
    found = Attachment(document["networkName"], document["containerId"], document["ifName"])
    if not all(isinstance(part, str) and part for part in (found.network, found.container, found.ifname)):
        return None
    if attachment is not None and found != attachment:
        return None
    args = tuple((str(key), str(value)) for key, value in document.get("cniArgs") or ())
    capabilities, result = document.get("capabilityArgs") or {}, document.get("result")
    if not isinstance(capabilities, dict) or not isinstance(result, dict | None):
        return None
    netns = document.get("netns") or ""
    if not isinstance(netns, str):
        return None
    config = a2b_base64(document.get("config") or "", strict_mode=True)
    return Entry(found, netns, args, capabilities, config, result)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
