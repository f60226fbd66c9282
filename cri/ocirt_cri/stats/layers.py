"""What containers have written to their roots, as the process that walks through it says (walker.py)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_cri.spawn import spawn
from ocirt_cri.stats.walker import measure
from ocirt_images.errors import Error

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from ocirt_images.snapshots import Upper

_PERIOD = 5.0  # seconds between two looks at which containers there are
_GLANCE = 0.02  # seconds that a caller's own look may take
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
        self._paths: dict[str, Path] = {}
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

    def look(self, container_ids: Iterable[str]) -> dict[str, Written]:
        """What these have written, for a caller in a thread. Raises OSError.

        What the walker has not come to yet is looked at now, if that is soon done.
        """
        wanted = list(container_ids)
        missing = [one for one in wanted if one not in self._known]
        if missing:
            self._paths = {name: upper.path for name, upper in self._uppers().items()}
            end = time.monotonic() + _GLANCE

            def between() -> None:
                if time.monotonic() > end:
                    raise TimeoutError  # the walker takes its time

            for one in missing:
                found = measure(self._paths[one], between) if one in self._paths and time.monotonic() < end else None
                if found is not None:
                    self._known[one] = Written(found.size, found.inodes, time.time_ns())
        return {one: self._known[one] for one in wanted if one in self._known}

    def path(self, container_id: str) -> Path | None:
        """Where a container writes, as far as is known."""
        return self._paths.get(container_id)

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
            self._paths = {name: upper.path for name, upper in uppers.items()}
            paths = {name: str(path) for name, path in self._paths.items()}
            if paths != told:
                writer.write(json.dumps({"walk": paths}).encode() + b"\n")
                told = paths
            for name in [name for name in self._known if name not in paths]:
                del self._known[name]
            await asyncio.sleep(_PERIOD)
            uppers = await asyncio.to_thread(self._uppers)
