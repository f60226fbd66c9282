"""Pods: RunPodSandbox, StopPodSandbox, RemovePodSandbox, PodSandboxStatus, ListPodSandbox, StreamPodSandboxes,
UpdatePodSandboxResources.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.node import has_labels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocirt_cri.model import Sandbox
    from ocirt_cri.node import Node
    from ocirt_cri.sandboxes import Sandboxes

_AT_ONCE = 200  # in one message of a stream


class PodService:
    """Awaits operations; answers from memory."""

    def __init__(self, node: Node, sandboxes: Sandboxes) -> None:
        self._node = node
        self._sandboxes = sandboxes

    async def RunPodSandbox(self, request: cri.RunPodSandboxRequest) -> cri.RunPodSandboxResponse:
        """Answers when its network is there."""
        return cri.RunPodSandboxResponse(pod_sandbox_id=await self._sandboxes.run(request))

    async def StopPodSandbox(self, request: cri.StopPodSandboxRequest) -> cri.StopPodSandboxResponse:
        """Also for one that has stopped, or is not there."""
        await self._sandboxes.stop(request.pod_sandbox_id)
        return cri.StopPodSandboxResponse()

    async def RemovePodSandbox(self, request: cri.RemovePodSandboxRequest) -> cri.RemovePodSandboxResponse:
        """Also for one that runs, or is not there."""
        await self._sandboxes.remove(request.pod_sandbox_id)
        return cri.RemovePodSandboxResponse()

    async def PodSandboxStatus(self, request: cri.PodSandboxStatusRequest) -> cri.PodSandboxStatusResponse:
        """With its containers', as those who listen to events want it."""
        sandbox = self._node.pod(request.pod_sandbox_id)
        return cri.PodSandboxStatusResponse(
            status=sandbox.status,
            info={"info": self._info(sandbox)} if request.verbose else {},
            containers_statuses=[one.status for one in self._node.containers_of(sandbox.id)],
            timestamp=time.time_ns(),
        )

    def _info(self, sandbox: Sandbox) -> str:
        limits = sandbox.limits
        return json.dumps(
            {
                "namespaces": sandbox.namespaces,
                "files": sandbox.files,
                "hostname": sandbox.hostname,
                "cgroup": dict(sandbox.cgroup),
                "cgroupMade": bool(sandbox.made),
                "overhead": MessageToDict(limits.overhead, preserving_proto_field_name=True),
                "resources": MessageToDict(limits.resources, preserving_proto_field_name=True),
                "stopped": sandbox.stopped,
            }
        )

    async def ListPodSandbox(self, request: cri.ListPodSandboxRequest) -> cri.ListPodSandboxResponse:
        """All, or those that the filter names."""
        return cri.ListPodSandboxResponse(items=self._chosen(request.filter))

    async def StreamPodSandboxes(self, request: cri.StreamPodSandboxesRequest) -> AsyncIterator[cri.StreamPodSandboxesResponse]:
        """The same in parts."""
        found = self._chosen(request.filter)
        for start in range(0, len(found), _AT_ONCE):
            yield cri.StreamPodSandboxesResponse(pod_sandboxes=found[start : start + _AT_ONCE])

    async def UpdatePodSandboxResources(
        self, request: cri.UpdatePodSandboxResourcesRequest
    ) -> cri.UpdatePodSandboxResourcesResponse:
        """Answers when the new limits hold."""
        updating = self._sandboxes.update(request)
        await self._node.operations.shielded(f"update of {request.pod_sandbox_id}", updating)
        return cri.UpdatePodSandboxResourcesResponse()

    def _chosen(self, wanted: cri.PodSandboxFilter) -> list[cri.PodSandbox]:
        state = wanted.state.state if wanted.HasField("state") else None
        return [
            one.item
            for one in self._node.sandboxes.values()
            if one.id.startswith(wanted.id)
            and (state is None or one.status.state == state)
            and has_labels(one, wanted.label_selector)
        ]
