"""The layers of a pull in order: all are fetched at once, and committed from the lowest up as they are ready."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from ocirt_images import events
from ocirt_images.apply.settle import settle

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_images.pull.layer import Fetch, Unpacked
    from ocirt_images.pull.stack import Layer
    from ocirt_images.store import Store


class Commits:
    """Takes layers from the threads that fetch them."""

    def __init__(self, store: Store, fetch: Fetch, layers: list[Layer], at_once: int) -> None:
        """layers: from the lowest up; at_once: how many are fetched at a time."""
        self.store = store
        self.fetch = fetch
        self.layers = layers
        self.at_once = at_once
        self.paths: list[Path] = []  # the trees of what is committed, from the lowest up

    def run(self) -> None:
        """Fetch and commit all layers. Raises the first error, when no thread is at work any more."""
        with ThreadPoolExecutor(self.at_once, "fetch") as threads:
            waiting = [threads.submit(self.fetch.run, layer) for layer in self.layers]
            try:
                while waiting:
                    ready = self._ready(waiting)
                    del waiting[: len(ready)]
                    self._commit(ready)
            except BaseException:
                self.fetch.cancel.set()
                self._drop(waiting)
                raise

    def _ready(self, waiting: list[Future[Unpacked]]) -> list[Unpacked]:
        """The lowest layers that are not committed, as many as have been fetched: at least one. A failure above ends it, too."""
        while True:
            ended = [one for one in waiting if one.done()]
            for one in ended:
                one.result()
            if waiting[0] in ended:
                break
            wait([one for one in waiting if one not in ended], return_when=FIRST_COMPLETED)
        ready = []
        for one in waiting:
            if not one.done():
                break
            ready.append(one.result())
        return ready

    def _commit(self, ready: list[Unpacked]) -> None:
        """Commit neighbours together: what is new of them is put on disk at once."""
        try:
            trees = list(self.paths)
            for one in ready:
                if one.staged is not None and one.applied is not None:
                    name, xattrs = self.fetch.name(one.layer), self.fetch.xattrs
                    settle(one.applied.needs, one.staged.path, trees[::-1], xattrs=xattrs, name=name)
                trees.append(one.staged.path if one.staged is not None else self._committed(one))
            if any(one.staged is not None for one in ready):
                self.store.layers.sync()
            for one in ready:
                if one.staged is not None and one.applied is not None:
                    one.staged.commit(size=one.applied.size, inodes=one.applied.inodes, synced=True)
                self.paths.append(self._committed(one))
                how = "" if one.moved else "exists"
                self.fetch.on_event(events.LayerDone(one.layer.blob.digest, how))
        except BaseException:
            for one in ready:
                if one.staged is not None:
                    one.staged.discard()
            raise

    def _committed(self, one: Unpacked) -> Path:
        record = self.store.layers.get(one.layer.chain_id)
        assert record is not None  # pinned by the lease
        return record.path

    @staticmethod
    def _drop(waiting: list[Future[Unpacked]]) -> None:
        """Nobody will commit these."""
        for one in waiting:
            one.cancel()
        wait(waiting)
        for one in waiting:
            if not one.cancelled() and one.exception() is None and (staged := one.result().staged) is not None:
                staged.discard()
