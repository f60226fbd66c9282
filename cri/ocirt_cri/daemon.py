"""How ocirtd's parts come up, and how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import ocirt
from ocirt import apparmor, spans, state
from ocirt.errors import Error
from ocirt_cri import config as configuration
from ocirt_cri import logs, machine
from ocirt_cri.checkpoint.checkpoints import Checkpoints
from ocirt_cri.config import Config
from ocirt_cri.containers import Containers
from ocirt_cri.images.images import Images
from ocirt_cri.images.settings import Settings
from ocirt_cri.locks import Locks
from ocirt_cri.metrics import node as numbers
from ocirt_cri.metrics import server as metrics
from ocirt_cri.metrics.calls import Calls
from ocirt_cri.networks import Helper
from ocirt_cri.node import Node
from ocirt_cri.nri.runtime import Nri
from ocirt_cri.recovery import Recovery
from ocirt_cri.reserve import Reserve
from ocirt_cri.rootfs import Roots
from ocirt_cri.sandboxes import Sandboxes
from ocirt_cri.server import Server
from ocirt_cri.services.checkpoints import CheckpointService
from ocirt_cri.services.containers import ContainerService
from ocirt_cri.services.events import EventService
from ocirt_cri.services.exec import ExecService
from ocirt_cri.services.images import ImageService
from ocirt_cri.services.metrics import MetricsService
from ocirt_cri.services.pods import PodService
from ocirt_cri.services.runtime import POD_CIDR, RuntimeService
from ocirt_cri.services.stats import StatsService
from ocirt_cri.services.streams import StreamService
from ocirt_cri.stats.layers import LayerUsage
from ocirt_cri.store import Store
from ocirt_cri.volumes import Volumes
from ocirt_cri.zygote import Zygote
from ocirt_images.store import Store as ImageStore

_ALWAYS = ("Version", "Status", "RuntimeConfig")  # answered while an earlier daemon's pods are looked for
_SETTLE = 10.0  # seconds that operations have to end
_THREADS = 6
_WORD = 4  # bytes
_SWITCH = 0.0005  # seconds that one thread may keep others waiting: most of what they do is short
_log = logging.getLogger(__name__)


def run(config: Config, reload: Callable[[], Config]) -> int:
    """Serve until a signal says to end. `reload` reads the configuration anew. Raises Error, OSError."""
    logs.set_up(config["log_level"], config["log_format"])
    os.umask(0o022)
    sys.setswitchinterval(_SWITCH)
    spans.to(config["trace"], anew=True)
    # A connection for each container. What containers get is written down, and not what this process has.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    locks = Locks(config["root"], config["state"])
    try:
        asyncio.run(Daemon(config, reload).run())
    finally:
        locks.release()
    return 0


class Daemon:
    """One ocirtd."""

    def __init__(self, config: Config, reload: Callable[[], Config]) -> None:
        self._config = config
        self._reload = reload
        self._ending = asyncio.Event()
        self._node: Node

    async def run(self) -> None:
        """Until it is told to end. Raises Error, OSError."""
        config = self._config
        loop = asyncio.get_running_loop()
        loop.set_default_executor(_threads())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        async with AsyncExitStack() as stack:
            store = Store(os.path.join(config["root"], "node.db"))
            stack.push_async_callback(store.close)
            self._node = node = await self._parts(stack, store)
            stack.callback(node.spares.close)
            stack.callback(node.executors.close)
            await asyncio.to_thread(os.makedirs, os.path.join(node.directory, "shims"), 0o700, exist_ok=True)
            containers = Containers(node)
            stack.callback(containers.close)
            sandboxes = Sandboxes(node, containers)
            stack.callback(sandboxes.close)
            checkpoints = Checkpoints(node, containers)
            stack.callback(checkpoints.close)
            recovery = Recovery(node, sandboxes, containers, checkpoints)
            stack.callback(recovery.close)
            recovery.load()
            if config["nri.enabled"]:
                node.nri = await stack.enter_async_context(Nri(node, containers))
            stats = await stack.enter_async_context(StatsService(node))
            streams = await stack.enter_async_context(StreamService(node))
            metrics = stack.enter_context(MetricsService(node))
            services = (
                RuntimeService(node),
                PodService(node, sandboxes),
                ContainerService(node, containers),
                CheckpointService(node, checkpoints),
                ExecService(node, containers),
                EventService(node),
                ImageService(node),
                stats,
                streams,
                metrics,
            )
            interceptors = await self._metrics(stack) if config["metrics.listen"] else ()
            server = Server(services, until=node.recovered, always=_ALWAYS, interceptors=interceptors)
            await server.start(config.socket)
            stack.push_async_callback(server.stop)
            loop.add_signal_handler(signal.SIGHUP, self.reload)
            _log.info("ocirtd %s listens at %s", ocirt.__version__, config.socket)
            _notify("READY=1")
            recovering = asyncio.create_task(recovery.run(), name="recovery")
            await self._ending.wait()
            _notify("STOPPING=1")
            await asyncio.wait([recovering], timeout=_SETTLE)
            await node.operations.settle(_SETTLE)

    async def _metrics(self, stack: AsyncExitStack) -> tuple[Calls]:
        """What counts calls; it is shown, with the node's numbers, to who asks."""
        node, calls = self._node, Calls()

        def text() -> str:
            return "".join(map(str, (*numbers.families(node), *calls.families())))

        server = metrics.Server(text, lambda: metrics.unwell(node))
        await server.start(self._config["metrics.listen"])
        stack.push_async_callback(server.stop)
        return (calls,)

    async def _parts(self, stack: AsyncExitStack, store: Store) -> Node:
        config = self._config
        instance = store.meta("instance")
        if not instance:
            instance = secrets.token_hex(_WORD)
            store.set_meta("instance", instance)
        image_store = await asyncio.to_thread(ImageStore.open, Path(config.image_root), sync=config["images.sync"])
        stack.callback(image_store.close)
        settings = Settings(
            root=str(image_store.root),
            sync=config["images.sync"],
            auth_file=config["images.auth_file"],
            policy=config["images.policy"],
            stall=config["images.stall"],
            connections=config["images.connections"],
        )
        host = await asyncio.to_thread(machine.look, str(image_store.root))
        if host.apparmor and config["containers.apparmor_profile"] == apparmor.NAME:
            await asyncio.to_thread(_load_profile)
        reserve = Reserve((config["root"], config.image_root))
        await asyncio.to_thread(reserve.make)
        images = await stack.enter_async_context(Images(image_store, settings, pinned=config["images.pinned"]))
        roots = Roots(images, instance)
        zygote = await stack.enter_async_context(Zygote())
        networks = Helper(
            zygote,
            {
                "state": config["state"],
                "root": config["root"],
                "instance": instance,
            },
            self._cni,
        )
        stack.push_async_callback(networks.close)
        return Node(
            config=config,
            host=host,
            boot_id=state.boot_id(),
            instance=instance,
            pod_cidr=store.meta(POD_CIDR),
            reserve=reserve,
            store=store,
            images=images,
            roots=roots,
            volumes=Volumes(roots, Path(config["state"]) / "volumes", image_store.layout.empty),
            layers=await stack.enter_async_context(LayerUsage(roots.uppers)),
            zygote=zygote,
            networks=networks,
        )

    def _cni(self) -> dict[str, Any]:
        return self._node.cni()  # which is there before anybody asks

    def reload(self) -> None:
        """Read the configuration anew; it is taken whole or not at all, and what differs is logged."""
        try:
            new = self._reload()
        except Error as err:
            _log.error("the configuration stays as it is: %s", err)
            return
        changes = configuration.differences(self._node.config, new)
        for key, old, now in changes:
            words = "%s: %s, was %s" if key.live else "%s: %s after a restart, is %s"
            _log.info(words, key.name, configuration.shown(now), configuration.shown(old))
        if not changes:
            _log.info("the configuration was read again, and is the same")
        self._config = self._node.config = configuration.reloaded(self._node.config, new)
        logs.set_up(self._config["log_level"], self._config["log_format"])


def _threads() -> ThreadPoolExecutor:
    """Threads for what waits for a file system. They run from now on: later there may be no more processes to be had."""
    executor = ThreadPoolExecutor(_THREADS, "files")
    together = threading.Barrier(_THREADS)
    for _ in range(_THREADS):
        executor.submit(together.wait)
    return executor


def _load_profile() -> None:
    """What can be done now need not be waited for with the first container, and what is missing is seen in time."""
    try:
        apparmor.load()
    except Error as err:
        _log.warning("containers get no AppArmor profile unless they name one: %s", err)


def _notify(word: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect(address)
            to.sendall(word.encode())
    except OSError as err:
        sys.stderr.write(f"ocirtd: cannot tell systemd: {err}\n")
