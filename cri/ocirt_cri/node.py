"""What the daemon has: its parts, its pods and containers, and how these are found."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ocirt import state
from ocirt.errors import Error
from ocirt_api.messages import shim as messages
from ocirt_cri import leftovers, model
from ocirt_cri.events import Events
from ocirt_cri.executors import Executor, Executors
from ocirt_cri.model import Container, Key, Sandbox
from ocirt_cri.nri.hooks import Hooks
from ocirt_cri.operations import Operations
from ocirt_cri.reserve import Reserve
from ocirt_cri.runtimes import Runtimes
from ocirt_cri.shims import Shim, connected, pass_on
from ocirt_cri.spares import Spares
from ocirt_shim import record as shim_record
from ocirt_shim.execs import prefix

if TYPE_CHECKING:
    from ocirt_api.cri import api_pb2 as cri
    from ocirt_cri.config import Config
    from ocirt_cri.images.images import Images
    from ocirt_cri.networks import Networks
    from ocirt_cri.rootfs import Roots
    from ocirt_cri.spec.inputs import Host, Settings
    from ocirt_cri.stats.layers import LayerUsage
    from ocirt_cri.store import Store
    from ocirt_cri.volumes import Volumes
    from ocirt_cri.zygote import Zygote

T = TypeVar("T", Sandbox, Container)
_SHARED_WITHIN = 2.0  # seconds; a process that hangs is left alone
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Node:
    """The daemon's parts. It is the context of all services, and the source of statistics.

    instance: a word that other daemons on this machine do not have, in all that is made
    pod_cidr: the ranges of pods' addresses that the kubelet has named last
    reserve: what removals may use of a disk that is full
    recovered: set once what an earlier process has left is known
    """

    config: Config
    host: Host
    boot_id: str
    instance: str
    store: Store
    images: Images
    roots: Roots
    volumes: Volumes
    layers: LayerUsage
    zygote: Zygote
    networks: Networks
    operations: Operations = field(default_factory=Operations)
    events: Events = field(default_factory=Events)
    pod_cidr: str = ""
    reserve: Reserve = field(default_factory=Reserve)
    runtimes: Runtimes = field(default_factory=Runtimes)
    nri: Hooks = field(default_factory=Hooks)
    recovered: asyncio.Event = field(default_factory=asyncio.Event)
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    all_containers: dict[str, Container] = field(default_factory=dict)
    shims: dict[str, Shim] = field(default_factory=dict)
    spares: Spares = field(init=False)
    executors: Executors = field(init=False)
    _pod_keys: dict[Key, Sandbox] = field(default_factory=dict)
    _container_keys: dict[Key, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spares = Spares(self.fork_shim)
        self.executors = Executors(self._fork_executor, self._clean)

    async def _fork_executor(self) -> Executor:
        connection, pid = await self.zygote.ask({"do": "executor", "runtime": self.runtime})
        return Executor(await connected("", connection), pid)

    async def _clean(self, container_id: str, executor: int) -> None:
        try:
            await asyncio.to_thread(lambda: leftovers.kill_programs(self.locate(container_id), prefix(executor)))
        except (Error, OSError) as err:
            _log.warning("container %s: what an executor ran in it goes on: %s", container_id, err)

    async def fork_shim(self, container_id: str = "", command: Sequence[str] = ()) -> Shim:
        """A shim for a container, or without one yet. command: of the other runtime that is to make it. Raises Error."""
        asked: dict[str, Any] = {"do": "shim", "runtime": self.runtime, "instance": self.instance}
        if container_id:
            asked |= {"id": container_id, "state": self.shim_directory(container_id), "command": command}
        connection, _ = await self.zygote.ask(asked)
        return await connected(container_id, connection)

    async def share_shim(self, container_id: str, pod_id: str) -> Shim | None:
        """A shim for one more container of a pod, in the process of another one's; None if that cannot be.

        Each process has 1.5 MiB of its own (docs/decisions/0003).
        """
        for other in self.containers_of(pod_id):
            shim = self.shims.get(other.id)
            if shim is None or not shim.is_connected or other.phase != model.MADE:
                continue
            mine, theirs = socket.socketpair()
            with theirs:
                try:
                    async with asyncio.timeout(_SHARED_WITHIN):
                        directory = self.shim_directory(other.id)
                        await pass_on(other.id, directory, "Share", messages.StateRequest(), theirs.fileno())
                except (Error, OSError, TimeoutError) as err:  # it is about to end, or of a release that shared nothing
                    mine.close()
                    _log.debug("container %s: no place in the process of another's shim: %s", container_id, err)
                    return None
            return await connected(container_id, mine)
        return None

    @property
    def settings(self) -> Settings:
        """What containers get."""
        return self.config.settings()

    def config_of(self, handler: str) -> Config:
        """What is in force for the pods of a runtime handler."""
        return self.config.of_handler(handler)

    @property
    def source(self) -> Node:
        """Of statistics."""
        return self

    @property
    def directory(self) -> str:
        """Of what does not survive a reboot."""
        return str(self.config["state"])

    @property
    def runtime(self) -> str:
        """The state root of the runtime's library."""
        return os.path.join(self.directory, "runtime")

    def shim_directory(self, container_id: str) -> str:
        """Where a shim has its socket and its record."""
        return os.path.join(self.directory, "shims", container_id)

    def pod_directory(self, pod_id: str) -> str:
        """Where a pod has its files."""
        return os.path.join(self.directory, "pods", pod_id)

    def container_directory(self, container_id: str) -> str:
        """Where a container has what its image's volumes hold."""
        return os.path.join(self.config["root"], "containers", container_id)

    @property
    def netns_prefix(self) -> str:
        """What the names of all network namespaces of this daemon begin with."""
        return f"ocirt-{self.instance}-"

    def netns(self, pod_id: str) -> str:
        """Where a pod's network namespace is bound."""
        return os.path.join(self.config["netns_dir"], self.netns_prefix + pod_id[:32])

    def cni(self) -> dict[str, Any]:
        """What the network helper is told of networks, for all pods."""
        return {**self.config.cni(), "pod_cidr": self.pod_cidr}

    # Pods and containers, from memory.

    def pods(self) -> Iterable[Sandbox]:
        """All of them."""
        return list(self.sandboxes.values())

    def containers(self) -> Iterable[Container]:
        """All of them."""
        return list(self.all_containers.values())

    def containers_of(self, pod_id: str) -> list[Container]:
        """Those of a pod."""
        return [one for one in self.all_containers.values() if one.pod_id == pod_id]

    def add(self, one: Sandbox | Container) -> None:
        """From now on it is there."""
        if isinstance(one, Sandbox):
            self.sandboxes[one.id] = self._pod_keys[one.key] = one
        else:
            one.locate = self.locate
            self.all_containers[one.id] = self._container_keys[one.key] = one

    def locate(self, container_id: str) -> Mapping[str, str]:
        """A container's cgroup, controller to directory; empty if there is none. It reads the runtime's record: for a thread."""
        try:
            record = state.load(self.runtime, container_id)
        except (Error, OSError):
            found: Mapping[str, str] = self._shim_record(container_id).get("cgroup", {})  # of a runtime that is not ours
            return found
        paths: Mapping[str, str] = record["cgroup"].get("paths", {})
        return paths

    def _shim_record(self, container_id: str) -> dict[str, Any]:
        try:
            return shim_record.load(self.shim_directory(container_id))
        except (Error, OSError):
            return {}

    def is_ours(self, container_id: str) -> bool:
        """Whether our own runtime has made it."""
        return os.path.isdir(os.path.join(self.runtime, container_id))

    def delete_by_force(self, container_id: str) -> None:
        """Kill a container whose shim is gone, and remove what the runtime knows of it. For a thread. Raises Error."""
        leftovers.delete_by_force(self.runtime, container_id)
        command = self._shim_record(container_id).get("command")
        if command:
            leftovers.delete_by_command(command, container_id)

    async def host_of(self, handler: str) -> Host:
        """The machine, as far as the runtime of a handler makes use of it. Raises Error if that is not there."""
        command = self.config.command(handler)
        return (await self.runtimes.features(command[0])).host(self.host) if command else self.host

    def drop(self, one: Sandbox | Container) -> None:
        """It is not there any more."""
        if isinstance(one, Sandbox):
            self.sandboxes.pop(one.id, None)
            if self._pod_keys.get(one.key) is one:
                del self._pod_keys[one.key]
        else:
            self.all_containers.pop(one.id, None)
            if self._container_keys.get(one.key) is one:
                del self._container_keys[one.key]

    def tell(self, kind: cri.ContainerEventType.ValueType, identifier: str, sandbox: Sandbox | None) -> None:
        """Something happened to a container of a pod, or to the pod: listeners are told, with all of the pod as it is now."""
        self.events.tell(kind, identifier, sandbox, () if sandbox is None else self.containers_of(sandbox.id))

    def pod_of_key(self, key: Key) -> Sandbox | None:
        """The pod with this metadata."""
        return self._pod_keys.get(key)

    def container_of_key(self, key: Key) -> Container | None:
        """The container with this metadata."""
        return self._container_keys.get(key)

    def pod(self, identifier: str, field: str = "pod_sandbox_id") -> Sandbox:
        """The pod with this id, or the only one whose id begins so. Raises Error("invalid", "not-found")."""
        found = find(self.sandboxes, identifier, field)
        if found is None:
            raise Error("not-found", f"no pod sandbox {identifier[:80]!r}", subject=field)
        return found

    def container(self, identifier: str, field: str = "container_id") -> Container:
        """The container with this id, or the only one whose id begins so. Raises Error("invalid", "not-found")."""
        found = find(self.all_containers, identifier, field)
        if found is None:
            raise Error("not-found", f"no container {identifier[:80]!r}", subject=field)
        return found


def find(known: Mapping[str, T], identifier: str, field: str) -> T | None:
    """The one with this id, or the only one whose id begins so; None if there is none. Raises Error("invalid")."""
    if not identifier:
        raise Error("invalid", "is missing", subject=field, hint="an id, or the beginning of one")
    if identifier in known:
        return known[identifier]
    found = [one for name, one in known.items() if name.startswith(identifier)]
    if len(found) > 1:
        raise Error("invalid", f"{len(found)} ids begin with {identifier[:80]!r}", subject=field, hint="more of its digits")
    return found[0] if found else None


def has_labels(one: Sandbox | Container, wanted: Mapping[str, str]) -> bool:
    """Whether it has all these labels."""
    return all(one.labels.get(name) == value for name, value in wanted.items())
