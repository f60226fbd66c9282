"""What containers have written to their roots, as the process that walks through it says (walker.py)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_cri.spawn import spawn
from ocirt_images.errors import Error

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from ocirt_images.snapshots import Upper

_PERIOD = 5.0  # seconds between two looks at which containers there are
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What a container has written: bytes on disk, and inodes (None: the file system does not count them).

    timestamp: when that was found, in nanoseconds since the epoch
    """

    size: int
    inodes: int | None
    timestamp: int


class LayerUsage:
    """What is known of it. An async context manager, while which the walker is at work.

    uppers: gives what there is to walk, by container, from a thread; none: no process is started
    """

    def __init__(self, uppers: Callable[[], Mapping[str, Upper]], *, again: float = 60.0) -> None:
        """again: seconds until a walker that died is followed by another one."""
        self._uppers = uppers
        self._again = again
        self._known: dict[str, Written] = {}
        self._task: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> LayerUsage:
        self._task = asyncio.create_task(self._keep_on(), name="walker of writable layers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def pid(self) -> int | None:
        """The walker's, if it is there."""
        return self._process.pid if self._process is not None else None

    def get(self, container_id: str) -> Written | None:
        """What a container has written; None: that is not known yet."""
        return self._known.get(container_id)

    def total(self) -> Written:
        """Of all containers together, as far as is known."""
        found = self._known.values()
        return Written(sum(one.size for one in found), sum(one.inodes or 0 for one in found), time.time_ns())

    async def _keep_on(self) -> None:
        while True:
            try:
                await self._walk()
            except (Error, OSError, ValueError) as err:
                _log.warning("what containers write is not counted for a while: %s", err)
                await asyncio.sleep(self._again)

    async def _walk(self) -> None:
        """Until the walker dies. Raises OSError then."""
        while not (uppers := await asyncio.to_thread(self._uppers)):
            self._known.clear()
            await asyncio.sleep(_PERIOD)
        process, reader, writer = await spawn("ocirt_cri.stats.walker")
        self._process = process
        telling = asyncio.create_task(self._tell(writer, uppers))
        try:
            while line := await reader.readline():
                said = json.loads(line)
                self._known[said["id"]] = Written(said["size"], said["inodes"], time.time_ns())
            raise OSError("the walker died")
        finally:
            telling.cancel()
            writer.close()
            self._process = None
            # It sees the end of its socket, or sleeps for its budget meanwhile.
            process.kill()
            await asyncio.shield(asyncio.to_thread(process.wait))

    async def _tell(self, writer: asyncio.StreamWriter, uppers: Mapping[str, Upper]) -> None:
        """Say what there is to walk, whenever that changes."""
        told: dict[str, str] = {}
        while True:
            paths = {name: str(upper.path) for name, upper in uppers.items()}
            if paths != told:
                writer.write(json.dumps({"walk": paths}).encode() + b"\n")
                told = paths
            for name in [name for name in self._known if name not in paths]:
                del self._known[name]
            await asyncio.sleep(_PERIOD)
            uppers = await asyncio.to_thread(self._uppers)
