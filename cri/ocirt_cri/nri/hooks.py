"""Where the life of pods and containers touches NRI. Without NRI, each of these does nothing.

No caller may hold the lock of a container: a plugin's answer may change the limits of any container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.model import Container, Sandbox
    from ocirt_cri.spec.inputs import Json


class Hooks:
    """What is called, in the order of a life. Those whose error fails what they are about say so; all others log it.

    sees_containers: whether a container's document is looked at after it was made
    """

    sees_containers = False

    async def begin(self) -> None:
        """What an earlier daemon has left is known: plugins of our own are there once it returns."""

    async def run_pod(self, sandbox: Sandbox) -> None:
        """A pod has all that it needs, and is not in any list yet. Raises Error: it is not to be."""

    async def ran_pod(self, sandbox: Sandbox) -> None:
        """It is in the lists."""

    async def update_pod(
        self, sandbox: Sandbox, overhead: cri.LinuxContainerResources, resources: cri.LinuxContainerResources
    ) -> None:
        """Its limits are about to change. Raises Error."""

    async def updated_pod(self, sandbox: Sandbox) -> None:
        """They have."""

    async def stopped_pod(self, sandbox: Sandbox) -> None:
        """Its containers have ended, and its network is still there. Only the first call for a pod counts."""

    async def removed_pod(self, sandbox: Sandbox) -> None:
        """It is in no list any more, or never was."""

    async def create(self, sandbox: Sandbox, container: Container, document: Json) -> Json:
        """A container is about to be made: the document as it is to be. Raises Error: it is not to be."""
        del sandbox, container
        return document

    async def created(self, sandbox: Sandbox, container: Container) -> None:
        """It is in the lists."""

    async def start(self, container: Container) -> None:
        """Its program is about to run. Raises Error: it is not to."""

    async def started(self, container: Container) -> None:
        """It runs."""

    async def update(self, container: Container, linux: cri.LinuxContainerResources, wanted: Json) -> Json:
        """Its limits are about to change: what plugins make of them, also in `linux`. Raises Error."""
        del container, linux
        return wanted

    async def updated(self, container: Container) -> None:
        """They have."""

    async def stopped(self, container: Container) -> None:
        """It has ended, however that came. Only the first call for a container counts."""

    async def removed(self, container: Container) -> None:
        """It is in no list any more, or never was."""
