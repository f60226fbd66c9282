"""What a fresh ocirtd makes of what an earlier one has left.

It may have died at any instruction. Its rows say what it had made and what it was about to make; the shims say what became of the
containers meanwhile. What was half made or half removed is taken away, and so is what is ours and has no row. Nothing else is
touched: it is looked for in this daemon's own directories only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages import shim as messages
from ocirt_cri import events, files, logs, model, podcgroup
from ocirt_cri.leftovers import delete_by_force, remove_container, remove_tree
from ocirt_cri.model import Container, Sandbox
from ocirt_cri.sandboxes import is_plain, request_of
from ocirt_cri.shims import LostError, connect
from ocirt_shim import record

if TYPE_CHECKING:
    from ocirt_cri.checkpoint.checkpoints import Checkpoints
    from ocirt_cri.containers import Containers
    from ocirt_cri.node import Node
    from ocirt_cri.sandboxes import Sandboxes

_REBOOTED = "the machine was started anew"
_SOON, _LATE = 1.0, 10.0  # seconds between two tries to reach a shim: at first, and at most
_log = logging.getLogger(__name__)


class Recovery:
    """One look at everything. `load` is quick; `run` asks shims, all at the same time.

    A shim that lives and does not answer is asked again, until `close`: its container stays as its row says.
    """

    def __init__(self, node: Node, sandboxes: Sandboxes, containers: Containers, checkpoints: Checkpoints) -> None:
        self._node = node
        self._sandboxes = sandboxes
        self._containers = containers
        self._checkpoints = checkpoints
        self._half_pods: list[Sandbox] = []
        self._half_containers: list[Container] = []
        self._later: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Ask no shim again. They and their containers go on."""
        for task in self._later:
            task.cancel()

    def load(self) -> None:
        """Read the rows. Raises sqlite3.Error."""
        node = self._node
        for pod in node.store.sandboxes():
            if pod.phase == model.MADE:
                pod.cgroup = self._cgroup(pod)
                node.add(pod)
            else:
                self._half_pods.append(pod)
        for container in node.store.containers():
            if container.phase == model.MADE:
                node.add(container)
            else:
                self._half_containers.append(container)

    def _cgroup(self, pod: Sandbox) -> dict[str, str]:
        """Empty if what is configured now does not go with what the pod was made with: it goes on, without its numbers."""
        try:
            return podcgroup.of(pod, self._node.settings)
        except (Error, OSError) as err:
            _log.error("pod %s: its cgroup is not known: %s", pod.id, err, extra=logs.of_pod(pod))
            return {}

    async def run(self) -> None:
        """Find containers again, and take away what is half or nobody's. What cannot be taken away now is logged, and stays."""
        start = time.monotonic()
        node = self._node
        written = [one.id for one in (*node.containers(), *self._half_containers)]
        await _tried(asyncio.to_thread(self._checkpoints.clear, written), "checkpoints")
        await asyncio.gather(*(_tried(self._container(one), one.id) for one in node.containers()))
        await asyncio.gather(*(_tried(self._containers.discard(one), one.id) for one in self._half_containers))
        await asyncio.gather(*(_tried(self._pod(one), one.id) for one in node.pods()))
        for pod in self._half_pods:
            await _tried(self._half_pod(pod), pod.id)
        await _tried(self._orphans(), "what has no row")
        await _tried(node.nri.begin(), "NRI")
        node.recovered.set()
        _log.info(
            "%d pods and %d containers were found again in %.2f s",
            len(node.sandboxes),
            len(node.all_containers),
            time.monotonic() - start,
        )

    async def _container(self, container: Container) -> None:
        if container.exited.is_set():
            return
        node = self._node
        if container.boot_id != node.boot_id:
            container.set_ended(model.LOST_CODE, time.time_ns(), reason=model.LOST, message=_REBOOTED)
            await node.store.note(container)
            return
        if not await self._asked(container):
            task = asyncio.create_task(_tried(self._until_asked(container), container.id), name=f"shim of {container.id}")
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _until_asked(self, container: Container) -> None:
        """Try again until its shim answers, or is certainly gone, or nobody wants to know any more."""
        pause = _SOON
        while True:
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATE)
            if container.exited.is_set() or container.phase == model.REMOVING or await self._asked(container):
                return

    async def _asked(self, container: Container) -> bool:
        """Whether it is known what became of a container: its shim has said it, or is gone, and so is the container now."""
        seconds = float(self._node.config["limits.recovery"])
        try:
            async with asyncio.timeout(seconds):
                shim = await self._containers.shim(container)
            found = await shim.call("State", messages.StateRequest(), messages.StateResponse, seconds)
        except (Error, OSError, TimeoutError) as err:
            if await asyncio.to_thread(is_gone, self._node.shim_directory(container.id), err):
                await self._containers.lost(container, err)
                return True
            what = f"no answer within {seconds:g} s" if isinstance(err, TimeoutError) else str(err)
            _log.warning("container %s: its shim is asked again: %s", container.id, what, extra=logs.of_container(container))
            return False
        self._containers.watch(container, shim)
        async with container.lock:  # it may be being started, or written down, if this is not the first try
            if found.status in (messages.RUNNING, messages.PAUSED) and container.state == cri.CONTAINER_CREATED:
                container.set_started(found.pid, found.started_at)
                self._node.tell(events.STARTED, container.id, self._node.sandboxes.get(container.pod_id))
                await self._node.store.note(container)
        if found.status in (messages.RUNNING, messages.PAUSED):
            await self._checkpoints.recover(container)
        if found.status == messages.STOPPED:
            await self._containers.ended(container, found)
        return True

    async def _pod(self, sandbox: Sandbox) -> None:
        node = self._node
        rebooted = sandbox.boot_id != node.boot_id
        gone = bool(sandbox.netns) and not await asyncio.to_thread(os.path.exists, sandbox.netns)
        if sandbox.is_ready and (rebooted or gone):
            await self._sandboxes.failed(sandbox)
            why = _REBOOTED if rebooted else f"{sandbox.netns} is gone"
            _log.warning("pod %s is not ready: %s", sandbox.id, why, extra=logs.of_pod(sandbox))
        if sandbox.is_ready and sandbox.namespaces.get("pid"):
            found = await node.networks.paths(request_of(node, sandbox))
            sandbox.reached = node.networks.generation
            sandbox.namespaces = {kind: str(path) for kind, path in found["namespaces"].items()}
            if sandbox.namespaces.get("pid"):
                self._sandboxes.watch(sandbox)
            else:
                await self._sandboxes.failed(sandbox)
        if rebooted and not sandbox.stopped and not is_plain(sandbox):
            # Namespaces are gone; addresses of networks are files.
            await node.networks.down(request_of(node, sandbox))

    async def _half_pod(self, sandbox: Sandbox) -> None:
        """One that was being made, which nobody was told of, or one that was being removed."""
        for one in self._node.containers_of(sandbox.id):
            await self._containers.remove(one.id)
        await self._sandboxes.discard(sandbox)

    async def _orphans(self) -> None:
        node = self._node
        known = set(node.all_containers)
        for name in await asyncio.to_thread(_names, os.path.join(node.directory, "shims")):
            if name not in known:
                await _tried(self._orphan(name), name)
        for name in await asyncio.to_thread(_names, node.runtime):
            if name not in known:
                _log.info("removing container %s, which no row knows", name, extra={"container": name})
                await _tried(asyncio.to_thread(delete_by_force, node.runtime, name), name)
        for name in await asyncio.to_thread(_names, os.path.join(node.config["root"], "containers")):
            if name not in known:
                await _tried(asyncio.to_thread(remove_container, node.container_directory(name)), name)
        for name in await asyncio.to_thread(_names, os.path.join(node.directory, "pods")):
            if name not in node.sandboxes:
                await _tried(self._nobodys_pod(name), name)
        await _tried(self._strays(), "networks of pods that no row knows")
        await node.roots.reconcile(known)
        await node.volumes.reconcile()

    async def _nobodys_pod(self, name: str) -> None:
        """The directory of a pod that no row knows, and what its id leads to."""
        node = self._node
        seconds = node.config["network.timeout"]
        directory = node.pod_directory(name)
        asked = {"pod": name, "directory": directory, "netns": node.netns(name), "cni": node.cni(), "seconds": seconds}
        await node.networks.down(asked)
        await asyncio.to_thread(files.remove, directory)

    async def _strays(self) -> None:
        """Namespaces and addresses of this daemon whose pods have no directory any more."""
        node = self._node
        known = {
            "known": list(node.sandboxes),
            "netns": [pod.netns for pod in node.pods() if pod.netns],
            "netns_dir": node.config["netns_dir"],
            "prefix": node.netns_prefix,
            "cni": node.cni(),
            "seconds": node.config["network.timeout"],
        }
        for pod in await node.networks.strays(known):
            _log.info("taking back the network of pod %s, which no row knows", pod, extra={"pod": pod})
            await _tried(self._nobodys_pod(pod), pod)

    async def _orphan(self, name: str) -> None:
        """A shim that no row knows."""
        node = self._node
        directory = node.shim_directory(name)
        _log.info("ending the shim of %s, which no row knows", name, extra={"container": name})
        try:
            async with asyncio.timeout(float(node.config["limits.recovery"])):
                shim = await connect(name, directory)
            await shim.call("Delete", messages.DeleteRequest(), messages.StateResponse, float(node.config["limits.recovery"]))
            await shim.end(float(node.config["limits.recovery"]))
        except (Error, OSError, TimeoutError):
            await asyncio.to_thread(node.delete_by_force, name)
            await asyncio.to_thread(remove_tree, directory)


def is_gone(directory: str, err: Exception) -> bool:
    """Whether a shim that could not be asked is no more. For a thread.

    Too few descriptors, a full backlog or a slow answer are no reason to kill a container that runs.
    """
    if isinstance(err, (FileNotFoundError, ConnectionRefusedError)):
        return True
    try:
        return not record.is_alive(record.load(directory))
    except (Error, OSError):
        return isinstance(err, LostError)


async def _tried(what: Awaitable[object], subject: str) -> None:
    try:
        await what
    except Exception as err:  # noqa: BLE001  (one that cannot be recovered must not keep the others from it)
        _log.error("%s: %s", subject, err, exc_info=not hasattr(err, "code"))


def _names(directory: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
