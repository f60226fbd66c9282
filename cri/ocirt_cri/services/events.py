"""GetContainerEvents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.node import Node


class EventService:
    """Tells what happens from the call on."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def GetContainerEvents(self, request: cri.GetEventsRequest) -> AsyncIterator[cri.ContainerEventResponse]:
        """Until the client goes."""
        del request
        async for event in self._node.events.listen():
            yield event
