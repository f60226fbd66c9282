"""One layer of a pull: its bytes into the store, and from there, while they still come, into its tree."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images import events, mediatypes
from ocirt_images.apply.job import Job
from ocirt_images.apply.source import Growing
from ocirt_images.errors import Error
from ocirt_images.snapshots.namespace import Mappings, is_host_root, present_mappings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ocirt_images.apply.job import Applied
    from ocirt_images.apply.worker import Workers
    from ocirt_images.cancel import Cancel
    from ocirt_images.digest import Digest
    from ocirt_images.pull.download import Downloads
    from ocirt_images.pull.stack import Layer
    from ocirt_images.store import Ingest, Lease, Staged, Store


@dataclass(slots=True)
class Unpacked:
    """A layer whose bytes are in the store. staged, applied: None if its tree was committed before."""

    layer: Layer
    staged: Staged | None = None
    applied: Applied | None = None
    moved: bool = False  # whether any byte of it had to come


class Fetch:
    """Brings layers, each in a thread that calls `run`."""

    def __init__(
        self,
        store: Store,
        downloads: Downloads | None,
        workers: Workers,
        lease: Lease,
        on_event: events.OnEvent,
        subject: str,
        cancel: Cancel,
    ) -> None:
        """downloads: None where all bytes have to be in the store already. subject: the image's name."""
        self.store = store
        self.downloads = downloads
        self.workers = workers
        self.lease = lease
        self.on_event = on_event
        self.subject = subject
        self.cancel = cancel
        # Where overlayfs' marks are looked for when the layers are mounted, by the same user.
        self.root = is_host_root()
        self.xattrs = "trusted" if self.root else "user"
        self.ids = present_mappings() if os.geteuid() == 0 and not self.root else Mappings((), ())

    def name(self, layer: Layer) -> str:
        """How errors call a layer."""
        return f"{self.subject}: layer {layer.number} ({layer.blob.digest.short})"

    def run(self, layer: Layer) -> Unpacked:
        """The layer's bytes in the store, its tree filled but not committed: that is the caller's to do, in order.

        A host that sends wrong bytes, or stops in the middle, is not asked again while there is another one. Raises Error,
        OSError, with nothing staged.
        """

        def retrying(err: Error) -> None:
            self.on_event(events.Retrying(layer.blob.digest, str(err), 0))

        if self.downloads is None:
            return self._attempt(layer, ())
        return self.downloads.persist(lambda avoid: self._attempt(layer, avoid), retrying)

    def _attempt(self, layer: Layer, avoid: Collection[str]) -> Unpacked:
        ingest = self.store.content.ingest(layer.blob, self.lease, waiting=self._waiting(layer.blob.digest))
        found = Unpacked(layer, moved=ingest is not None)
        try:
            with nullcontext() if ingest is None else ingest:  # what came is kept, whatever happens
                if ingest is not None and not self._stage(found, patient=False):
                    # Somebody makes this tree of other bytes. He will wait for his lower layers, and they may for these bytes:
                    # they must not wait for him.
                    self._bring(layer, ingest, avoid)
                    ingest = None
                if ingest is None:
                    self._stage(found, patient=True)
                if found.staged is not None:
                    found.applied = self._unpack(layer, found.staged, ingest, avoid)
                elif ingest is not None:
                    self._bring(layer, ingest, avoid)
                self.cancel.check()
        except BaseException as err:
            if found.staged is not None:
                found.staged.discard()
            if isinstance(err, Error) and err.code == "cancelled":
                self.cancel.check()  # in the words of who gave up
            raise
        return found

    def _stage(self, found: Unpacked, *, patient: bool) -> bool:
        """Ask for the layer's tree. False: somebody else makes it, for whom was not to be waited."""
        layer = found.layer
        waiting = self._waiting(layer.blob.digest)
        try:
            found.staged = self.store.layers.stage(
                layer.chain_id,
                parent=layer.parent,
                diff_id=layer.diff_id,
                lease=self.lease,
                waiting=waiting if patient else _refuse,
            )
        except _ElsewhereError:
            return False
        return True

    def _unpack(self, layer: Layer, staged: Staged, ingest: Ingest | None, avoid: Collection[str]) -> Applied:
        """Have a worker fill the layer's tree; with `ingest`, fetch the bytes while it unpacks those that are there."""
        growing = None if ingest is None else Growing(ingest.size)
        source = (
            self.store.content.open(layer.blob.digest) if ingest is None else os.open(ingest.path, os.O_RDONLY | os.O_CLOEXEC)
        )
        try:
            job = Job(
                # By descriptor: its name changes when it is committed, and a worker may be free only then.
                source=Path(f"/proc/self/fd/{source}"),
                target=staged.path,
                compression=mediatypes.LAYERS[layer.blob.media_type],
                diff_id=layer.diff_id,
                name=self.name(layer),
                growing=growing,
                # A user's files keep those owners that the user has ids for, the others are the user's own; device nodes are not
                # for users to make.
                uids=self.ids.uids,
                gids=self.ids.gids,
                squash=not self.root,
                devices=self.root,
                xattrs=self.xattrs,
            )
            applied = self.workers.apply(job)
            try:
                if ingest is not None and growing is not None:
                    ingest.grown = growing.advance
                    growing.advance(ingest.offset)
                    self._bring(layer, ingest, avoid)
                self.on_event(events.LayerUnpacking(layer.blob.digest))
                return applied.result()
            except BaseException:
                if growing is not None:
                    growing.abandon()
                if not applied.cancel():
                    applied.exception()
                raise
        finally:
            os.close(source)
            if ingest is not None and growing is not None:
                ingest.grown = None
                growing.close()

    def _bring(self, layer: Layer, ingest: Ingest, avoid: Collection[str]) -> None:
        """All that is missing of a layer's bytes, and their commit."""
        digest = layer.blob.digest

        def moved() -> None:
            self.on_event(events.LayerProgress(digest, ingest.received))

        if self.downloads is None:
            raise Error("not-found", "its bytes are not in the store", subject=self.name(layer), hint="pull it")
        moved()
        self.downloads.bring(layer.blob, ingest, moved, avoid)

    def _waiting(self, digest: Digest) -> Callable[[int], None]:
        def waiting(moved: int) -> None:
            self.cancel.check()
            self.on_event(events.LayerWaiting(digest, moved))

        return waiting


class _ElsewhereError(Exception):
    """Somebody else makes the layer."""


def _refuse(_: int) -> None:
    """In place of waiting."""
    raise _ElsewhereError
