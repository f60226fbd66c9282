"""The snapshots of a store: its layers as root file systems, with or without a layer on top that can be written to."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls
from ocirt_images.snapshots.backend import Backend, Upper, Usage
from ocirt_images.snapshots.overlay import Overlay
from ocirt_images.snapshots.owner import Owner
from ocirt_images.store import Freed

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from ocirt_images.digest import Digest
    from ocirt_images.store import Lease, Store, WritableRecord


@dataclass(frozen=True, slots=True)
class Writable:
    """A writable layer: its row in the store, and a lease that says that this process is at work with it."""

    record: WritableRecord
    lease: Lease

    @property
    def upper(self) -> Upper:
        """Its directories."""
        return Upper(self.record.path.parent)

    @property
    def bundle(self) -> Path:
        """Where a container's bundle lies that is made together with it, and removed with it."""
        return self.upper.path / "bundle"


@dataclass(slots=True)
class Gone:
    """What `prune` removed: the keys of writable layers, their bytes, and what only they kept."""

    keys: list[str] = field(default_factory=list)
    size: int = 0
    freed: Freed = field(default_factory=Freed)


class Snapshots:
    """The snapshots of a store. backend: what mounts (default: overlayfs)."""

    def __init__(self, store: Store, backend: Backend | None = None) -> None:
        self._store = store
        self.backend = backend or Overlay(store.layout.empty)

    def layers(self, chain_id: Digest | None) -> list[Path]:
        """The trees of a layer and all below it, from the lowest up. Raises Error("not-found")."""
        return [record.path for record in self._store.layers.chain(chain_id)] if chain_id else []

    def create(self, owner: Owner, chain_id: Digest | None, size: int = 0) -> Writable:
        """A new writable layer on the layer `chain_id` (None: on nothing).

        It stays until `remove`, or until its owner is gone and nobody is at work with it. What a former owner of the same name
        left is removed. size: what it may take, in bytes, which the file system enforces (EDQUOT); 0: no limit.
        Raises Error("exists", "not-found", "exhausted"), Error("unsupported") for a size that cannot be enforced, OSError, with
        nothing left.
        """
        owner.check()
        # Before there is a row, so that nobody takes the layer for one that a dead process left.
        lease = self._store.leases.lease(owner.key)
        try:
            old = self._store.writables.get(owner.key)
            if old is not None:
                if not self._is_unused(old, others=self._at_work(besides=lease)):
                    raise owner.taken()
                self._store.writables.delete(owner.key)
            writable = Writable(self._store.writables.create(owner.key, chain_id, size=size), lease)
            try:
                self.backend.prepare(writable.upper, self.layers(chain_id))
            except BaseException:
                self._store.writables.delete(owner.key)
                raise
        except BaseException:
            lease.end()
            raise
        return writable

    def mount(self, chain_id: Digest | None, writable: Writable | None = None, *, volatile: bool = False) -> int:
        """A layer and all below it as one tree: a detached mount's descriptor, read-only without `writable`. See Backend."""
        return self.backend.mount(self.layers(chain_id), writable.upper if writable else None, volatile=volatile)

    def usage(self, writable: Writable | WritableRecord) -> Usage:
        """What was written to it so far."""
        record = writable.record if isinstance(writable, Writable) else writable
        return self.backend.usage(Upper(record.path.parent))

    def remove(self, writable: Writable) -> None:
        """Remove it with all that was written. What still has it mounted sees nothing sensible any more. Raises OSError."""
        self._store.writables.delete(writable.record.key)
        writable.lease.end()

    def unused(self) -> list[WritableRecord]:
        """Writable layers whose container or bundle is gone, and that no process is at work with. Others' are never here."""
        found = self._store.writables.list()
        at_work = self._at_work()  # after the rows: who comes meanwhile has his lease before his row
        return [record for record in found if self._is_unused(record, others=at_work)]

    def prune(self, *, until: float = float("inf")) -> Gone:
        """Remove what is `unused`, and no younger than `until` (seconds since the epoch). Raises OSError."""
        gone = Gone()
        for record in self.unused():
            if record.created <= until:
                size = self.usage(record).size
                gone.freed += self._store.writables.delete(record.key)
                gone.keys.append(record.key)
                gone.size += size
        return gone

    def _at_work(self, besides: Lease | None = None) -> set[str]:
        return {name for number, name, _ in self._store.leases.list() if besides is None or number != besides.number}

    @staticmethod
    def _is_unused(record: WritableRecord, others: set[str]) -> bool:
        owner = Owner.parse(record.key)
        return owner is not None and record.key not in others and not owner.wants(record.id)


def attach(mount: int, path: str | os.PathLike[str]) -> None:
    """Hang a detached mount over the directory `path`, in this process's mount namespace. Raises Error that names it."""
    try:
        calls.move_mount(mount, path)
    except calls.CallError as err:
        code = "not-found" if err.errno == errno.ENOENT else "kernel"
        raise Error(code, "nothing can be mounted there", subject=str(path), cause=err.strerror or "") from None


def detach(path: str | os.PathLike[str]) -> None:
    """Take away what is mounted at `path`. What uses it still has it. Raises OSError."""
    calls.unmount(path)
