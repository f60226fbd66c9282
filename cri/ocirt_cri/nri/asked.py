"""The plugins that are there, in their order, and what they are asked together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import Message

from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri.changes import Changes
from ocirt_cri.nri.owners import Owners
from ocirt_cri.nri.peer import Peer
from ocirt_cri.nri.updates import Updates

M = TypeVar("M", bound=Message)
_log = logging.getLogger(__name__)


class Plugins:
    """Those that were synchronised. Whoever asks them holds the one lock of all asking."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    def __bool__(self) -> bool:
        return bool(self._peers)

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._peers))

    def add(self, peer: Peer) -> None:
        """It is asked from now on, after those of a lower index, and of the same that were there before."""
        self._peers.append(peer)
        self._peers.sort(key=lambda one: one.index)

    def drop(self, peer: Peer) -> bool:
        """It is asked no more. Returns whether it was."""
        if peer not in self._peers:
            return False
        self._peers.remove(peer)
        return True

    async def tell(self, event: int, request: Message, answer: type[M]) -> None:
        """Tell all that want to hear it, one after the other. Raises Error: the first that says no; the rest is not asked."""
        for peer in self:
            await peer.ask(event, request, answer)

    async def create(self, pod: nri.PodSandbox, container: nri.Container) -> Changes:
        """What all of them make of a container that is to be made. Raises Error: one says no, two conflict, one rejects it."""
        changes = Changes(container)
        names = []
        for peer in self:
            if peer.is_lost:
                continue
            names.append(nri.PluginInstance(name=peer.base, index=peer.index))
            request = nri.CreateContainerRequest(pod=pod, container=changes.container)
            answer = await peer.ask(nri.CREATE_CONTAINER, request, nri.CreateContainerResponse)
            if answer is not None:
                changes.apply(answer, peer.name)
        judges = [peer for peer in self if peer.wants(nri.VALIDATE_CONTAINER_ADJUSTMENT)]
        if judges:
            verdict = nri.ValidateContainerAdjustmentRequest(
                pod=pod, container=container, adjust=changes.adjust, update=changes.updates.others, plugins=names
            )
            verdict.owners.CopyFrom(changes.owners.message())
            for result in await asyncio.gather(*(peer.validate(verdict) for peer in judges), return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
        return changes

    async def update(
        self, pod: nri.PodSandbox, container: nri.Container, wanted: nri.LinuxResources
    ) -> tuple[Updates, list[nri.ContainerEviction]]:
        """What all of them make of a change of a container's limits. Raises Error."""
        updates = Updates(Owners(), updating=container.id, wanted=wanted)
        evictions: list[nri.ContainerEviction] = []
        for peer in self:
            request = nri.UpdateContainerRequest(pod=pod, container=container, linux_resources=updates.own)
            answer = await peer.ask(nri.UPDATE_CONTAINER, request, nri.UpdateContainerResponse)
            if answer is not None:
                updates.apply(answer.update, peer.name)
                evictions += answer.evict
        return updates, evictions

    async def stop(self, pod: nri.PodSandbox, container: nri.Container) -> Updates:
        """What all of them want changed of others, now that a container has ended. Raises Error."""
        updates = Updates(Owners())
        for peer in self:
            request = nri.StopContainerRequest(pod=pod, container=container)
            answer = await peer.ask(nri.STOP_CONTAINER, request, nri.StopContainerResponse)
            if answer is not None:
                updates.apply(answer.update, peer.name)
        return updates
