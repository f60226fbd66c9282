"""Metrics as Prometheus has them: ListMetricDescriptors, ListPodSandboxMetrics, StreamPodSandboxMetrics."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats.descriptors import descriptors
from ocirt_cri.stats.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ocirt_cri.services.stats import Context
    from ocirt_cri.stats.sources import Container, Pod

_AT_ONCE = 20  # pods in one message of a stream


class MetricsService:
    """Answers from the kernel's files, for pods that are ready and containers that run. A context manager."""

    def __init__(self, context: Context) -> None:
        """Raises OSError."""
        self._source = context.source
        self._metrics = Metrics(context.layers, str(context.images.store.root))

    def __enter__(self) -> MetricsService:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()

    async def ListMetricDescriptors(self, request: cri.ListMetricDescriptorsRequest) -> cri.ListMetricDescriptorsResponse:
        """The same ones always: a kubelet asks once."""
        del request
        return cri.ListMetricDescriptorsResponse(descriptors=descriptors())

    async def ListPodSandboxMetrics(self, request: cri.ListPodSandboxMetricsRequest) -> cri.ListPodSandboxMetricsResponse:
        """Of all pods."""
        del request
        return cri.ListPodSandboxMetricsResponse(pod_metrics=await asyncio.to_thread(self._metrics.pods, await self._chosen()))

    async def StreamPodSandboxMetrics(
        self, request: cri.StreamPodSandboxMetricsRequest
    ) -> AsyncIterator[cri.StreamPodSandboxMetricsResponse]:
        """The same in parts, each read when the one before was taken."""
        del request
        chosen = await self._chosen()
        for start in range(0, len(chosen), _AT_ONCE):
            found = await asyncio.to_thread(self._metrics.pods, chosen[start : start + _AT_ONCE])
            yield cri.StreamPodSandboxMetricsResponse(pod_sandbox_metrics=found)

    async def _chosen(self) -> list[tuple[Pod, list[Container]]]:
        everything = list(self._source.containers())
        await asyncio.to_thread(self._metrics.keep, everything)
        by_pod: dict[str, list[Container]] = {}
        for one in everything:
            by_pod.setdefault(one.pod_id, []).append(one)
        return [(pod, by_pod.get(pod.id, [])) for pod in self._source.pods() if pod.is_ready]
