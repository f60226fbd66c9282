"""Statistics: ContainerStats, ListContainerStats, PodSandboxStats, ListPodSandboxStats, and the streams of these."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats.collect import Collector
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from ocirt_cri.images.images import Images
    from ocirt_cri.stats.layers import LayerUsage
    from ocirt_cri.stats.sources import Container, Pod, Source

PERIOD = 10.0  # seconds between two samples of processor time
_AT_ONCE = 100  # entries in one message of a stream
_log = logging.getLogger(__name__)


class _Named(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def labels(self) -> Mapping[str, str]: ...


T = TypeVar("T", bound=_Named)


class Context(Protocol):
    """What the service needs of the daemon. layers: what containers have written."""

    images: Images
    layers: LayerUsage

    @property
    def source(self) -> Source:
        """Of pods and containers."""


class StatsService:
    """Answers from the kernel's files. An async context manager, while which it samples."""

    def __init__(self, context: Context) -> None:
        self._source = context.source
        self._collector = Collector(context.layers, str(context.images.store.root))
        self._sampling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StatsService:
        self._sampling = asyncio.create_task(self._sample(), name="samples of processor time")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        self._collector.close()

    async def ContainerStats(self, request: cri.ContainerStatsRequest) -> cri.ContainerStatsResponse:
        """One container, whatever it does."""
        found = _one(self._source.containers(), request.container_id, "container", "container_id")
        return cri.ContainerStatsResponse(stats=await asyncio.to_thread(self._collector.container, found))

    async def ListContainerStats(self, request: cri.ListContainerStatsRequest) -> cri.ListContainerStatsResponse:
        """All running containers, or those of them that the filter names."""
        return cri.ListContainerStatsResponse(stats=await self._containers(request.filter))

    async def StreamContainerStats(
        self, request: cri.StreamContainerStatsRequest
    ) -> AsyncIterator[cri.StreamContainerStatsResponse]:
        """The same in parts."""
        found = await self._containers(request.filter)
        for start in range(0, len(found), _AT_ONCE):
            yield cri.StreamContainerStatsResponse(container_stats=found[start : start + _AT_ONCE])

    async def PodSandboxStats(self, request: cri.PodSandboxStatsRequest) -> cri.PodSandboxStatsResponse:
        """One pod."""
        found = _one(self._source.pods(), request.pod_sandbox_id, "pod sandbox", "pod_sandbox_id")
        return cri.PodSandboxStatsResponse(stats=(await self._pods([found]))[0])

    async def ListPodSandboxStats(self, request: cri.ListPodSandboxStatsRequest) -> cri.ListPodSandboxStatsResponse:
        """All pods that are ready, or those of them that the filter names."""
        return cri.ListPodSandboxStatsResponse(stats=await self._filtered_pods(request.filter))

    async def StreamPodSandboxStats(
        self, request: cri.StreamPodSandboxStatsRequest
    ) -> AsyncIterator[cri.StreamPodSandboxStatsResponse]:
        """The same in parts."""
        found = await self._filtered_pods(request.filter)
        for start in range(0, len(found), _AT_ONCE):
            yield cri.StreamPodSandboxStatsResponse(pod_sandbox_stats=found[start : start + _AT_ONCE])

    async def _containers(self, wanted: cri.ContainerStatsFilter) -> list[cri.ContainerStats]:
        chosen = [
            one
            for one in _chosen(self._source.containers(), wanted.id, wanted.label_selector)
            if one.is_running and one.pod_id.startswith(wanted.pod_sandbox_id)
        ]
        return await asyncio.to_thread(self._collector.containers, chosen)

    async def _filtered_pods(self, wanted: cri.PodSandboxStatsFilter) -> list[cri.PodSandboxStats]:
        return await self._pods([one for one in _chosen(self._source.pods(), wanted.id, wanted.label_selector) if one.is_ready])

    async def _pods(self, pods: list[Pod]) -> list[cri.PodSandboxStats]:
        by_pod: dict[str, list[Container]] = {}
        for one in self._source.containers():
            by_pod.setdefault(one.pod_id, []).append(one)

        def look() -> list[cri.PodSandboxStats]:
            return [self._collector.pod(pod, by_pod.get(pod.id, ())) for pod in pods]

        return await asyncio.to_thread(look)

    async def _sample(self) -> None:
        while True:
            containers = [one for one in self._source.containers() if one.is_running]
            pods = [one for one in self._source.pods() if one.is_ready]
            try:
                await asyncio.to_thread(self._collector.sample, containers, pods)
            except OSError as err:
                _log.warning("processor times could not be read: %s", err)
            await asyncio.sleep(PERIOD)


def _chosen(found: Iterable[T], identifier: str, labels: Mapping[str, str]) -> list[T]:
    """Those whose id begins so, and that have all of these labels."""
    wanted = labels.items()
    return [one for one in found if one.id.startswith(identifier) and all(one.labels.get(key) == value for key, value in wanted)]


def _one(found: Iterable[T], identifier: str, what: str, field: str) -> T:
    """The one with this id, or with an id that begins so. Raises Error("invalid", "not-found")."""
    if not identifier:
        raise Error("invalid", "no id", subject=field)
    matching = [one for one in found if one.id.startswith(identifier)]
    exact = next((one for one in matching if one.id == identifier), None)
    if exact is None and len(matching) > 1:
        raise Error("invalid", f"{len(matching)} ids begin with {identifier[:80]}", subject=field)
    if not matching:
        raise Error("not-found", f"no {what} {identifier[:80]}", subject=field)
    return exact or matching[0]
