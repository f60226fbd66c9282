"""A daemon whose kernel is made up: shims and the network helper are objects of the test's, everything else is real."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc.aio

from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as stubs
from ocirt_api.messages import shim as messages
from ocirt_api.ttrpc import RequestReceived
from ocirt_api.ttrpc import Server as Ttrpc
from ocirt_cri import config as configuration
from ocirt_cri import machine
from ocirt_cri.checkpoint.checkpoints import Checkpoints
from ocirt_cri.containers import Containers
from ocirt_cri.images.images import Images
from ocirt_cri.images.settings import Settings
from ocirt_cri.node import Node
from ocirt_cri.recovery import Recovery
from ocirt_cri.rootfs import Roots
from ocirt_cri.sandboxes import Sandboxes
from ocirt_cri.server import Server
from ocirt_cri.services.containers import ContainerService
from ocirt_cri.services.events import EventService
from ocirt_cri.services.exec import ExecService
from ocirt_cri.services.pods import PodService
from ocirt_cri.services.runtime import RuntimeService
from ocirt_cri.store import Store
from ocirt_cri.volumes import Volumes
from ocirt_cri.zygote import Zygote
from ocirt_images.store import Store as ImageStore
from tests.support.cri_services import put_image

IMAGE = "example.com/app:1"


class FakeShim:
    """The other end of a shim's socket. fail: what a method answers with instead; slow: seconds that a method takes.

    zygote: that has made it ahead of its container.
    """

    def __init__(self, connection: socket.socket, asked: Mapping[str, Any], zygote: FakeZygote | None = None) -> None:
        self.asked = asked
        self.zygote = zygote
        self.fail: dict[str, tuple[int, str]] = {}
        self.slow: dict[str, float] = {}
        self.calls: list[str] = []
        self.state = messages.StateResponse(id=asked.get("id", ""))
        self.created: messages.CreateRequest | None = None
        self._server = Ttrpc()
        self._socket = connection
        self._waiting: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        connection.setblocking(False)
        self.task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, 1 << 16):
            for event in self._server.receive(data):
                assert isinstance(event, RequestReceived)
                task = asyncio.create_task(self._answer(event.stream, event.request.method, event.request.payload))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, stream: int, method: str, payload: bytes) -> None:
        self.calls.append(method)
        if method == "Create" and self.zygote is not None:
            self.state.id = messages.CreateRequest.decode(payload).id
            self.zygote.shims[self.state.id] = self
            self.fail |= dict(self.zygote.prepare)
            self.slow |= self.zygote.slow
        await asyncio.sleep(self.slow.get(method, 0))
        if method in self.fail:
            code, text = self.fail[method]
            await self._send(self._server.respond(stream, code=code, text=text))
            return
        request = messages.METHODS[method][0].decode(payload)
        answer = getattr(self, f"_{method.lower()}", self._nothing)(request)
        if answer is None:
            self._waiting.append(stream)
            return
        await self._send(self._server.respond(stream, answer.encode()))
        if method == "Delete":
            self.die()

    async def _send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def _nothing(self, request: Any) -> Any:
        del request
        return messages.Nothing()

    def _create(self, request: messages.CreateRequest) -> Any:
        self.created = request
        self.state.pid, self.state.status, self.state.created_at = 4242, messages.CREATED, time.time_ns()
        return messages.CreateResponse(pid=4242)

    def _start(self, request: Any) -> Any:
        del request
        self.state.status, self.state.started_at = messages.RUNNING, time.time_ns()
        return self.state

    def _wait(self, request: Any) -> Any:
        del request
        return self.state if self.state.exited_at else None

    def _state(self, request: Any) -> Any:
        del request
        return self.state

    def _kill(self, request: messages.KillRequest) -> Any:
        if request.signal == 9:
            self.end(137)
        return messages.Nothing()

    def _delete(self, request: Any) -> Any:
        del request
        return self.state

    def _exec(self, request: messages.ExecRequest) -> Any:
        args = json.loads(request.process)["args"]
        return messages.ExecResponse(exit_code=0, stdout=" ".join(args).encode(), timed_out=args == ["sleep"])

    def end(self, code: int, *, oom: bool = False) -> None:
        """The program ends."""
        self.state.status, self.state.exited_at = messages.STOPPED, time.time_ns()
        self.state.exit_code, self.state.oom_killed = code, oom
        for stream in self._waiting:
            self._socket.send(self._server.respond(stream, self.state.encode()))
        self._waiting.clear()

    def die(self) -> None:
        """As by SIGKILL."""
        self.task.cancel()
        self._socket.close()


class FakeZygote:
    """Makes fake shims."""

    def __init__(self) -> None:
        self.shims: dict[str, FakeShim] = {}  # by their containers
        self.made: list[FakeShim] = []
        self.prepare: list[tuple[str, tuple[int, str]]] = []
        self.slow: dict[str, float] = {}

    async def ask(self, asked: Mapping[str, Any]) -> tuple[socket.socket, int]:
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        self.made.append(FakeShim(theirs, asked, self))
        return mine, 4711


@dataclass
class FakeNetworks:
    """A network helper. gate: what `up` waits for; failure: what it raises."""

    pods: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    failure: Error | None = None
    asked: int = 0
    generation: int = 1
    numbers: Any = field(default_factory=lambda: itertools.count(2))

    async def up(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        self.asked += 1
        self.pods[wanted["pod"]] = wanted
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            del self.pods[wanted["pod"]]
            raise self.failure
        return await self.paths(wanted) | {"ips": [f"10.0.0.{next(self.numbers)}", "fd00::1"], "interface": "eth0"}

    async def down(self, pod: Mapping[str, Any]) -> None:
        self.pods.pop(pod["pod"], None)

    async def paths(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        return {"namespaces": {"network": "/proc/self/ns/net", "ipc": "/proc/self/ns/ipc"}, "shm": f"{pod['directory']}/shm"}

    async def strays(self, known: Mapping[str, Any]) -> list[str]:
        return sorted(set(self.pods) - set(known["known"]))

    async def status(self) -> tuple[bool, str]:
        return True, ""

    async def reload(self) -> None:
        pass

    async def close(self) -> None:
        pass


class _NoLayers:
    def get(self, container_id: str) -> None:
        del container_id


@dataclass
class Daemon:
    """What is served, and by what. calls: a client."""

    node: Node
    containers: Containers
    zygote: FakeZygote
    networks: FakeNetworks
    calls: stubs.RuntimeServiceAsyncStub
    address: str
    place: Path

    def pod_config(self, name: str = "pod", **more: Any) -> cri.PodSandboxConfig:
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            log_directory=str(self.place / "logs" / name),
            linux=cri.LinuxPodSandboxConfig(
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=cri.NamespaceOption(pid=cri.CONTAINER))
            ),
            **more,
        )

    async def run_pod(self, config: cri.PodSandboxConfig | None = None, seconds: float = 20) -> str:
        request = cri.RunPodSandboxRequest(config=config or self.pod_config())
        return str((await self.calls.RunPodSandbox(request, timeout=seconds)).pod_sandbox_id)

    def container_config(self, name: str = "c", **more: Any) -> cri.ContainerConfig:
        options = cri.NamespaceOption(pid=cri.CONTAINER)
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=["sleep", "1000"],
            log_path=f"{name}.log",
            linux=cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(namespace_options=options)),
            **more,
        )

    async def create(self, pod: str, config: cri.ContainerConfig | None = None, seconds: float = 20) -> str:
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config or self.container_config())
        return str((await self.calls.CreateContainer(request, timeout=seconds)).container_id)

    async def start(self, identifier: str) -> None:
        await self.calls.StartContainer(cri.StartContainerRequest(container_id=identifier), timeout=20)

    async def status(self, identifier: str) -> cri.ContainerStatus:
        return (await self.calls.ContainerStatus(cri.ContainerStatusRequest(container_id=identifier))).status

    async def until_ended(self, identifier: str) -> cri.ContainerStatus:
        async with asyncio.timeout(20):
            await self.node.all_containers[identifier].exited.wait()
        return await self.status(identifier)


@asynccontextmanager
async def serving(place: Path, more: str = "") -> AsyncIterator[Daemon]:
    """A daemon in `place`, which may have been one before. more: the end of its configuration."""
    values = f'root = "{place}/r"\nstate = "{place}/v"\nlisten = "unix://{place}/s"\nnetns_dir = "{place}/netns"\n{more}'
    config = configuration.parse(values.encode(), str(place / "toml"), {})
    os.makedirs(place / "r", exist_ok=True)
    async with AsyncExitStack() as stack:
        images_store = stack.enter_context(ImageStore.open(place / "r/images", sync=False))
        put_image(images_store, IMAGE, 1)
        images = await stack.enter_async_context(Images(images_store, Settings(root=str(images_store.root), sync=False)))
        roots = Roots(images, "test")
        store = Store(str(place / "r/node.db"))
        stack.push_async_callback(store.close)
        zygote, networks = FakeZygote(), FakeNetworks()
        node = Node(
            config=config,
            host=machine.look(),
            boot_id="boot",
            instance="test",
            store=store,
            images=images,
            roots=roots,
            volumes=Volumes(roots, place / "v/volumes", images_store.layout.empty),
            layers=cast("Any", _NoLayers()),
            zygote=cast("Zygote", zygote),
            networks=networks,
        )
        containers = Containers(node)
        stack.callback(containers.close)
        sandboxes = Sandboxes(node, containers)
        recovery = Recovery(node, sandboxes, containers, Checkpoints(node, containers))
        stack.callback(recovery.close)
        recovery.load()
        services = (
            RuntimeService(node),
            PodService(node, sandboxes),
            ContainerService(node, containers),
            ExecService(node, containers),
            EventService(node),
        )
        server = Server(services, until=node.recovered, always=("Version", "Status"))
        await server.start(str(place / "s"))
        stack.push_async_callback(server.stop)
        await recovery.run()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{place}/s"))
        yield Daemon(node, containers, zygote, networks, stubs.RuntimeServiceStub(channel), f"unix:{place}/s", place)
        node.spares.close()
        for shim in (*zygote.shims.values(), *[one for one in zygote.made if not one.state.id]):
            shim.die()


REFUSED = (status.FAILED_PRECONDITION, "no")
