"""What containers and bundles write: one directory each, below `writable/` of the image root.

    ID/owner        whose it is, as JSON; written first: a directory without one is what a dead process began
    ID/fs, ID/work  the backend's
    ID/bundle/      the bundle of a container that was made by `ocirt run --image`

The ID is random, and never used twice. A process that is making or using one holds a flock(2) on the directory, which the kernel
drops with it; after that the owner says whether it is still wanted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import tree
from ocirt_images.snapshots.backend import Upper

if TYPE_CHECKING:
    from collections.abc import Iterator

ANNOTATION = "org.ocirt.image.writable"  # of config.json: the ID of the writable layer that the bundle is mounted with
OWNER = "owner"
_ID_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """For whom a writable layer is.

    kind: `container` or `bundle`; name: the container's ID, or the bundle's absolute path
    root: of a container, the state directory of its runtime; lease: the name of the lease that keeps the layers below it
    """

    kind: str
    name: str
    root: str = ""
    lease: str = ""

    def wants(self, writable_id: str) -> bool:
        """Whether the owner is there and uses this writable layer.

        A container is there as long as its runtime has a state directory for it, which `delete` removes, and a reboot. A bundle
        is there as long as its config.json names the writable layer, or
        something is still mounted at its rootfs.
        """
        if self.kind == "container":
            return os.path.lexists(os.path.join(self.root, self.name))
        if os.path.ismount(os.path.join(self.name, "rootfs")):
            return True
        try:
            config = json.loads(Path(self.name, "config.json").read_bytes())
            return bool(config["annotations"][ANNOTATION] == writable_id)
        except (OSError, ValueError, KeyError, TypeError):
            return False


class Writable:
    """A writable layer that this process holds until `release`, `remove` or its end.

    upper: its directories. owner: None for what a process began that died
    """

    def __init__(self, upper: Upper, owner: Owner | None, held: int) -> None:
        self.upper = upper
        self.owner = owner
        self._held = held

    @property
    def id(self) -> str:
        """Its name in `writable/`."""
        return self.upper.path.name

    @property
    def bundle(self) -> Path:
        """Where a container's bundle lies that was made together with it."""
        return self.upper.path / "bundle"

    def release(self) -> None:
        """Hold it no longer: from now on the owner keeps it."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def remove(self) -> None:
        """Remove all of it. Nothing may be mounted with it that somebody still wants to use. Raises OSError for what is left."""
        # The owner goes last, so that what is left of an interrupted removal is still known by name.
        for entry in sorted(self.upper.path.iterdir(), key=lambda entry: entry.name == OWNER):
            if entry.is_dir() and not entry.is_symlink():
                tree.remove(entry)
            else:
                entry.unlink()
        self.upper.path.rmdir()
        self.release()

    def __enter__(self) -> Writable:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Writables:
    """The writable layers of an image root. root: its `writable/`, made when the first one is."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def create(self, owner: Owner) -> Writable:
        """A new one, held, with its owner written down and nothing else in it. Raises Error("exhausted"), OSError."""
        self.root.mkdir(0o700, parents=True, exist_ok=True)
        while True:
            upper = Upper(self.root / secrets.token_hex(8))
            try:
                upper.path.mkdir(0o700)
                held = _hold(upper.path)
                if held is None:  # `prune` was quicker than the lock
                    continue
                try:
                    _write_new(upper.path / OWNER, json.dumps(asdict(owner)).encode())
                except BaseException:
                    os.close(held)
                    raise
            except OSError as err:
                with contextlib.suppress(OSError):
                    tree.remove(upper.path)
                if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
                    cause = os.strerror(err.errno)
                    raise Error("exhausted", "making a writable layer", subject=str(upper.path), cause=cause) from None
                raise
            return Writable(upper, owner, held)

    def open(self, writable_id: str) -> Writable:
        """One that is there, held. Raises Error("not-found"), Error("in-use") while another process holds it."""
        path = self.root / writable_id
        if not _is_id(writable_id) or not path.is_dir():
            raise Error("not-found", "no such writable layer", subject=str(path))
        held = _hold(path)
        if held is None:
            raise Error("in-use", "another process is using it", subject=str(path))
        return Writable(Upper(path), _read_owner(path), held)

    def list(self) -> dict[str, Owner | None]:
        """Whose each one is, by ID."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return {}
        return {name: _read_owner(self.root / name) for name in names if _is_id(name)}

    def prune(self) -> Iterator[tuple[str, Owner | None]]:
        """Remove those that nobody holds and whose owner is gone, and name each when it is. Raises OSError."""
        for name in self.list():
            try:
                writable = self.open(name)
            except Error:
                continue  # in use, or just removed
            with writable:
                if writable.owner is None or not writable.owner.wants(name):
                    writable.remove()
                    yield name, writable.owner


def _is_id(name: str) -> bool:
    """Whether it is the name of a writable layer. `empty` lies beside them."""
    return len(name) == _ID_LENGTH and all(char in "0123456789abcdef" for char in name)


def _hold(path: Path) -> int | None:
    """The lock on a writable layer, as a descriptor; None if somebody has it or it is just being removed."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(held), os.stat(path)):
            return held
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(held)
        raise
    os.close(held)
    return None


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_owner(path: Path) -> Owner | None:
    try:
        value = json.loads((path / OWNER).read_bytes())
        return Owner(**{name: str(text) for name, text in value.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return None  # not written to its end: its maker died
