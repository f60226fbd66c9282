"""What plugins want of containers that exist: other limits, or their end."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import resources

if TYPE_CHECKING:
    from ocirt_cri.containers import Containers
    from ocirt_cri.node import Node

_log = logging.getLogger(__name__)


class Wishes:
    """Fulfilled one after the other; what fails is logged."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers

    async def apply(self, updates: Iterable[nri.ContainerUpdate]) -> list[nri.ContainerUpdate]:
        """Change limits of containers; those that could not be changed, and whose plugin minds.

        For each nri.request_timeout is waited: it may be being started or written down, which takes long, while others wait for
        the lock of all asking.
        """
        failed = []
        seconds = float(self._node.config["nri.request_timeout"])
        for update in updates:
            try:
                await self._change(update, seconds)
            except TimeoutError:
                what = "container %s: an NRI plugin's update was left out: it could not be changed within %g s"
                _log.warning(what, update.container_id, seconds)
                if not update.ignore_failure:
                    failed.append(update)
            except (Error, OSError) as err:
                if not update.ignore_failure:
                    _log.warning("container %s: an NRI plugin's update failed: %s", update.container_id, err)
                    failed.append(update)
        return failed

    async def _change(self, update: nri.ContainerUpdate, seconds: float) -> None:
        container = self._node.container(update.container_id)
        if container.state not in (cri.CONTAINER_CREATED, cri.CONTAINER_RUNNING):
            raise Error("state", "the container has ended", subject=container.id)
        given = update.linux.resources
        linux = cri.LinuxContainerResources()
        resources.into_cri(given, linux)
        await self._containers.change(container, resources.laid_over({}, given, self._node.host), linux, seconds)

    async def evict(self, evictions: Iterable[nri.ContainerEviction]) -> None:
        """End containers. The lock of all asking is not to be held: others are told of it."""
        for eviction in evictions:
            container = self._node.all_containers.get(eviction.container_id)
            if container is None:
                continue
            _log.warning("container %s is ended for an NRI plugin: %s", container.id, eviction.reason or "no reason given")
            try:
                await self._containers.stop(container, 0)
            except (Error, OSError, TimeoutError) as err:
                _log.warning("container %s could not be ended for an NRI plugin: %s", container.id, err)
