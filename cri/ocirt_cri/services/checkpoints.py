"""Checkpoints: CheckpointContainer; and why CheckpointPod and RestorePod are not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri

if TYPE_CHECKING:
    from ocirt_cri.checkpoint.checkpoints import Checkpoints
    from ocirt_cri.node import Node


class CheckpointService:
    """Awaits operations."""

    def __init__(self, node: Node, checkpoints: Checkpoints) -> None:
        self._node = node
        self._checkpoints = checkpoints

    async def CheckpointContainer(self, request: cri.CheckpointContainerRequest) -> cri.CheckpointContainerResponse:
        """Answers when the archive is there; the container goes on."""
        writing = self._checkpoints.container(request)
        await self._node.operations.shielded(f"checkpoint of {request.container_id}", writing)
        return cri.CheckpointContainerResponse()

    async def CheckpointPod(self, request: cri.CheckpointPodRequest) -> cri.CheckpointPodResponse:
        """Its containers would have to come back into new namespaces, with new addresses."""
        del request
        hint = "CheckpointContainer writes one container"
        raise Error("unsupported", "ocirtd does not write whole pods", subject="pod_sandbox_id", hint=hint)

    async def RestorePod(self, request: cri.RestorePodRequest) -> cri.RestorePodResponse:
        """There is no checkpoint of a pod that this could be."""
        del request
        raise Error("unsupported", "ocirtd does not restore pods", subject="checkpoint_path", hint="make the pod anew")
