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
from ocirt_cri.errors import DeadlineError
from ocirt_cri.spawn import spawn
from ocirt_cri.spec.refuse import invalid, shown

if TYPE_CHECKING:
    import subprocess

    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.containers import Containers
    from ocirt_cri.model import Container
    from ocirt_cri.node import Node

_PATIENCE = 60.0  # seconds for a shim to do what it does at once
DOCUMENT = "config.json"  # in a container's directory
_MARK = "paused"  # likewise
_log = logging.getLogger(__name__)


def document_path(directory: str) -> str:
    """Where the config.json of a container is kept for this, in its directory; "" where there is no CRIU, and no use for it."""
    return os.path.join(directory, DOCUMENT) if shutil.which("criu") else ""


class Checkpoints:
    """What writes containers down."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers

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
            mark = self._mark(container)
            await asyncio.to_thread(_touch, mark)
            try:
                await shim.call("Pause", messages.StateRequest(), messages.Nothing, _PATIENCE)
                await self._work(asked, request.timeout)
            finally:
                await shim.call("Resume", messages.StateRequest(), messages.Nothing, _PATIENCE)
                os.unlink(mark)
        _log.info("container %s was written to %s", container.id, location)

    async def recover(self, container: Container) -> None:
        """Let one go on that an earlier daemon was writing down. Raises Error, OSError."""
        mark = self._mark(container)
        if await asyncio.to_thread(os.path.exists, mark):
            shim = await self._containers.shim(container)
            await shim.call("Resume", messages.StateRequest(), messages.Nothing, _PATIENCE)
            os.unlink(mark)
            _log.warning("container %s goes on: the ocirtd that wrote it down is gone", container.id)

    def _mark(self, container: Container) -> str:
        """A file that is there as long as the container may stand still."""
        return os.path.join(self._node.container_directory(container.id), _MARK)

    async def _asked(self, container: Container, location: str) -> dict[str, Any]:
        node = self._node
        spec = os.path.join(node.container_directory(container.id), DOCUMENT)
        if not await asyncio.to_thread(os.path.isfile, spec):
            what = "there is no CRIU" if not shutil.which("criu") else "CRIU was not there when the container was made"
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
            "work": os.path.join(os.path.dirname(location), f".checkpoint-{secrets.token_hex(4)}"),
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
    shutil.rmtree(work, ignore_errors=True)  # it had no time to, if it was killed


def _touch(path: str) -> None:
    with open(path, "wb"):
        pass


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat().replace("+00:00", "Z")
