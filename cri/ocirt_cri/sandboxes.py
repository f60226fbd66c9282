"""The life of a pod: made, stopped, removed. A pod has no process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any

from ocirt.errors import Error
from ocirt.spans import Span
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import events, files, logs, model, podcgroup
from ocirt_cri.model import Sandbox
from ocirt_cri.node import find
from ocirt_cri.operations import refuse_other
from ocirt_cri.spec import pod as wants
from ocirt_cri.spec import podresources, resources

if TYPE_CHECKING:
    from ocirt_cri.containers import Containers
    from ocirt_cri.node import Node
    from ocirt_cri.spec.pod import PodWants

_ID = 32  # bytes
_log = logging.getLogger(__name__)


class Sandboxes:
    """What is done to pods."""

    def __init__(self, node: Node, containers: Containers) -> None:
        self._node = node
        self._containers = containers
        self._watches: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Look at none of them any more. They go on."""
        for task in self._watches:
            task.cancel()

    async def run(self, request: cri.RunPodSandboxRequest) -> str:
        """The id of the pod that a request means: of a new one, or of the one that an earlier attempt has made. Raises Error."""
        node = self._node
        settings = node.config_of(request.runtime_handler).settings()
        host = await node.host_of(request.runtime_handler)
        wanted = wants.pod_of(request.config, request.runtime_handler, host, settings)
        capabilities_of(request.config)
        key = model.pod_key(request.config.metadata)
        known = node.pod_of_key(key)
        if known is not None:
            had = cri.RunPodSandboxRequest(config=known.config, runtime_handler=known.status.runtime_handler)
            refuse_other("pod", had, request)
            if not known.is_ready:
                raise Error("exists", "this pod was stopped", subject=known.id, hint="remove it, or run another attempt")
            return known.id
        return await node.operations.run(("pod", key), lambda: self._make(request, wanted), request)

    async def _make(self, request: cri.RunPodSandboxRequest, wanted: PodWants) -> str:
        node = self._node
        config = request.config
        sandbox = Sandbox(
            secrets.token_hex(_ID),
            config,
            cri.PodSandboxStatus(
                metadata=config.metadata,
                state=cri.SANDBOX_NOTREADY,
                created_at=time.time_ns(),
                labels=config.labels,
                annotations=config.annotations,
                runtime_handler=request.runtime_handler,
            ),
            hostname=wanted.hostname,
            boot_id=node.boot_id,
        )
        node.spares.expect()
        sandbox.status.id = sandbox.id
        sandbox.status.linux.namespaces.options.CopyFrom(config.linux.security_context.namespace_options)
        sandbox.cgroup = podcgroup.of(sandbox, node.settings)
        sandbox.made = podcgroup.missing(sandbox.cgroup, node.settings)
        await node.store.put(sandbox)
        try:
            # At the same time; who fails does not leave the other half-way.
            parts = (self._files(sandbox, wanted), self._network(sandbox, wanted), self._cgroup(sandbox, wanted))
            made = await asyncio.gather(*parts, return_exceptions=True)
            for one in made:
                if isinstance(one, BaseException):
                    raise one
            await node.nri.run_pod(sandbox)
            sandbox.phase = model.MADE
            sandbox.status.state = cri.SANDBOX_READY
            sandbox.refresh()
            await node.store.put(sandbox)
        except BaseException:
            await self._undo(sandbox)
            raise
        node.add(sandbox)
        await node.nri.ran_pod(sandbox)
        self.watch(sandbox)
        for kind in (events.CREATED, events.STARTED):
            node.tell(kind, sandbox.id, sandbox)
        _log.info("pod %s runs: %s/%s", sandbox.id, config.metadata.namespace, config.metadata.name, extra=logs.of_pod(sandbox))
        return sandbox.id

    async def _files(self, sandbox: Sandbox, wanted: PodWants) -> None:
        directory = self._node.pod_directory(sandbox.id)

        def make() -> dict[str, str]:
            made = files.make(directory, sandbox.config, wanted.hostname, wanted.owner)
            if sandbox.config.log_directory:
                os.makedirs(sandbox.config.log_directory, 0o755, exist_ok=True)
            return made

        with Span("daemon", "files"):
            sandbox.files = await asyncio.to_thread(make)

    async def _cgroup(self, sandbox: Sandbox, wanted: PodWants) -> None:
        if sandbox.made:
            try:
                with Span("daemon", "cgroup"):
                    sandbox.made = await asyncio.to_thread(podcgroup.make, dict(sandbox.cgroup), wanted.resources)
            except Error as err:
                raise _named(err, "config.linux.resources") from None

    async def _network(self, sandbox: Sandbox, wanted: PodWants) -> None:
        if not (wanted.network or wanted.ipc or wanted.uts or wanted.pid or wanted.ids):
            return
        made = await self._node.networks.up(request_of(self._node, sandbox, wanted))
        sandbox.reached = self._node.networks.generation
        sandbox.namespaces = {kind: str(path) for kind, path in made.get("namespaces", {}).items()}
        if made.get("shm"):
            sandbox.files["shm"] = str(made["shm"])
        ips = [str(ip) for ip in made.get("ips", [])]
        sandbox.interface = str(made.get("interface", ""))
        if ips:
            sandbox.status.network.ip = ips[0]
            sandbox.status.network.additional_ips.extend(cri.PodIP(ip=ip) for ip in ips[1:])

    def watch(self, sandbox: Sandbox) -> None:
        """A pod that shares a PID namespace is ready for as long as the init of that lives."""
        init = sandbox.namespaces.get("pid", "").removeprefix("/proc/").partition("/")[0]
        if not init.isdecimal():
            return
        task = asyncio.create_task(self._watch(sandbox, int(init)), name=f"init of pod {sandbox.id}")
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch(self, sandbox: Sandbox, init: int) -> None:
        try:
            fd = os.pidfd_open(init)
        except ProcessLookupError:
            pass
        else:
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(fd, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(fd)
                os.close(fd)
        if sandbox.is_ready and sandbox.phase == model.MADE:
            _log.warning("pod %s is not ready: the init of its PID namespace has ended", sandbox.id, extra=logs.of_pod(sandbox))
            await self.failed(sandbox)

    async def failed(self, sandbox: Sandbox) -> None:
        """It is not ready any more, without having been stopped."""
        await self.not_ready(sandbox)
        self._node.tell(events.STOPPED, sandbox.id, sandbox)

    async def not_ready(self, sandbox: Sandbox) -> None:
        """No container is made in it from now on."""
        sandbox.status.state = cri.SANDBOX_NOTREADY
        sandbox.refresh()
        await self._node.store.note(sandbox)

    async def stop(self, identifier: str) -> None:
        """Stop a pod's containers at once and give back what it has. No error for one that is stopped, or not there."""
        sandbox = find(self._node.sandboxes, identifier, "pod_sandbox_id")
        if sandbox is not None:
            await self._node.operations.run(("stop of pod", sandbox.id), lambda: self._stop(sandbox))

    async def _stop(self, sandbox: Sandbox) -> None:
        node = self._node
        async with sandbox.lock:
            if sandbox.stopped:
                return
            stops = [self._containers.stop(one, 0) for one in node.containers_of(sandbox.id)]
            await asyncio.gather(*([self.not_ready(sandbox)] if sandbox.is_ready else []), *stops)
            await node.nri.stopped_pod(sandbox)
            if not is_plain(sandbox):
                await node.networks.down(request_of(node, sandbox))
            sandbox.stopped = True
            await node.store.note(sandbox)
        node.tell(events.STOPPED, sandbox.id, sandbox)
        _log.info("pod %s was stopped", sandbox.id, extra=logs.of_pod(sandbox))

    async def remove(self, identifier: str) -> None:
        """Remove a pod with its containers, whether or not they run. No error for one that is not there."""
        sandbox = find(self._node.sandboxes, identifier, "pod_sandbox_id")
        if sandbox is not None:
            await self._node.operations.run(("removal of pod", sandbox.id), lambda: self._remove(sandbox))

    async def _remove(self, sandbox: Sandbox) -> None:
        node = self._node
        await self._stop(sandbox)
        await asyncio.gather(*(self._containers.remove(one.id) for one in node.containers_of(sandbox.id)))
        async with sandbox.lock:
            sandbox.phase = model.REMOVING
            await node.store.note(sandbox)
            await node.reserve.spend(lambda: self._leave_nothing(sandbox))
        node.drop(sandbox)
        await node.nri.removed_pod(sandbox)
        node.tell(events.DELETED, sandbox.id, sandbox)
        _log.info("pod %s was removed", sandbox.id, extra=logs.of_pod(sandbox))

    async def _undo(self, sandbox: Sandbox) -> None:
        await self._node.nri.removed_pod(sandbox)
        try:
            await self.discard(sandbox)
        except Exception as err:  # noqa: BLE001  (the first failure is the one to tell; its row stays, and a start undoes it)
            _log.error(
                "pod %s was not made, and not all of it could be taken back: %s", sandbox.id, err, extra=logs.of_pod(sandbox)
            )

    async def discard(self, sandbox: Sandbox) -> None:
        """Leave nothing of a pod that nobody has been told of, or that is being removed. Raises Error, OSError."""
        await self._node.reserve.spend(lambda: self._discard(sandbox))

    async def _discard(self, sandbox: Sandbox) -> None:
        node = self._node
        if not is_plain(sandbox):
            await node.networks.down(request_of(node, sandbox))
        await self._leave_nothing(sandbox)

    async def _leave_nothing(self, sandbox: Sandbox) -> None:
        """Of what is left when its network is gone."""
        directory = self._node.pod_directory(sandbox.id)

        def remove() -> None:
            files.remove(directory)
            podcgroup.remove(sandbox.made)

        await asyncio.to_thread(remove)
        await self._node.store.delete(sandbox)

    # -- while it is there --

    async def update(self, request: cri.UpdatePodSandboxResourcesRequest) -> None:
        """Other limits: in force where the pod's cgroup was made here, written down where it is the kubelet's. Raises Error."""
        node = self._node
        sandbox = node.pod(request.pod_sandbox_id)
        podresources.of_pod(request.overhead, request.resources, node.host, "")
        await node.nri.update_pod(sandbox, request.overhead, request.resources)
        async with sandbox.lock:
            if not sandbox.is_ready:
                raise Error("state", "the pod was stopped", subject=sandbox.id)
            limits = sandbox.limits
            for name in ("overhead", "resources"):
                if request.HasField(name):
                    getattr(limits, name).CopyFrom(resources.changed(getattr(limits, name), getattr(request, name)))
            wanted = podresources.of_pod(limits.overhead, limits.resources, node.host, "")
            if sandbox.made:
                try:
                    await asyncio.to_thread(podcgroup.update, dict(sandbox.cgroup), wanted)
                except Error as err:
                    raise _named(err, "resources") from None
            sandbox.updated = limits.SerializeToString().hex()
            await node.store.put(sandbox)
        await node.nri.updated_pod(sandbox)
        _log.info("the limits of pod %s were changed", sandbox.id)


def _named(err: Error, field: str) -> Error:
    """An error of limits, with CRI's name of what it is about."""
    if err.subject.startswith("/"):
        err.subject = resources.place(err.subject, field)
    return err


def is_plain(sandbox: Sandbox) -> bool:
    """Whether all its namespaces are the node's, or its containers' own, so that the helper has nothing to do with it."""
    options = sandbox.config.linux.security_context.namespace_options
    return (
        options.network == options.ipc == cri.NODE
        and options.pid != cri.POD
        and not (options.HasField("userns_options") and options.userns_options.mode == cri.POD)
    )


def request_of(node: Node, sandbox: Sandbox, wanted: PodWants | None = None) -> dict[str, Any]:
    """What the network helper is told of a pod. Without `wanted` it is to take something back."""
    metadata = sandbox.config.metadata
    options = sandbox.config.linux.security_context.namespace_options
    network = options.network != cri.NODE
    found: dict[str, Any] = {
        "pod": sandbox.id,
        "directory": node.pod_directory(sandbox.id),
        "netns": (sandbox.netns or node.netns(sandbox.id)) if network else "",
        "seconds": node.config["network.timeout"],
        "cni": {
            **node.cni(),
            "args": {
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": metadata.namespace,
                "K8S_POD_NAME": metadata.name,
                "K8S_POD_INFRA_CONTAINER_ID": sandbox.id,
                "K8S_POD_UID": metadata.uid,
            },
            "capabilities": capabilities_of(sandbox.config),
        },
    }
    if wanted is not None:
        ids = wanted.ids.documents() if wanted.ids is not None else ([], [])
        found |= {
            "journal": node.store.journal,
            "ipc": wanted.ipc,
            "uts": wanted.uts,
            "pid": wanted.pid,
            "hostname": wanted.hostname,
            "shm_size": wanted.shm_size,
            "sysctls": wanted.sysctls,
            "uid_mappings": ids[0],
            "gid_mappings": ids[1],
        }
    return found


def capabilities_of(config: cri.PodSandboxConfig) -> dict[str, Any]:
    """CNI's runtimeConfig of a pod: what it wants of plugins that say they can do it."""
    found: dict[str, Any] = {}
    mappings = [
        {
            "hostPort": one.host_port,
            "containerPort": one.container_port,
            "protocol": cri.Protocol.Name(one.protocol).lower(),
            "hostIP": one.host_ip,
        }
        for one in config.port_mappings
        if one.host_port
    ]
    if mappings:
        found["portMappings"] = mappings
    if config.HasField("dns_config"):
        dns = config.dns_config
        found["dns"] = {"servers": list(dns.servers), "searches": list(dns.searches), "options": list(dns.options)}
    if bandwidth := _bandwidth(config):
        found["bandwidth"] = bandwidth
    return found


def _bandwidth(config: cri.PodSandboxConfig) -> dict[str, int]:
    """Of the kubelet's two annotations, in bits a second."""
    found: dict[str, int] = {}
    for word in ("ingress", "egress"):
        text = config.annotations.get(f"kubernetes.io/{word}-bandwidth", "")
        if text:
            rate = quantity(text, f'config.annotations["kubernetes.io/{word}-bandwidth"]')
            found |= {f"{word}Rate": rate, f"{word}Burst": (1 << 31) - 1}
    return found


_UNITS = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


def quantity(text: str, field: str) -> int:
    """A quantity as Kubernetes writes it. Raises Error("invalid")."""
    digits = text.rstrip("kKMGTi")
    unit = _UNITS.get(text[len(digits) :])
    if unit is None or not digits.isascii() or not digits.isdecimal():
        raise Error("invalid", f"{text[:80]!r} is no rate", subject=field, hint="such as 10M")
    return int(digits) * unit
