"""ExecSync: one more program in a container, to its end, by an executor, or by the container's shim."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages import shim as messages
from ocirt_cri.errors import DeadlineError
from ocirt_cri.spec.document import encode
from ocirt_cri.spec.execprocess import exec_process

if TYPE_CHECKING:
    from ocirt_cri.containers import Containers
    from ocirt_cri.model import Container
    from ocirt_cri.node import Node

_MARGIN = 60.0  # seconds beyond the time-out, for a shim to say that it has passed
_START = 2.0  # the same for an executor: it can be killed if it does not come so far as to look at the clock


class ExecService:
    """Awaits who runs the program."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers

    async def ExecSync(self, request: cri.ExecSyncRequest) -> cri.ExecSyncResponse:
        """Its output and exit code. A program that takes too long is gone, with all that it has started, when this fails."""
        container = self._node.container(request.container_id)
        if request.timeout < 0:
            raise Error("invalid", f"{request.timeout} is below 0", subject="timeout", hint="seconds; 0: as long as it takes")
        process = exec_process(container.process, request.cmd)
        container.need_running("programs are run in a running one")
        asked = messages.ExecRequest(
            process=encode(process),
            timeout=request.timeout * 1_000_000_000,
            output_limit=self._node.config["limits.exec_output"] // 2,
            id=container.id,
            state=self._node.shim_directory(container.id),
        )
        try:
            # It goes on without the caller: there is no way to take it back, and its time-out ends it.
            found = await self._node.operations.shielded(f"exec in {container.id}", self._run(container, asked))
        except TimeoutError:
            words = f"nobody says how command {request.cmd[0]!r} ended, {request.timeout} seconds and more after it was begun"
            raise DeadlineError(words, subject=container.id) from None
        if found.timed_out:
            words = f"command {request.cmd[0]!r} timed out: it ran for {request.timeout} seconds"
            raise DeadlineError(words, subject=container.id)
        out, err = found.stdout, found.stderr
        if found.spilled:
            out, err = await asyncio.to_thread(_spilled, found.spilled)
        return cri.ExecSyncResponse(stdout=out, stderr=err, exit_code=found.exit_code)

    async def _run(self, container: Container, asked: messages.ExecRequest) -> messages.ExecResponse:
        node, seconds = self._node, asked.timeout / 1e9
        if node.is_ours(container.id) and not node.executors.is_full:
            return await node.executors.run(asked, seconds + _START if seconds else None)
        shim = await self._containers.shim(container)
        return await shim.call("Exec", asked, messages.ExecResponse, seconds + _MARGIN if seconds else None)


def _spilled(name: str) -> tuple[bytes, bytes]:
    """Output that did not fit into a message of the shim's: in files, which are removed."""
    found = []
    for kind in ("stdout", "stderr"):
        path = f"{name}.{kind}"
        with open(path, "rb") as file:
            found.append(file.read())
        os.unlink(path)
    return found[0], found[1]
