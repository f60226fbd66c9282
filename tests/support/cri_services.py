"""A gRPC server on a unix socket with some services of the CRI alone, and a client of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as stubs
from ocirt_cri.images.images import Images
from ocirt_cri.images.settings import Settings
from ocirt_cri.reserve import Reserve
from ocirt_cri.rootfs import Roots
from ocirt_cri.server import Server
from ocirt_cri.services.images import ImageService
from ocirt_cri.services.stats import StatsService
from ocirt_cri.stats.layers import LayerUsage
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.store import Store
from tests.support import images

if TYPE_CHECKING:
    from ocirt_cri.stats.sources import Container, Pod


@dataclass
class MadeUp:
    """A container."""

    id: str
    pod_id: str = "p1"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    is_running: bool = True
    pid: int = 0
    cgroup: Mapping[str, str] = field(default_factory=dict)
    image: str = "image:1"
    started_at: int = 1
    limits: cri.LinuxContainerResources = field(default_factory=cri.LinuxContainerResources)

    @property
    def metadata(self) -> cri.ContainerMetadata:
        return cri.ContainerMetadata(name=f"name of {self.id}", attempt=3)


@dataclass
class MadeUpPod:
    """A pod."""

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    is_ready: bool = True
    netns: str = ""
    interface: str = "eth0"
    cgroup: Mapping[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> cri.PodSandboxMetadata:
        return cri.PodSandboxMetadata(name=f"name of {self.id}", uid="u", namespace="n")


@dataclass
class Source:
    """Pods and containers that a test makes up."""

    all_containers: list[Container] = field(default_factory=list)
    all_pods: list[Pod] = field(default_factory=list)

    def containers(self) -> list[Container]:
        return self.all_containers

    def pods(self) -> list[Pod]:
        return self.all_pods


@dataclass
class Node:
    """What is served, and by what. image, runtime: clients."""

    store: Store
    images: Images
    roots: Roots
    layers: LayerUsage
    source: Source
    image: stubs.ImageServiceAsyncStub
    runtime: stubs.RuntimeServiceAsyncStub

    async def pull(self, name: str, **auth: str) -> str:
        """The id of an image that is pulled."""
        request = cri.PullImageRequest(image=cri.ImageSpec(image=name), auth=cri.AuthConfig(**auth) if auth else None)
        return (await self.image.PullImage(request, timeout=60)).image_ref

    async def status(self, name: str) -> cri.Image | None:
        """An image, if it is there."""
        found = await self.image.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)))
        return found.image if found.HasField("image") else None

    async def list(self, name: str = "") -> list[cri.Image]:
        """All images, or what the filter leaves of them."""
        wanted = cri.ImageFilter(image=cri.ImageSpec(image=name)) if name else None
        return list((await self.image.ListImages(cri.ListImagesRequest(filter=wanted))).images)

    async def remove(self, name: str) -> None:
        """Remove an image."""
        await self.image.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=name)), timeout=60)


@asynccontextmanager
async def serving(
    place: Path,
    *,
    sync: bool = False,
    pinned: tuple[str, ...] = (),
    idle: float = 60.0,
    source: Source | None = None,
    **settings: Any,
) -> AsyncIterator[Node]:
    """Services over a store in `place`. sync: whether it waits for the disk."""
    async with AsyncExitStack() as stack:
        store = stack.enter_context(Store.open(place / "images", sync=sync))  # which makes `place`, too
        told = Settings(root=str(store.root), sync=sync, **settings)
        found = await stack.enter_async_context(Images(store, told, pinned=pinned, idle=idle))
        roots = Roots(found, "test")
        layers = await stack.enter_async_context(LayerUsage(roots.uppers))
        context = SimpleNamespace(images=found, layers=layers, reserve=Reserve(), source=source or Source())
        stats = await stack.enter_async_context(StatsService(context))
        server = Server([ImageService(context), stats])
        await server.start(f"{place}/socket")
        stack.push_async_callback(server.stop)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{place}/socket"))
        yield Node(
            store,
            found,
            roots,
            layers,
            context.source,
            stubs.ImageServiceStub(channel),
            stubs.RuntimeServiceStub(channel),
        )


def put_image(store: Store, name: str, number: int, user: str = "") -> str:
    """Names an image without layers, another one for each number; its id."""
    made = images.image([], config={"User": user, "Labels": {"number": str(number)}})
    digest, config = Digest(made.digest), Digest(images.digest(made.config))
    with store.leases.lease() as lease:
        store.content.put(made.config, config, lease)
        store.content.put(made.manifest, digest, lease)
        target = Descriptor(media_type=made.media_type, digest=digest, size=len(made.manifest))
        store.images.put(name, target, manifest=digest, config=config, lease=lease)
    return str(config)


class Refusal:
    """What an RPC was refused with."""

    code: grpc.StatusCode
    text: str


@contextmanager
def refused(code: grpc.StatusCode) -> Iterator[Refusal]:
    """An RPC in the block ends with this code."""
    found = Refusal()
    try:
        yield found
    except grpc.aio.AioRpcError as err:
        found.code, found.text = err.code(), err.details() or ""
        assert found.code == code, f"{found.code}: {found.text}"
    else:
        raise AssertionError(f"no {code}")


async def eventually(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait for it."""
    until = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < until, what
        await asyncio.sleep(0.02)
