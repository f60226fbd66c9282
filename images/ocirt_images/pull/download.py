"""A blob's bytes into an ingest: by several connections, each for a range, where it is large enough for that."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ocirt_images.cancel import Cancel
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.reference import Reference
    from ocirt_images.registry.client import Registry
    from ocirt_images.store import Ingest

RANGE = 16 << 20  # bytes asked for at once; a blob that misses less than two of these comes in one piece
_CHUNK = 1 << 20


class Downloads:
    """The connections of one pull, shared by its blobs: who asks first is served first. A context manager."""

    def __init__(self, registry: Registry, reference: Reference, connections: int, cancel: Cancel) -> None:
        self.registry = registry
        self.reference = reference
        self.cancel = cancel
        self.pool = ThreadPoolExecutor(connections, "download")

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def fill(self, blob: Descriptor, ingest: Ingest, moved: Callable[[], None], avoid: Collection[str] = ()) -> set[str]:
        """Fetch what `ingest` is missing. Returns the names of the hosts that sent it.

        moved: called by any thread when more has come; avoid: hosts not to ask. Raises what the registry client raises.
        """
        return _Blob(self, blob, ingest, moved, avoid).fill()


class _NoRangesError(Exception):
    """The server sends from the beginning, whatever it is asked for."""


class _Blob:
    """One blob on its way."""

    def __init__(
        self, downloads: Downloads, blob: Descriptor, ingest: Ingest, moved: Callable[[], None], avoid: Collection[str]
    ) -> None:
        self.downloads = downloads
        self.blob = blob
        self.ingest = ingest
        self.moved = moved
        self.avoid = avoid
        self.hosts: set[str] = set()
        self.failed = threading.Event()

    def fill(self) -> set[str]:
        gaps = self.ingest.missing
        if sum(stop - start for start, stop in gaps) > 2 * RANGE:
            gaps = [(at, min(at + RANGE, stop)) for start, stop in gaps for at in range(start, stop, RANGE)]
        try:
            self._all([self.downloads.pool.submit(self._range, *gap) for gap in gaps])
        except _NoRangesError:
            self.failed.clear()
            self._all([self.downloads.pool.submit(self._whole)])
        return self.hosts

    def _all(self, parts: list[Future[None]]) -> None:
        """Wait for all parts. What one of them raises ends the others."""
        wait(parts, return_when=FIRST_EXCEPTION)
        done = [part for part in parts if part.done() and not part.cancelled()]
        if any(part.exception() for part in done):
            self.failed.set()
            for part in parts:
                part.cancel()
            wait(parts)
        for part in done:
            part.result()

    def _range(self, start: int, stop: int) -> None:
        """Bytes `start` to `stop`."""
        if self.failed.is_set():
            return
        self._stream(start, stop, 0)

    def _whole(self) -> None:
        """From the beginning, over what is there already."""
        self._stream(0, self.blob.size, self.ingest.offset)

    def _stream(self, start: int, stop: int, skip: int) -> None:
        """Write bytes `start` to `stop` as they come; those before `skip` are there."""
        loads = self.downloads
        with loads.registry.blob(loads.reference, self.blob, start, stop, avoid=self.avoid) as body:
            if body.start != start:
                raise _NoRangesError
            forget = loads.cancel.waker(body.close)
            try:
                at = start
                while data := body.read(_CHUNK):
                    loads.cancel.check()
                    if self.failed.is_set():
                        return
                    self.hosts.add(body.host)
                    if at + len(data) > skip:
                        self.ingest.write_at(at, data)
                        self.moved()
                    at += len(data)
            finally:
                forget()
