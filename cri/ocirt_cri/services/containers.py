"""Containers: Create, Start, Stop, Remove, Status, List, Stream, UpdateContainerResources, ReopenContainerLog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.node import find, has_labels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocirt_cri.containers import Containers
    from ocirt_cri.model import Container
    from ocirt_cri.node import Node

_AT_ONCE = 200  # in one message of a stream


class ContainerService:
    """Awaits operations; answers from memory."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers

    async def CreateContainer(self, request: cri.CreateContainerRequest) -> cri.CreateContainerResponse:
        """Everything but running its program."""
        return cri.CreateContainerResponse(container_id=await self._containers.create(request))

    async def StartContainer(self, request: cri.StartContainerRequest) -> cri.StartContainerResponse:
        """Run it."""
        await self._containers.start(request.container_id)
        return cri.StartContainerResponse()

    async def StopContainer(self, request: cri.StopContainerRequest) -> cri.StopContainerResponse:
        """Also for one that does not run, or is not there. Of several calls for one container the shortest counts."""
        if request.timeout < 0:
            raise Error("invalid", f"{request.timeout} is below 0", subject="timeout", hint="seconds; 0: SIGKILL at once")
        found = find(self._node.all_containers, request.container_id, "container_id")
        if found is not None:
            stopping = self._containers.stop(found, request.timeout)
            await self._node.operations.shielded(f"stop of {found.id}", stopping)
        return cri.StopContainerResponse()

    async def RemoveContainer(self, request: cri.RemoveContainerRequest) -> cri.RemoveContainerResponse:
        """Also for one that runs, or is not there."""
        await self._containers.remove(request.container_id)
        return cri.RemoveContainerResponse()

    async def ContainerStatus(self, request: cri.ContainerStatusRequest) -> cri.ContainerStatusResponse:
        """One of them."""
        found = self._node.container(request.container_id)
        info = {"info": self._info(found)} if request.verbose else {}
        return cri.ContainerStatusResponse(status=found.status, info=info)

    def _info(self, container: Container) -> str:
        return json.dumps(
            {
                "sandboxID": container.pod_id,
                "pid": container.pid,
                "process": container.process,
                "shim": self._node.shim_directory(container.id),
                "stopSignal": container.stop_signal,
            }
        )

    async def ListContainers(self, request: cri.ListContainersRequest) -> cri.ListContainersResponse:
        """All, or those that the filter names."""
        return cri.ListContainersResponse(containers=self._chosen(request.filter))

    async def StreamContainers(self, request: cri.StreamContainersRequest) -> AsyncIterator[cri.StreamContainersResponse]:
        """The same in parts."""
        found = self._chosen(request.filter)
        for start in range(0, len(found), _AT_ONCE):
            yield cri.StreamContainersResponse(containers=found[start : start + _AT_ONCE])

    async def UpdateContainerResources(
        self, request: cri.UpdateContainerResourcesRequest
    ) -> cri.UpdateContainerResourcesResponse:
        """Answers when the new limits hold."""
        await self._containers.update(request)
        return cri.UpdateContainerResourcesResponse()

    async def ReopenContainerLog(self, request: cri.ReopenContainerLogRequest) -> cri.ReopenContainerLogResponse:
        """After the log was renamed."""
        await self._containers.reopen_log(request.container_id)
        return cri.ReopenContainerLogResponse()

    def _chosen(self, wanted: cri.ContainerFilter) -> list[cri.Container]:
        state = wanted.state.state if wanted.HasField("state") else None
        return [
            one.item
            for one in self._node.all_containers.values()
            if one.id.startswith(wanted.id)
            and (state is None or one.status.state == state)
            and one.pod_id.startswith(wanted.pod_sandbox_id)
            and has_labels(one, wanted.label_selector)
        ]
