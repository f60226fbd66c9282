"""Pods and containers, as ocirtd has them in memory and, by `store.py`, on disk.

What the CRI says of one is kept as the CRI's own status message: there is one truth, and an answer is a copy of it. A container's
process is the shim's to know; what is here is what the shim has said last.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri

# What is on disk of one that is being made or removed is undone by a fresh start.
CREATING, MADE, REMOVING = "creating", "made", "removing"
COMPLETED, ERROR, OOM_KILLED, START_ERROR, LOST = "Completed", "Error", "OOMKilled", "StartError", "Unknown"
START_ERROR_CODE, LOST_CODE = 128, 255
_SIGKILL_CODE = 137

Key = tuple[str, ...]


class _Told:
    """What the status of a pod says as that of a container does."""

    __slots__ = ()
    status: cri.PodSandboxStatus | cri.ContainerStatus

    @property
    def labels(self) -> Mapping[str, str]:
        """For filters."""
        return self.status.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """Somebody's."""
        return self.status.annotations

    @property
    def created_at(self) -> int:
        """Nanoseconds."""
        return self.status.created_at


@dataclass(slots=True, eq=False)
class Sandbox(_Told):
    """A pod. Times are nanoseconds since the epoch.

    namespaces: paths by kind (network, ipc, uts, user), of those that are its own; files: paths by what they are (hosts, …)
    interface: the one that has its addresses; hostname: its name; cgroup: controller to directory, empty where it has none alone
    boot_id: of the boot in which it was ready; stopped: whether all that it had was given back
    reached: the generation of the network helper through which the paths lead
    made: directories of cgroups that were made for it; updated: what `overhead` and `resources` were changed to, in hexadecimal
    """

    id: str
    config: cri.PodSandboxConfig
    status: cri.PodSandboxStatus
    phase: str = CREATING
    namespaces: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    interface: str = ""
    hostname: str = ""
    boot_id: str = ""
    stopped: bool = False
    cgroup: Mapping[str, str] = field(default_factory=dict)
    reached: int = 0
    made: list[str] = field(default_factory=list)
    updated: str = ""
    item: cri.PodSandbox = field(default_factory=cri.PodSandbox)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.refresh()

    @property
    def key(self) -> Key:
        """What names it for callers: no two pods have the same."""
        return pod_key(self.config.metadata)

    @property
    def metadata(self) -> cri.PodSandboxMetadata:
        """Name, uid, namespace, attempt."""
        return self.status.metadata

    @property
    def is_ready(self) -> bool:
        """Whether containers can be made in it."""
        return self.status.state == cri.SANDBOX_READY

    @property
    def netns(self) -> str:
        """The path of its network namespace, "" for the node's."""
        return self.namespaces.get("network", "")

    @property
    def limits(self) -> cri.UpdatePodSandboxResourcesRequest:
        """Its `overhead` and `resources`, as they were given or changed since."""
        if self.updated:
            return cri.UpdatePodSandboxResourcesRequest.FromString(bytes.fromhex(self.updated))
        linux = self.config.linux
        return cri.UpdatePodSandboxResourcesRequest(overhead=linux.overhead, resources=linux.resources)

    def refresh(self) -> None:
        """After a change of the status: what lists say of it."""
        of = self.status
        self.item = cri.PodSandbox(
            id=self.id,
            metadata=of.metadata,
            state=of.state,
            created_at=of.created_at,
            labels=of.labels,
            annotations=of.annotations,
            runtime_handler=of.runtime_handler,
        )

    def more(self) -> str:
        """What neither status nor configuration say, for the disk."""
        names = ("namespaces", "files", "interface", "hostname", "boot_id", "stopped", "made", "updated")
        return json.dumps({name: getattr(self, name) for name in names})


@dataclass(slots=True, eq=False)
class Container(_Told):
    """A container.

    process: the process.json that an exec begins with; stop_signal: as kill(2) takes it; started: whether its program ever ran
    pid: of its init, 0 if there is none; boot_id: of the boot that it belongs to
    exited: set once it does not run any more; locate: finds the cgroup of an id, which `found` then is
    """

    id: str
    pod_id: str
    config: cri.ContainerConfig
    status: cri.ContainerStatus
    phase: str = CREATING
    process: dict[str, Any] = field(default_factory=dict)
    stop_signal: int = 15
    pid: int = 0
    boot_id: str = ""
    locate: Callable[[str], Mapping[str, str]] | None = None
    found: Mapping[str, str] | None = None
    item: cri.Container = field(default_factory=cri.Container)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.refresh()

    @property
    def key(self) -> Key:
        """What names it for callers: no two containers have the same."""
        return container_key(self.pod_id, self.config.metadata)

    @property
    def metadata(self) -> cri.ContainerMetadata:
        """Name and attempt."""
        return self.status.metadata

    @property
    def state(self) -> int:
        """One of the CRI's four."""
        return self.status.state

    @property
    def is_running(self) -> bool:
        """Whether its program runs."""
        return self.status.state == cri.CONTAINER_RUNNING

    def need_running(self, hint: str) -> None:
        """Raise Error("state") if its program does not run."""
        if not self.is_running:
            word = cri.ContainerState.Name(self.status.state).removeprefix("CONTAINER_").lower()
            raise Error("state", f"the container is {word}", subject=self.id, hint=hint)

    @property
    def cgroup(self) -> Mapping[str, str]:
        """Controller to directory, as the runtime's record has it. It reads that once: for a thread."""
        if self.found is None and self.locate is not None:
            self.found = self.locate(self.id)
        return self.found or {}

    @property
    def image(self) -> str:
        """A name of its image."""
        return self.status.image.image

    @property
    def started_at(self) -> int:
        """Nanoseconds, 0: not yet."""
        return self.status.started_at

    @property
    def limits(self) -> cri.LinuxContainerResources:
        """Those that are in force."""
        return self.status.resources.linux

    def refresh(self) -> None:
        """After a change of the status: what lists say of it."""
        of = self.status
        self.item = cri.Container(
            id=self.id,
            pod_sandbox_id=self.pod_id,
            metadata=of.metadata,
            image=self.config.image,
            image_ref=of.image_id,
            state=of.state,
            created_at=of.created_at,
            labels=of.labels,
            annotations=of.annotations,
            image_id=of.image_id,
        )
        if of.state in (cri.CONTAINER_EXITED, cri.CONTAINER_UNKNOWN):
            self.exited.set()

    def set_started(self, pid: int, at: int) -> None:
        """Its program runs. Times are in their order, also where the clock has jumped."""
        self.pid = pid
        self.status.state = cri.CONTAINER_RUNNING
        self.status.started_at = max(at, self.status.created_at)
        self.refresh()

    def set_ended(self, code: int, at: int, *, oom_killed: bool = False, reason: str = "", message: str = "") -> None:
        """It does not run any more, or could not be started. reason: if it is not what code and oom_killed say."""
        self.pid = 0
        of = self.status
        of.state = cri.CONTAINER_EXITED
        of.finished_at = max(at, of.started_at)
        of.exit_code = code
        of.reason = reason or (OOM_KILLED if oom_killed and code == _SIGKILL_CODE else ERROR if code else COMPLETED)
        of.message = message
        self.refresh()

    def more(self) -> str:
        """What neither status nor configuration say, for the disk."""
        return json.dumps({name: getattr(self, name) for name in ("process", "stop_signal", "pid", "boot_id")})


def pod_key(metadata: cri.PodSandboxMetadata) -> Key:
    """Of a pod with this metadata."""
    return (metadata.namespace, metadata.name, metadata.uid, str(metadata.attempt))


def container_key(pod_id: str, metadata: cri.ContainerMetadata) -> Key:
    """Of a container with this metadata in a pod."""
    return (pod_id, metadata.name, str(metadata.attempt))
