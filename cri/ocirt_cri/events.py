"""What happens to pods and containers, told to whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.model import Container, Sandbox

CREATED = cri.CONTAINER_CREATED_EVENT
STARTED = cri.CONTAINER_STARTED_EVENT
STOPPED = cri.CONTAINER_STOPPED_EVENT
DELETED = cri.CONTAINER_DELETED_EVENT
_MOST = 10_000  # events that a listener may be behind


class Events:
    """Listeners, each with what it has not been told yet."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[cri.ContainerEventResponse | None]] = set()

    def tell(
        self,
        kind: cri.ContainerEventType.ValueType,
        identifier: str,
        sandbox: Sandbox | None,
        containers: Iterable[Container] = (),
    ) -> None:
        """Something happened to a container, or to a pod (whose id it then is)."""
        if not self._listeners:
            return
        event = cri.ContainerEventResponse(
            container_id=identifier,
            container_event_type=kind,
            created_at=time.time_ns(),
            pod_sandbox_status=None if sandbox is None else sandbox.status,
            containers_statuses=[one.status for one in containers],
        )
        for listener in list(self._listeners):
            if listener.qsize() >= _MOST:
                self._listeners.discard(listener)
                listener.put_nowait(None)
            else:
                listener.put_nowait(event)

    async def listen(self) -> AsyncIterator[cri.ContainerEventResponse]:
        """Everything from now on. Raises Error("exhausted") if the listener is too far behind."""
        queue: asyncio.Queue[cri.ContainerEventResponse | None] = asyncio.Queue()
        self._listeners.add(queue)
        try:
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._listeners.discard(queue)
        raise Error("exhausted", f"more than {_MOST} events were not read", hint="list pods and containers, and listen anew")
