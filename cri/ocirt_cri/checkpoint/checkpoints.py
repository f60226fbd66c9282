"""Checkpoints of containers: what the daemon does for one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToJson

from ocirt.errors import Error
from ocirt.zygote import wire
from ocirt_api.messages import shim as messages
from ocirt_cri import documents
from ocirt_cri.errors import DeadlineError
from ocirt_cri.spawn import spawn
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.containers import Containers
    from ocirt_cri.model import Container
    from ocirt_cri.node import Node

_PATIENCE = 60.0  # seconds for a shim to do what it does at once
_MARK = "paused"  # in a container's directory
_WORK = ".checkpoint-"  # what the name of a directory begins with that is there while an archive is written beside it
_AGAIN = 5.0  # seconds until a container that could not be let go on is tried again
_TRIES, _MOMENT = 20, 0.1  # seconds between them
_log = logging.getLogger(__name__)


def is_possible() -> bool:
    """Whether there is CRIU, without which a container cannot be written down."""
    return shutil.which("criu") is not None


class Checkpoints:
    """What writes containers down."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers
        self._later: set[asyncio.Task[None]] = set()

    async def container(self, request: cri.CheckpointContainerRequest) -> None:
        """Write one that runs into an archive, while it stands still; then it goes on. Raises Error."""
        container = self._node.container(request.container_id)
        location = request.location
        if not location.startswith("/") or "\0" in location or location.endswith("/"):
            raise invalid("location", f"{shown(location)} is no path of a file", "an absolute path, such as /var/lib/x.tar")
        if request.timeout < 0:
            raise invalid("timeout", f"{request.timeout} is below 0", "seconds; 0: as long as it takes")
        async with container.lock:
            if not container.is_running:
                raise Error("state", "the container does not run", subject=container.id)
            asked = await self._asked(container, location)
            shim = await self._containers.shim(container)
            await asyncio.to_thread(_write, self._mark(container), asked["work"])
            try:
                await shim.call("Pause", messages.StateRequest(), messages.Nothing, _PATIENCE)
                await self._work(asked, request.timeout)
            except BaseException:
                try:
                    await self._let_go_on(container)
                except (Error, OSError, TimeoutError) as late:  # the first failure is the one to tell
                    _log.error("container %s stands still: it could not be let go on: %s", container.id, str(late) or "no answer")
                raise
            await self._let_go_on(container)
        _log.info("container %s was written to %s", container.id, location)

    async def _let_go_on(self, container: Container) -> None:
        """Resume it. It is tried again, until `close`, if that fails. Raises Error, OSError, TimeoutError."""
        try:
            await self._resume(container)
        except BaseException:
            task = asyncio.create_task(self._until_resumed(container), name=f"resuming {container.id}")
            self._later.add(task)
            task.add_done_callback(self._later.discard)
            raise

    async def _until_resumed(self, container: Container) -> None:
        while True:
            await asyncio.sleep(_AGAIN)
            async with container.lock:
                if container.exited.is_set() or not await asyncio.to_thread(os.path.exists, self._mark(container)):
                    return
                try:
                    await self._resume(container)
                except (Error, OSError, TimeoutError) as err:
                    _log.warning("container %s still stands still: %s", container.id, str(err) or "no answer")
                else:
                    _log.info("container %s goes on", container.id)
                    return

    async def _resume(self, container: Container) -> None:
        shim = await self._containers.shim(container)
        await shim.call("Resume", messages.StateRequest(), messages.Nothing, _PATIENCE)
        os.unlink(self._mark(container))

    def close(self) -> None:
        """Try no more. What stands still is let go on by the next daemon."""
        for task in self._later:
            task.cancel()

    def clear(self, identifiers: Iterable[str]) -> None:
        """Remove what an earlier daemon was writing of these containers when it died. For a thread."""
        for identifier in identifiers:
            try:
                with open(self._mark_of(identifier), encoding="utf-8", errors="surrogateescape") as file:
                    work = file.read()
            except OSError:
                continue
            if os.path.basename(work).startswith(_WORK) and os.path.isdir(work):
                _log.info("removing %s, in which container %s was being written down", work, identifier)
                _remove(work)

    async def recover(self, container: Container) -> None:
        """Let one go on that an earlier daemon was writing down. Raises Error, OSError, TimeoutError."""
        async with container.lock:  # by this daemon it may be just now
            if not await asyncio.to_thread(os.path.exists, self._mark(container)):
                return
            await self._let_go_on(container)
        _log.warning("container %s goes on: the ocirtd that wrote it down is gone", container.id)

    def _mark(self, container: Container) -> str:
        """A file that is there as long as the container may stand still; it says where what is written is put together."""
        return self._mark_of(container.id)

    def _mark_of(self, identifier: str) -> str:
        return os.path.join(self._node.container_directory(identifier), _MARK)

    async def _asked(self, container: Container, location: str) -> dict[str, Any]:
        node = self._node
        if command := node.config.command(node.pod(container.pod_id).status.runtime_handler):
            what = f"{command[0]} has made it, and only containers of ocirt's own are written down"
            raise Error("unsupported", what, subject=container.id)
        if not await asyncio.to_thread(is_possible):
            raise Error("unsupported", "there is no CRIU", subject=container.id, hint="install criu")
        spec = documents.place(node.container_directory(container.id))
        if not await asyncio.to_thread(os.path.isfile, spec):
            what = "CRIU was not there when the container was made"
            raise Error("unsupported", what, subject=container.id, hint="install criu")
        if not await asyncio.to_thread(os.path.isdir, os.path.dirname(location)):
            raise invalid("location", f"{shown(os.path.dirname(location))} is no directory", "make it first")
        root = await node.roots.get(container.id)
        if root is None:
            raise Error("internal", "its root is gone", subject=container.id)
        status = container.status
        config = {
            "id": container.id,
            "name": container.metadata.name,
            "rootfsImage": status.image_id,
            "rootfsImageRef": status.image_ref,
            "rootfsImageName": status.image.image,
            "runtime": "ocirt",
            "createdTime": _time(status.created_at),
            "checkpointedTime": _time(time.time_ns()),
        }
        return {
            "runtime": node.runtime,
            "id": container.id,
            "spec": spec,
            "texts": {"config.dump": json.dumps(config), "status.dump": MessageToJson(status)},
            "log": status.log_path,
            "upper": os.fspath(root.upper),
            "lowers": [os.fspath(one) for one in root.lowers],
            "to": location,
            "work": os.path.join(os.path.dirname(location), _WORK + secrets.token_hex(4)),
            "parent": os.getpid(),
        }

    async def _work(self, asked: dict[str, Any], seconds: int) -> None:
        process, reader, writer = await spawn("ocirt_cri.checkpoint.worker")
        try:
            writer.write(json.dumps(asked).encode() + b"\n")
            async with asyncio.timeout(seconds or None):
                line = await reader.readline()
        except TimeoutError:
            raise DeadlineError(f"was not written within {seconds} seconds", subject=asked["id"]) from None
        finally:
            writer.close()
            process.kill()
            await asyncio.shield(asyncio.to_thread(_end, process, asked["work"]))
        answer = json.loads(line) if line else wire.from_error(Error("kernel", "the process that was to do it was killed"))
        if "error" in answer:
            raise wire.to_error(answer)


def _end(process: subprocess.Popen[bytes], work: str) -> None:
    process.wait()
    _remove(work)  # it had no time to, if it was killed


def _remove(work: str) -> None:
    """Remove a directory into which a CRIU may still write that is about to see that nobody waits for it."""
    for _ in range(_TRIES):
        shutil.rmtree(work, ignore_errors=True)
        if not os.path.exists(work):
            return
        time.sleep(_MOMENT)
    _log.warning("%s could not be removed", work)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat().replace("+00:00", "Z")
