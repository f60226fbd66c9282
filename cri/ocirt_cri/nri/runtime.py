"""NRI in the daemon: who is told what, and when a plugin that comes late learns what there is.

One lock is held while plugins are asked, so that all of them see one order. A plugin joins under the same lock: it is told of all
that is in the lists, and of what others were asked about and is not in them yet. So it misses nothing, and nobody waits for the
operations that are under way.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri import documents
from ocirt_cri.lookups import HostLookups
from ocirt_cri.nri import adjust, objects, resources
from ocirt_cri.nri.hooks import Hooks
from ocirt_cri.nri.members import Everything, Members
from ocirt_cri.nri.wishes import Wishes
from ocirt_cri.spec import cgroups

if TYPE_CHECKING:
    from typing import Self

    from ocirt_cri.containers import Containers
    from ocirt_cri.model import Container, Sandbox
    from ocirt_cri.node import Node
    from ocirt_cri.spec.inputs import Json

_ENDED = (cri.CONTAINER_EXITED, cri.CONTAINER_UNKNOWN)
_log = logging.getLogger(__name__)


class Nri(Hooks):
    """Between `__aenter__` and `__aexit__` plugins may come."""

    sees_containers = True

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._wishes = Wishes(node, containers)
        self._members = Members(node, self._wishes, self._everything, self._forget)
        self._plugins, self._lock = self._members.plugins, self._members.lock
        # What is being made: asked about, and not in the lists yet. And what plugins know as there and not ended.
        self._making_pods: dict[str, Sandbox] = {}
        self._making: dict[str, tuple[Container, Json]] = {}  # with its document
        self._pods: dict[str, bool] = {}  # whether it was not told yet that it has stopped
        self._known: dict[str, bool] = {}

    async def __aenter__(self) -> Self:
        await self._members.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._members.close()

    async def begin(self) -> None:
        """See Hooks."""
        await self._members.begin()

    # -- what they are told, and see --

    def _forget(self) -> None:
        """Nobody knows of anything."""
        self._pods.clear()
        self._known.clear()

    async def _everything(self) -> Everything:
        """What there is, and has not ended; it counts as known from now on."""
        node = self._node
        pods = {one.id: one for one in node.pods()} | self._making_pods
        containers = {one.id: one for one in node.containers() if one.state not in _ENDED}
        containers |= {identifier: one for identifier, (one, _) in self._making.items()}
        for pod in pods.values():
            self._pods.setdefault(pod.id, not pod.stopped)
        for container in containers.values():
            self._known.setdefault(container.id, True)
        messages = await asyncio.gather(*(self._container(one) for one in containers.values()))
        return [self._pod(one) for one in pods.values()], messages

    def _pod(self, sandbox: Sandbox) -> nri.PodSandbox:
        try:
            parent = cgroups.parent(sandbox.config.linux.cgroup_parent, self._node.settings, "cgroup_parent")
        except Error:  # cgroups.manager is another one since the pod was made
            parent = ""
        return objects.pod(sandbox, parent)

    def _pod_of(self, container: Container) -> nri.PodSandbox:
        sandbox = self._node.sandboxes.get(container.pod_id)
        return nri.PodSandbox(id=container.pod_id) if sandbox is None else self._pod(sandbox)

    async def _container(self, container: Container) -> nri.Container:
        _, document = self._making.get(container.id, (None, None))
        if document is None:
            document = await asyncio.to_thread(self._read, container)
        return objects.filled(container, objects.container(container, document))

    def _read(self, container: Container) -> Json:
        """Its document, as it was made; where that was not kept, what the daemon knows anyway."""
        try:
            return documents.read(self._node.container_directory(container.id))
        except (OSError, ValueError):
            return {"process": {"user": {"uid": 0, "gid": 0}, "args": [], **container.process}, "linux": {}}

    # -- pods --

    async def run_pod(self, sandbox: Sandbox) -> None:
        """See Hooks. What fails is told to have stopped, and to be removed, by `removed_pod`."""
        if self._members.is_idle:
            self._making_pods[sandbox.id] = sandbox
            return
        async with self._lock:
            self._making_pods[sandbox.id] = sandbox
            self._pods[sandbox.id] = True
            request = nri.RunPodSandboxRequest(pod=self._pod(sandbox))
            await self._plugins.tell(nri.RUN_POD_SANDBOX, request, nri.RunPodSandboxResponse)

    async def ran_pod(self, sandbox: Sandbox) -> None:
        """See Hooks."""
        self._making_pods.pop(sandbox.id, None)

    async def update_pod(
        self, sandbox: Sandbox, overhead: cri.LinuxContainerResources, resources_: cri.LinuxContainerResources
    ) -> None:
        """See Hooks."""
        if self._members.is_idle:
            return
        async with self._lock:
            request = nri.UpdatePodSandboxRequest(
                pod=self._pod(sandbox),
                overhead_linux_resources=resources.of_cri(overhead),
                linux_resources=resources.of_cri(resources_),
            )
            await self._plugins.tell(nri.UPDATE_POD_SANDBOX, request, nri.UpdatePodSandboxResponse)

    async def updated_pod(self, sandbox: Sandbox) -> None:
        """See Hooks."""
        if not self._members.is_idle:
            async with self._lock:
                request = nri.PostUpdatePodSandboxRequest(pod=self._pod(sandbox))
                await self._logged(nri.POST_UPDATE_POD_SANDBOX, request, nri.PostUpdatePodSandboxResponse)

    async def stopped_pod(self, sandbox: Sandbox) -> None:
        """See Hooks."""
        if self._members.is_idle:
            return
        async with self._lock:
            if self._pods.get(sandbox.id):
                self._pods[sandbox.id] = False
                request = nri.StopPodSandboxRequest(pod=self._pod(sandbox))
                await self._logged(nri.STOP_POD_SANDBOX, request, nri.StopPodSandboxResponse)

    async def removed_pod(self, sandbox: Sandbox) -> None:
        """See Hooks."""
        self._making_pods.pop(sandbox.id, None)
        await self.stopped_pod(sandbox)
        if self._members.is_idle:
            return
        async with self._lock:
            if self._pods.pop(sandbox.id, None) is not None:
                request = nri.RemovePodSandboxRequest(pod=self._pod(sandbox))
                await self._logged(nri.REMOVE_POD_SANDBOX, request, nri.RemovePodSandboxResponse)

    # -- containers --

    async def create(self, sandbox: Sandbox, container: Container, document: Json) -> Json:
        """See Hooks."""
        evictions: list[nri.ContainerEviction] = []
        if self._members.is_idle:
            self._require()
            self._making[container.id] = container, document
        else:
            async with self._lock:
                self._require()
                self._making[container.id] = container, document
                self._known[container.id] = True
                message = await self._container(container)
                message.state = nri.CONTAINER_UNKNOWN  # it is not made yet
                changes = await self._plugins.create(self._pod(sandbox), message)
                document = await asyncio.to_thread(self._adjusted, document, changes.adjust)
                self._making[container.id] = container, document
                resources.into_cri(changes.adjust.linux.resources, container.status.resources.linux)
                await self._wishes.apply(changes.updates.others)
            evictions = changes.evictions
        await self._wishes.evict(evictions)
        return document

    def _require(self) -> None:
        """Some plugins' part may not be left out: a node without them would run containers that are not what they should be."""
        missing = set(self._node.config["nri.required"]) - {peer.base for peer in self._plugins if not peer.is_lost}
        if missing:
            words = f"no NRI plugin {' and no '.join(sorted(missing))} is connected"
            raise Error("unavailable", words, hint="key nri.required names it: start it, or take it out")

    def _adjusted(self, document: Json, wanted: nri.ContainerAdjustment) -> Json:
        with HostLookups(()) as lookups:
            return adjust.adjusted(document, wanted, self._node.host, lookups)

    async def created(self, sandbox: Sandbox, container: Container) -> None:
        """See Hooks."""
        self._making.pop(container.id, None)
        if not self._members.is_idle:
            async with self._lock:
                request = nri.PostCreateContainerRequest(pod=self._pod(sandbox), container=await self._container(container))
                await self._logged(nri.POST_CREATE_CONTAINER, request, nri.PostCreateContainerResponse)

    async def start(self, container: Container) -> None:
        """See Hooks."""
        if not self._members.is_idle:
            async with self._lock:
                request = nri.StartContainerRequest(pod=self._pod_of(container), container=await self._container(container))
                await self._plugins.tell(nri.START_CONTAINER, request, nri.StartContainerResponse)

    async def started(self, container: Container) -> None:
        """See Hooks."""
        if not self._members.is_idle:
            async with self._lock:
                request = nri.PostStartContainerRequest(pod=self._pod_of(container), container=await self._container(container))
                await self._logged(nri.POST_START_CONTAINER, request, nri.PostStartContainerResponse)

    async def update(self, container: Container, linux: cri.LinuxContainerResources, wanted: Json) -> Json:
        """See Hooks."""
        if self._members.is_idle:
            return wanted
        async with self._lock:
            asked = resources.of_cri(linux)
            updates, evictions = await self._plugins.update(self._pod_of(container), await self._container(container), asked)
            await self._wishes.apply(updates.others)
        await self._wishes.evict(evictions)
        if updates.own == asked:
            return wanted
        resources.into_cri(updates.own, linux)
        return resources.laid_over(wanted, updates.own, self._node.host)

    async def updated(self, container: Container) -> None:
        """See Hooks."""
        if not self._members.is_idle:
            async with self._lock:
                request = nri.PostUpdateContainerRequest(pod=self._pod_of(container), container=await self._container(container))
                await self._logged(nri.POST_UPDATE_CONTAINER, request, nri.PostUpdateContainerResponse)

    async def stopped(self, container: Container) -> None:
        """See Hooks."""
        if self._members.is_idle:
            return
        async with self._lock:
            if not self._known.get(container.id):
                return
            self._known[container.id] = False
            message = await self._container(container)
            message.state = nri.CONTAINER_STOPPED
            try:
                updates = await self._plugins.stop(self._pod_of(container), message)
            except Error as err:
                _log.error("container %s has ended: %s", container.id, err)
            else:
                await self._wishes.apply(updates.others)

    async def removed(self, container: Container) -> None:
        """See Hooks."""
        await self.stopped(container)
        if self._members.is_idle:
            self._making.pop(container.id, None)
            return
        async with self._lock:
            if self._known.pop(container.id, None) is not None:
                message = await self._container(container)
                message.state = nri.CONTAINER_STOPPED
                request = nri.RemoveContainerRequest(pod=self._pod_of(container), container=message)
                await self._logged(nri.REMOVE_CONTAINER, request, nri.RemoveContainerResponse)
            self._making.pop(container.id, None)

    async def _logged(self, event: int, request: Any, answer: Any) -> None:
        """Tell what has happened: a plugin that says no changes nothing."""
        try:
            await self._plugins.tell(event, request, answer)
        except Error as err:
            _log.error("%s", err)
