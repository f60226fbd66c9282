"""The images of a node: what the services and the makers of containers have to do with them."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ocirt_cri.images import names
from ocirt_cri.images.catalog import Catalog
from ocirt_cri.images.credentials import credential
from ocirt_cri.images.joined import Joined
from ocirt_cri.images.process import Worker
from ocirt_images import held
from ocirt_images.errors import Error
from ocirt_images.store import Freed, prune

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.images.image import Image
    from ocirt_cri.images.settings import Settings
    from ocirt_images.config import ImageConfig
    from ocirt_images.registry.credentials import Credential
    from ocirt_images.store import Store

DAY = 86400.0
_HOUR = 3600.0
_AT_ONCE = 16  # pulls: each has threads for its layers and its connections
_CONFIGS = 32  # configurations that are kept in memory, of some KB each
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What all images take of their file system: bytes and inodes, of blobs and of unpacked layers."""

    size: int
    inodes: int


@dataclass(slots=True)
class Progress:
    """A pull that is under way. Bytes of the compressed layers: `moved` of `size` so far as is known; started: the monotonic
    clock's seconds.
    """

    name: str
    started: float
    moved: int = 0
    size: int = 0


class Images:
    """The images in a store, which belongs to the caller. An async context manager.

    catalog: what there is, and how it is found; pulls: what is under way, for who shows it
    """

    def __init__(self, store: Store, settings: Settings, *, pinned: Iterable[str] = (), idle: float = 60.0) -> None:
        """settings: for the process that pulls; idle: seconds without work after which it ends; pinned: see Catalog."""
        self.store = store
        self.catalog = Catalog(store, pinned)
        self.pulls: list[Progress] = []
        self._worker = Worker(settings, idle=idle)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._joined: Joined[tuple[str, Credential | None], str] = Joined()
        self._unpacking: Joined[str, str] = Joined()
        self._configs: dict[str, ImageConfig] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        # Of their own: they may take long, and everybody shares the event loop's threads.
        self._removers = ThreadPoolExecutor(2, "removal of an image")

    async def __aenter__(self) -> Images:
        self._keep(asyncio.create_task(self._sweep(), name="sweep of the images' store"))
        self._keep(asyncio.create_task(self._look(), name="first look at the images"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give up all pulls, end the process that makes them. Removals that have begun are waited for."""
        for task in list(self._tasks):
            if task.get_name().startswith("sweep"):
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.close()
        self._removers.shutdown()
        self.catalog.close()

    @property
    def worker_pid(self) -> int | None:
        """Of the process that pulls, if it is there."""
        return self._worker.pid

    async def pull(self, spec: cri.ImageSpec, auth: cri.AuthConfig) -> str:
        """Bring an image; its id. Pulls of one name by the same credential are one; the last who waits no more ends it.

        Raises Error: "invalid", "not-found", "unauthorized", "exhausted", …; "kernel" whose text begins with
        RegistryUnavailable or SignatureValidationFailed.
        """
        reference = names.reference(spec.image)
        who = credential(auth, reference)
        return await self._joined.run((str(reference), who), lambda: self._pull(str(reference), who))

    async def _pull(self, name: str, who: Credential | None) -> str:
        progress = Progress(name, time.monotonic())
        self.pulls.append(progress)  # also while it waits for its turn

        def on_progress(moved: int, size: int) -> None:
            progress.moved, progress.size = moved, size

        try:
            async with self._turns:
                found = await self._worker.call("pull", on_progress, name=name, credential=None if who is None else asdict(who))
        finally:
            self.pulls.remove(progress)
        _log.info("pulled %s: %s", name, found["id"])
        return str(found["id"])

    async def remove(self, text: str) -> None:
        """Remove an image with all its names, and what only it had. It is no error if there is none.

        When this returns, nobody is told of it any more, and its space is free but for what containers use. It is not given up
        half-way: a caller who is cancelled leaves it to end alone. Raises Error("invalid"), OSError.
        """
        image = await self.catalog.find(text)
        if image is None:
            return
        task: asyncio.Task[object] = asyncio.create_task(self._removed(image), name=f"removal of {image.id}")
        self._keep(task)
        await asyncio.shield(task)

    async def _removed(self, image: Image) -> None:
        await asyncio.get_running_loop().run_in_executor(self._removers, self._remove, image)

    def _remove(self, image: Image) -> None:
        """In a thread: calls of the kernel, one for each file, nearly all the time."""
        freed = Freed()
        for name in image.names:
            try:
                freed += self.store.images.delete(name)
            except Error as err:
                if err.code != "not-found":
                    raise
        _log.info("removed %s: %d bytes", image.id, freed.content_bytes + freed.layer_bytes)

    async def unpacked(self, image: Image) -> Image:
        """The image, with its layers unpacked: one that was loaded from an archive may not be. Raises Error."""
        if image.is_unpacked:
            return image

        async def unpack() -> str:
            found = await self._worker.call("unpack", lambda _moved, _size: None, name=image.names[0])
            return str(found["id"])

        return await self.catalog.get(await self._unpacking.run(image.id, unpack))

    async def config(self, image: Image) -> ImageConfig:
        """What the image says that is to be run. Raises Error("not-found", "corrupt", "invalid")."""
        if image.id not in self._configs:
            _, config = await asyncio.to_thread(held.image, self.store, image.records[0])
            self._configs[image.id] = config
        found = self._configs[image.id] = self._configs.pop(image.id)  # the last of all to go
        while len(self._configs) > _CONFIGS:
            del self._configs[next(iter(self._configs))]
        return found

    async def taken(self) -> Taken:
        """What all images take, with what an unfinished pull has left."""
        return await asyncio.to_thread(self._taken)

    def _taken(self) -> Taken:
        with self.store.database.reading() as connection:
            blobs, bytes_of_blobs = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM content").fetchone()
            inodes, bytes_of_layers = connection.execute(
                "SELECT coalesce(sum(inodes), 0), coalesce(sum(size), 0) FROM layers"
            ).fetchone()
        return Taken(bytes_of_blobs + bytes_of_layers, blobs + inodes)

    async def _look(self) -> None:
        """So that the first who asks need not wait until all of them are read."""
        try:
            await self.catalog.every()
        except (Error, OSError) as err:
            _log.warning("the images cannot be read: %s", err)

    async def _sweep(self) -> None:
        """What pulls that never ended have left goes after a day; until then the next attempt finds it."""
        while True:
            try:
                gone = await asyncio.to_thread(prune, self.store, older=DAY)
            except (Error, OSError) as err:
                _log.warning("what nothing uses could not be removed: %s", err)
            else:
                if gone.freed.contents or gone.freed.layers or gone.ingests:
                    _log.info("removed what nothing used for a day: %d blobs, %d layers", gone.freed.contents, gone.freed.layers)
            await asyncio.sleep(_HOUR)

    def _keep(self, task: asyncio.Task[object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
