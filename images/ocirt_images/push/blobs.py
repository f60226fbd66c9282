"""The blobs of an image to a registry, several at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ocirt_images import events
from ocirt_images.errors import Error
from ocirt_images.registry.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from ocirt_images.cancel import Cancel
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.registry.destination import Destination
    from ocirt_images.store import Store

_CHUNK = 1 << 20


class Blobs:
    """Sends blobs. cancel: is set when one of them fails, which ends the others."""

    def __init__(
        self,
        store: Store,
        destination: Destination,
        sources: Mapping[Digest, Sequence[str]],
        cancel: Cancel,
        on_event: events.OnEvent,
    ) -> None:
        self._store = store
        self._to = destination
        self._sources = sources
        self._cancel = cancel
        self._on_event = on_event

    def send(self, layers: Collection[Descriptor], others: Collection[Descriptor], connections: int) -> None:
        """Have all of them at the destination. Events tell of layers alone. Raises the first error, when nothing is under way."""
        with ThreadPoolExecutor(connections, "push") as threads:
            parts = [threads.submit(self._one, blob, self._on_event) for blob in layers]
            parts += [threads.submit(self._one, blob, events.ignore) for blob in others]
            try:
                wait(parts)
            except BaseException:
                self._cancel.set()
                raise
        errors = [error for part in parts if (error := part.exception()) is not None]
        # One that fails ends the others, which say that they were ended.
        for error in sorted(errors, key=lambda one: isinstance(one, Error) and one.code == "cancelled"):
            raise error

    def _one(self, blob: Descriptor, on_event: events.OnEvent) -> None:
        """Send a blob, if it is not there. A failure ends the others."""
        try:
            self._cancel.check()
            on_event(events.LayerDone(blob.digest, self._send(blob, on_event)))
        except BaseException:
            self._cancel.set()
            raise

    def _send(self, blob: Descriptor, on_event: events.OnEvent) -> str:
        """What became of a blob: see `Upload.run`."""
        descriptor = self._store.content.open(blob.digest)
        try:
            upload = Upload(self._to, blob, descriptor, self._moved(blob, on_event))
            return upload.run(self._sources.get(blob.digest, ()), on_event)
        except Error as err:
            if err.code in ("invalid", "corrupt") and not _is_whole(descriptor, blob):
                hint = "ocirt fsck --repair, then pull again"
                raise Error("corrupt", "its file has other bytes", subject=str(blob.digest), hint=hint) from err
            raise
        finally:
            os.close(descriptor)

    def _moved(self, blob: Descriptor, on_event: events.OnEvent) -> Callable[[int], None]:
        def moved(at: int) -> None:
            self._cancel.check()
            on_event(events.LayerProgress(blob.digest, at))

        return moved


def _is_whole(descriptor: int, blob: Descriptor) -> bool:
    """Whether a file still is what its digest says: if a registry refuses it, that may be why."""
    hasher, at = blob.digest.hasher(), 0
    while data := os.pread(descriptor, _CHUNK, at):
        hasher.update(data)
        at += len(data)
    return at == blob.size and hasher.hexdigest() == blob.digest.encoded
