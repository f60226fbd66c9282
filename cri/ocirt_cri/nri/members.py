"""Plugins as they come and go: started by us or connected, taken in under the lock of all asking, and dropped."""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from ocirt.errors import Error
from ocirt_api.nri import api_pb2 as nri
from ocirt_cri.nri import launch
from ocirt_cri.nri.asked import Plugins
from ocirt_cri.nri.connection import Connection
from ocirt_cri.nri.listen import Listener
from ocirt_cri.nri.peer import Patience, Peer

if TYPE_CHECKING:
    from ocirt_cri.node import Node
    from ocirt_cri.nri.wishes import Wishes

Everything = tuple[list[nri.PodSandbox], list[nri.Container]]
_log = logging.getLogger(__name__)


class Members:
    """Between `start` and `close`. plugins: those that are asked; lock: held by whoever asks them, or lets one join.

    everything: what a plugin that joins is told; `empty`: called before the first one joins.
    """

    def __init__(
        self, node: Node, wishes: Wishes, everything: Callable[[], Awaitable[Everything]], empty: Callable[[], None]
    ) -> None:
        self.plugins = Plugins()
        self.lock = asyncio.Lock()
        self._node = node
        self._wishes = wishes
        self._everything = everything
        self._empty = empty
        self._peers: set[Peer] = set()
        self._joins: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._evictions: set[asyncio.Task[None]] = set()
        self._own: list[asyncio.Task[None]] = []
        self._begun = asyncio.Event()
        self._listener = Listener(node.config["nri.socket"], self._connected)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is to be asked, and nobody is about to join: only then what happens needs no lock."""
        return not self.plugins and not self.lock.locked()

    async def start(self) -> None:
        """Start what is to be started, and listen. What does not succeed is logged."""
        config = self._node.config
        found, wrong = await asyncio.to_thread(
            launch.wanted, config["nri.plugins"], config["nri.python"], config["nri.config_dir"]
        )
        for err in wrong:
            _log.error("NRI plugin: %s", err)
        for plugin in found:
            await self._launch(plugin)
        try:
            await self._listener.start()
        except OSError as err:
            _log.error("plugins cannot connect at %s: %s", config["nri.socket"], err.strerror or err)

    async def begin(self) -> None:
        """What there is, is known now: wait until plugins of our own have been told of it."""
        self._begun.set()
        await asyncio.gather(*self._own)

    async def close(self) -> None:
        """Tell them, and end them."""
        self._listener.close()
        await asyncio.gather(*(peer.shutdown() for peer in self.plugins))
        for task in (*self._joins, *self._evictions):
            task.cancel()
        for peer in list(self._peers):
            peer.close()
        while self._peers or self._ends:
            await asyncio.sleep(0)  # for `_lost` of the last ones
            await asyncio.gather(*self._ends)

    async def _launch(self, plugin: launch.Launch) -> None:
        try:
            process, ours = await asyncio.to_thread(launch.launch, plugin)
        except OSError as err:
            _log.error("NRI plugin %s-%s cannot be started: %s", plugin.index, plugin.base, err.strerror or err)
            return
        peer = self._peer(plugin, process)
        await asyncio.get_running_loop().create_unix_connection(lambda: peer.connection, sock=ours)
        _log.info("NRI plugin %s was started: process %d", peer.name, process.pid)
        self._own.append(self._join(peer, self._begun))

    def _connected(self, pid: int) -> Connection:
        peer = self._peer()
        _log.info("a plugin has connected: process %d", pid)
        self._join(peer, self._node.recovered)
        return peer.connection

    def _peer(self, plugin: launch.Launch | None = None, process: subprocess.Popen[bytes] | None = None) -> Peer:
        more: dict[str, Any] = {}
        if plugin is not None:
            more = {"index": plugin.index, "base": plugin.base, "config": plugin.config, "launched": process}
        peer = Peer(self._patience, self._unsolicited, self._lost, **more)
        self._peers.add(peer)
        return peer

    def _patience(self) -> Patience:
        config = self._node.config
        return Patience(float(config["nri.registration_timeout"]), float(config["nri.request_timeout"]))

    def _join(self, peer: Peer, until: asyncio.Event) -> asyncio.Task[None]:
        task = asyncio.create_task(self._joining(peer, until), name="an NRI plugin joins")
        self._joins.add(task)
        task.add_done_callback(self._joins.discard)
        return task

    async def _joining(self, peer: Peer, until: asyncio.Event) -> None:
        """From a connection to a plugin that is asked. `until`: what there is, is not known before."""
        try:
            await peer.register()
            await until.wait()
            async with self.lock:
                if not self.plugins:
                    self._empty()
                updates = await peer.synchronize(*await self._everything())
                if peer.is_lost:
                    return
                self.plugins.add(peer)
                _log.info("NRI plugin %s is there; the order is %s", peer.name, ", ".join(one.name for one in self.plugins))
                await self._wishes.apply(updates)
        except Error as err:
            _log.error("%s", err)
            peer.close()
        except Exception:  # noqa: BLE001  (one plugin must not keep others from joining)
            _log.exception("a bug in ocirtd, with NRI plugin %s", peer.name)
            peer.close()

    def _lost(self, peer: Peer) -> None:
        """Its connection has ended."""
        if peer not in self._peers:
            return
        self._peers.discard(peer)
        if self.plugins.drop(peer):
            _log.warning("NRI plugin %s is gone", peer.name)
        if peer.launched is not None:
            task = asyncio.create_task(asyncio.to_thread(launch.end, peer.launched), name=f"end of NRI plugin {peer.name}")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    async def _unsolicited(self, peer: Peer, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
        """Asked without being asked: also in the middle of an answer, so the lock of all asking is not waited for.

        Neither are the ends of containers, of which plugins are told under that lock: they come after the answer.
        """
        if not peer.is_configured:
            raise Error("state", "a plugin changes containers after it was configured", subject=f"NRI plugin {peer.name}")
        failed: Iterable[nri.ContainerUpdate] = await self._wishes.apply(request.update)
        if request.evict:
            task = asyncio.create_task(self._wishes.evict(request.evict), name=f"evictions of NRI plugin {peer.name}")
            self._evictions.add(task)
            task.add_done_callback(self._evictions.discard)
        return nri.UpdateContainersResponse(failed=failed)
