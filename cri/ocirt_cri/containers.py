"""The life of a container: created, started, stopped, removed."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages import shim as messages
from ocirt_cri import creation, events, limits, logs, model
from ocirt_cri.errors import DeadlineError
from ocirt_cri.leftovers import remove_container, remove_tree
from ocirt_cri.model import Container
from ocirt_cri.node import find
from ocirt_cri.operations import refuse_other
from ocirt_cri.shims import LostError, Shim, connect
from ocirt_cri.spec import document, inforce, resources, validate

if TYPE_CHECKING:
    from ocirt_cri.node import Node
    from ocirt_cri.spec.inputs import Json

_ID = 32  # bytes
_KILL_PATIENCE = 30.0  # seconds that what was killed may take to be gone
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 30.0  # seconds until a shim that has answered `Wait` with an error is asked again
_CALL_PATIENCE = 60.0  # seconds for a shim to answer what it does at once
_log = logging.getLogger(__name__)


class Containers:
    """What is done to containers."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._watches: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Look at none of them any more. They and their shims go on."""
        for task in self._watches:
            task.cancel()
        for shim in self._node.shims.values():
            shim.close()

    # -- creation --

    async def create(self, request: cri.CreateContainerRequest) -> str:
        """The id of the container that a request means: a new one, or one that an earlier attempt has made. Raises Error."""
        node = self._node
        sandbox = node.pod(request.pod_sandbox_id)
        if not sandbox.is_ready:
            raise Error("state", "the pod was stopped", subject=sandbox.id, hint="run another attempt of it")
        host = await node.host_of(sandbox.status.runtime_handler)
        validate.check_container(sandbox.config, request.config, host)
        key = model.container_key(sandbox.id, request.config.metadata)
        known = node.container_of_key(key)
        if known is not None:
            refuse_other("container", known.config, request.config)
            if known.state != cri.CONTAINER_CREATED:
                raise Error("exists", "this container was started", subject=known.id, hint="remove it, or create another attempt")
            return known.id
        container = Container(
            secrets.token_hex(_ID),
            sandbox.id,
            request.config,
            cri.ContainerStatus(
                metadata=request.config.metadata,
                state=cri.CONTAINER_CREATED,
                labels=request.config.labels,
                annotations=request.config.annotations,
            ),
            boot_id=node.boot_id,
        )
        container.status.id = container.id
        return await node.operations.run(("container", key), lambda: self._create(container), request.config)

    async def _create(self, container: Container) -> str:
        node = self._node
        sandbox = node.pod(container.pod_id)
        made = creation.Creation(node, sandbox, container)
        await made.look()
        await node.store.put(container)
        try:
            shim = await made.make()
            container.status.created_at = time.time_ns()
            container.phase = model.MADE
            container.refresh()
            await node.store.put(container)
            if not sandbox.is_ready:
                raise Error("state", "the pod was stopped meanwhile", subject=sandbox.id)
        except BaseException:
            await self._undo(container)
            raise
        node.add(container)
        self.watch(container, shim)
        self._tell(events.CREATED, container)
        await node.nri.created(sandbox, container)
        _log.info(
            "container %s was created in pod %s: %s",
            container.id,
            sandbox.id,
            container.metadata.name,
            extra=logs.of_container(container),
        )
        return container.id

    async def _undo(self, container: Container) -> None:
        await self._node.nri.removed(container)
        try:
            await self.discard(container)
        except Exception as err:  # noqa: BLE001  (the first failure is the one to tell; its row stays, and a start undoes it)
            _log.error(
                "container %s was not made, and not all of it could be taken back: %s",
                container.id,
                err,
                extra=logs.of_container(container),
            )

    async def discard(self, container: Container) -> None:
        """Leave nothing of a container, however much there is of it. Raises Error, OSError."""
        await self._node.reserve.spend(lambda: self._discard(container))

    async def _discard(self, container: Container) -> None:
        node = self._node
        ending = await self._delete(container)
        try:
            await node.volumes.release(container.id)
            await node.roots.remove(container.id)
            await asyncio.to_thread(remove_container, node.container_directory(container.id))
        finally:
            await ending
        await node.store.delete(container)

    async def _delete(self, container: Container) -> Awaitable[None]:
        """End container and shim. That is gone when this returns, this once what is returned does. Raises Error, OSError."""
        try:
            shim = await self.shim(container)
            await shim.call("Delete", messages.DeleteRequest(), messages.StateResponse, _KILL_PATIENCE)
        except (Error, OSError, TimeoutError) as err:
            # It has no container yet, and ends with the connection; or it is lost.
            await self._delete_by_force(container, err)
            return _nothing()
        return asyncio.ensure_future(self._until_ended(container, shim))

    async def _until_ended(self, container: Container, shim: Shim) -> None:
        try:
            await shim.end(_CALL_PATIENCE)
        except TimeoutError as err:
            await self._delete_by_force(container, err)
        if (ended := self._node.shims.pop(container.id, None)) is not None:
            ended.close()

    async def _delete_by_force(self, container: Container, err: Exception) -> None:
        node = self._node
        _log.debug("container %s: %s", container.id, err, extra=logs.of_container(container))
        if (shim := node.shims.pop(container.id, None)) is not None:
            shim.close()
        await asyncio.to_thread(node.delete_by_force, container.id)
        await asyncio.to_thread(remove_tree, node.shim_directory(container.id))

    async def shim(self, container: Container) -> Shim:
        """A connection to a container's shim. Raises OSError if there is none."""
        shim = self._node.shims.get(container.id)
        if shim is None or not shim.is_connected:
            shim = await connect(container.id, self._node.shim_directory(container.id))
            self._node.shims[container.id] = shim
        return shim

    # -- its program --

    async def start(self, identifier: str) -> None:
        """Run the program of a created container. Raises Error."""
        container = self._node.container(identifier)
        await self._node.operations.run(("start", container.id), lambda: self._start(container))

    async def _start(self, container: Container) -> None:
        node = self._node
        refusal: Error | None = None
        sandbox = node.sandboxes.get(container.pod_id)
        if container.state == cri.CONTAINER_CREATED and sandbox is not None and sandbox.is_ready:
            try:
                await node.nri.start(container)
            except Error as err:
                refusal = err
        try:
            await self._start_now(container, refusal)
        finally:
            if container.exited.is_set():
                await node.nri.stopped(container)
        await node.nri.started(container)

    async def _start_now(self, container: Container, refusal: Error | None) -> None:
        node = self._node
        async with container.lock:
            if container.state != cri.CONTAINER_CREATED:
                word = cri.ContainerState.Name(container.status.state).removeprefix("CONTAINER_").lower()
                raise Error("state", f"the container is {word}", subject=container.id, hint="only a created one can be started")
            sandbox = node.sandboxes.get(container.pod_id)
            if sandbox is None or not sandbox.is_ready:
                raise Error("state", "the pod was stopped", subject=container.pod_id, hint="run another attempt of it")
            try:
                if refusal is not None:
                    raise refusal
                shim = await self.shim(container)
                found = await shim.call("Start", messages.StartRequest(), messages.StateResponse)
            except (Error, OSError) as err:
                await self._not_started(container, err)
                raise
            if container.state == cri.CONTAINER_CREATED:  # it may have ended already
                container.set_started(found.pid, found.started_at or time.time_ns())
                self._tell(events.STARTED, container)
            await node.store.note(container)

    async def _not_started(self, container: Container, err: Exception) -> None:
        text = str(err)[: 4 << 10]
        container.set_ended(model.START_ERROR_CODE, time.time_ns(), reason=model.START_ERROR, message=text)
        await self._node.store.note(container)
        self._tell(events.STOPPED, container)
        try:
            await (await self._delete(container))
        except Exception as late:  # noqa: BLE001  (what is left goes with the container)
            _log.warning("container %s: %s", container.id, late, extra=logs.of_container(container))

    def watch(self, container: Container, shim: Shim) -> None:
        """Wait for a container's end. The connection counts from now on."""
        self._node.shims[container.id] = shim
        task = asyncio.create_task(self._watch(container, shim), name=f"end of {container.id}")
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    async def _watch(self, container: Container, shim: Shim) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                found = await shim.call("Wait", messages.StateRequest(), messages.StateResponse)
            except LostError as err:
                # A connection may end without the shim, if somebody has sent what is no frame: one that can be reached lives.
                again = await self._again(container)
                if again is None:
                    await self.lost(container, err)
                    return
                shim = again
            except Error as err:
                _log.error("container %s: its shim does not wait: %s", container.id, err, extra=logs.of_container(container))
            else:
                await self.ended(container, found)
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE)

    async def _again(self, container: Container) -> Shim | None:
        """Another connection to its shim, if that is there and the container is wanted."""
        if container.exited.is_set() or container.phase == model.REMOVING:
            return None
        try:
            return await self.shim(container)
        except OSError:
            return None

    async def ended(self, container: Container, found: messages.StateResponse) -> None:
        """What a shim says of the end of its container."""
        async with container.lock:  # while it is being started, it has not ended
            if container.exited.is_set() or container.phase == model.REMOVING:
                container.exited.set()
                return
            if container.state == cri.CONTAINER_CREATED and found.started_at:
                container.set_started(found.pid, found.started_at)
                self._tell(events.STARTED, container)
            container.set_ended(found.exit_code, found.exited_at or time.time_ns(), oom_killed=found.oom_killed)
            await self._node.store.note(container)
        self._tell(events.STOPPED, container)
        _log.info(
            "container %s has ended: %d (%s)",
            container.id,
            found.exit_code,
            container.status.reason,
            extra=logs.of_container(container),
        )
        await self._node.nri.stopped(container)

    async def lost(self, container: Container, err: Exception) -> None:
        """Its shim is gone, and with it what it knew: what still runs of the container is killed."""
        if container.exited.is_set() or container.phase == model.REMOVING:
            return
        _log.error("container %s: its shim is lost: %s", container.id, err, extra=logs.of_container(container))
        try:
            await asyncio.to_thread(self._node.delete_by_force, container.id)
        except Error as late:
            _log.error(
                "container %s: what is left of it could not be removed: %s",
                container.id,
                late,
                extra=logs.of_container(container),
            )
        message = "the process that held the container was lost"
        container.set_ended(model.LOST_CODE, time.time_ns(), reason=model.LOST, message=message)
        await self._node.store.note(container)
        self._tell(events.STOPPED, container)
        await self._node.nri.stopped(container)

    # -- its end --

    async def stop(self, container: Container, seconds: int) -> None:
        """End its program: by its signal, and after so many seconds by SIGKILL. Raises DeadlineError, Error."""
        await self._end(container, seconds)
        await self._node.nri.stopped(container)

    async def _end(self, container: Container, seconds: int) -> None:
        if container.state not in (cri.CONTAINER_RUNNING, cri.CONTAINER_CREATED):
            return
        if container.state == cri.CONTAINER_CREATED and seconds > 0:
            seconds = 0  # nothing runs that could hear a signal
        try:
            shim = await self.shim(container)
            if seconds > 0:
                await self._kill(shim, container.stop_signal, everybody=False)
                try:
                    async with asyncio.timeout(seconds):
                        await container.exited.wait()
                except TimeoutError:
                    _log.info(
                        "container %s did not end within %d seconds", container.id, seconds, extra=logs.of_container(container)
                    )
                else:
                    return
            await self._kill(shim, signal.SIGKILL, everybody=True)
        except (LostError, OSError):
            pass  # whoever watches it sees to the rest
        try:
            async with asyncio.timeout(_KILL_PATIENCE):
                await container.exited.wait()
        except TimeoutError:
            hint = "a process of it cannot be killed (state D of ps)?"
            raise DeadlineError("was killed, and has not ended", subject=container.id, hint=hint) from None

    @staticmethod
    async def _kill(shim: Shim, number: int, *, everybody: bool) -> None:
        try:
            await shim.call("Kill", messages.KillRequest(signal=number, all=everybody), messages.Nothing, _CALL_PATIENCE)
        except Error as err:
            if err.code not in ("not-found", "state"):  # it has ended
                raise

    async def remove(self, identifier: str) -> None:
        """Remove a container, whether or not it runs. No error for one that is not there."""
        container = find(self._node.all_containers, identifier, "container_id")
        if container is not None:
            await self._node.operations.run(("removal", container.id), lambda: self._remove(container))

    async def _remove(self, container: Container) -> None:
        node = self._node
        await self.stop(container, 0)
        async with container.lock:
            container.phase = model.REMOVING
            await node.store.note(container)
            await self.discard(container)
        node.drop(container)
        await node.nri.removed(container)
        self._tell(events.DELETED, container)
        _log.info("container %s was removed", container.id, extra=logs.of_container(container))

    # -- while it is there --

    async def update(self, request: cri.UpdateContainerResourcesRequest) -> None:
        """Change limits; the status has what is in force afterwards. Raises Error."""
        node = self._node
        container = node.container(request.container_id)
        if container.state not in (cri.CONTAINER_RUNNING, cri.CONTAINER_CREATED):
            raise Error("state", "the container has ended", subject=container.id)
        pids = node.config_of(node.pod(container.pod_id).status.runtime_handler)["containers.pids_limit"]
        wanted = resources.update_of(container.limits, request.linux, node.host, "linux", pids=pids)
        linux = cri.LinuxContainerResources()
        linux.CopyFrom(request.linux)
        wanted = await node.nri.update(container, linux, wanted)
        await self.change(container, wanted, linux)
        await node.nri.updated(container)

    async def change(
        self, container: Container, wanted: Json, linux: cri.LinuxContainerResources, seconds: float | None = None
    ) -> None:
        """Set limits: `wanted` is what `linux.resources` of a config.json is, `linux` the same for the status.

        seconds: how long what is done to the container just now, and then its shim, may take; None: as always.
        Raises Error, TimeoutError.
        """
        async with asyncio.timeout(seconds):
            await container.lock.acquire()
        try:
            shim = await self.shim(container)
            request = messages.UpdateRequest(resources=document.encode(wanted))
            await shim.call("Update", request, messages.Nothing, _CALL_PATIENCE if seconds is None else seconds)
            asked = resources.changed(container.limits, linux)
            asked.oom_score_adj = container.limits.oom_score_adj  # of the program, which has started
            seen = await asyncio.to_thread(lambda: limits.read(container.cgroup, asked))
            container.status.resources.linux.CopyFrom(inforce.reported(asked, seen))
            await self._node.store.put(container)
        finally:
            container.lock.release()

    async def reopen_log(self, identifier: str) -> None:
        """Its log was renamed. Raises Error."""
        container = self._node.container(identifier)
        if not container.is_running:
            raise Error("state", "the container does not run", subject=container.id)
        shim = await self.shim(container)
        await shim.call("ReopenLog", messages.StateRequest(), messages.Nothing, _CALL_PATIENCE)

    def _tell(self, kind: cri.ContainerEventType.ValueType, container: Container) -> None:
        self._node.tell(kind, container.id, self._node.sandboxes.get(container.pod_id))


async def _nothing() -> None:
    pass
