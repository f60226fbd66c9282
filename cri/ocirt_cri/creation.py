"""Making one container: its image is found, its root, its shim and its document are made, and the shim makes the rest."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ocirt.errors import Error
from ocirt.spans import Span
from ocirt_api.cri.api_pb2 import LinuxContainerResources
from ocirt_api.messages import shim as messages
from ocirt_cri import documents, limits
from ocirt_cri.checkpoint.checkpoints import is_possible
from ocirt_cri.leftovers import BUNDLE
from ocirt_cri.lookups import HostLookups
from ocirt_cri.sandboxes import is_plain, request_of
from ocirt_cri.shims import Shim
from ocirt_cri.spec import build, imagevolumes, inforce, inputs, resources
from ocirt_cri.spec.document import encode

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_cri.images.image import Image
    from ocirt_cri.model import Container, Sandbox
    from ocirt_cri.node import Node
    from ocirt_cri.rootfs import Root
    from ocirt_images.config import ImageConfig

_PATIENCE = 120.0  # seconds for a shim to make a container
_FOR_OTHERS = "1.0.2"  # of the runtime specification: crun before 1.8.4 takes no other than 1.0.x ("unknown version specified")
_log = logging.getLogger(__name__)


class Creation:
    """One container on its way. `look` finds out what is needed, and `make` makes it."""

    def __init__(self, node: Node, sandbox: Sandbox, container: Container) -> None:
        self._node = node
        self._sandbox = sandbox
        self._container = container
        self._settings = node.config_of(sandbox.status.runtime_handler)
        self._command = node.config.command(sandbox.status.runtime_handler)
        self._host = node.host
        self._image: Image
        self._config: ImageConfig

    async def look(self) -> None:
        """Nothing is made here. Raises Error."""
        node, status = self._node, self._container.status
        wanted = self._container.config.image
        self._host = await node.host_of(self._sandbox.status.runtime_handler)
        self._image = await node.images.catalog.get(wanted.image, "config.image.image")
        self._config = await node.images.config(self._image)
        message = self._image.message
        status.image_id = message.id
        status.image_ref = message.repo_digests[0] if message.repo_digests else message.id
        names = [*message.repo_tags, *message.repo_digests, message.id]
        status.image.CopyFrom(wanted)
        status.image.image = wanted.image if wanted.image in names else names[0]

    async def make(self) -> Shim:
        """Everything up to an init that waits; a connection to its shim. The caller takes back what fails. Raises Error."""
        # At the same time: the fork does not wait for directories.
        root, shim = await asyncio.gather(self._root(), self._shim(), return_exceptions=True)
        for one in (root, shim):
            if isinstance(one, BaseException):
                raise one
        assert isinstance(shim, Shim)
        assert not isinstance(root, BaseException)
        with Span("daemon", "build"):
            built = await self._build(root)
        built = replace(built, document=await self._node.nri.create(self._sandbox, self._container, built.document))
        self._container.process = dict(built.document["process"])
        needs_bundle = self._command or built.document.get("hooks")
        bundle = await asyncio.to_thread(self._bundle, built.document) if needs_bundle else ""
        keeping = asyncio.create_task(self._keep(built.document), name=f"document of {self._container.id}")
        try:
            answer = await shim.call("Create", self._request(built, root, bundle), messages.CreateResponse, _PATIENCE)
        finally:
            await keeping
        self._container.pid = answer.pid
        with Span("daemon", "limits"):
            await asyncio.to_thread(self._limits)
        return shim

    async def _keep(self, document: inputs.Json) -> None:
        """Keep its document, while the shim makes it, if anybody may look at it later."""
        node, container = self._node, self._container

        def keep() -> None:
            if node.nri.sees_containers or is_possible():
                documents.keep(node.container_directory(container.id), document)

        try:
            await asyncio.to_thread(keep)
        except OSError as err:
            _log.warning("container %s: its config.json was not kept for NRI and checkpoints: %s", container.id, err)

    def _limits(self) -> None:
        """The status shows those that are in force. In a thread: it reads files."""
        node, container = self._node, self._container
        asked = LinuxContainerResources()
        asked.CopyFrom(container.config.linux.resources)
        asked.oom_score_adj = resources.oom_score_adj(asked, node.host)
        seen = limits.read(node.locate(container.id), asked)
        container.status.resources.linux.CopyFrom(inforce.reported(asked, seen))

    async def _root(self) -> Root:
        node, container = self._node, self._container
        # With the ids of the image, also in a user namespace: its overlay maps the layer above as it maps those below.
        with Span("daemon", "root"):
            return await node.roots.create(container.id, self._image, size=self._settings["containers.disk_limit"])

    async def _shim(self) -> Shim:
        node, container = self._node, self._container
        with Span("daemon", "shim"):
            if self._command:
                shim = await node.fork_shim(container.id, self._command)
            else:
                alone = self._settings["containers.own_process"]
                shared = None if alone else await node.share_shim(container.id, container.pod_id)
                shim = shared or await node.spares.take(container.id)
        node.shims[container.id] = shim
        return shim

    async def _build(self, root: Root) -> build.Built:
        volumes = await self._volumes()
        paths = await self._paths()
        built = await asyncio.to_thread(self._built, root.lowers, volumes, paths)
        status, container = self._container.status, self._container
        container.stop_signal = built.stop_signal.number
        status.stop_signal = built.stop_signal.status
        status.log_path = built.log_path
        status.mounts.extend(built.mounts)
        status.user.linux.uid, status.user.linux.gid = built.user.uid, built.user.gid
        status.user.linux.supplemental_groups.extend(built.user.groups)
        return built

    def _built(self, lowers: tuple[Path, ...], volumes: dict[int, inputs.ImageVolume], paths: dict[str, Any]) -> build.Built:
        """In a thread: it looks at files."""
        node, sandbox, container = self._node, self._sandbox, self._container
        spaces, files = paths["namespaces"], sandbox.files
        pod = inputs.Pod(
            id=sandbox.id,
            config=sandbox.config,
            network=spaces.get("network", ""),
            ipc=spaces.get("ipc", ""),
            uts=spaces.get("uts", ""),
            user=spaces.get("user", ""),
            pid=spaces.get("pid", ""),
            hosts=files.get("hosts", ""),
            resolv_conf=files.get("resolv.conf", ""),
            hostname_file=files.get("hostname", ""),
            shm=paths["shm"],
            hostname=sandbox.hostname,
        )
        asked = inputs.Container(
            id=container.id,
            config=container.config,
            image=self._config,
            image_name=container.status.image.image,
            directory=node.container_directory(container.id),
            volumes=volumes,
        )
        with HostLookups(lowers, self._pid_namespace) as lookups:
            built = build.build(pod, asked, self._host, self._settings.settings(), lookups)
        if built.relabel:
            raise Error("unsupported", "ocirtd does not label files for SELinux yet", subject="config.mounts")
        for directory in built.directories:
            _make_directory(directory)
        if built.log_path:
            os.makedirs(os.path.dirname(built.log_path), 0o755, exist_ok=True)
        return built

    async def _paths(self) -> dict[str, Any]:
        """Where the pod's namespaces and its /dev/shm are."""
        node, sandbox = self._node, self._sandbox
        if not is_plain(sandbox) and (not sandbox.reached or sandbox.reached != node.networks.generation):
            found = await node.networks.paths(request_of(node, sandbox))
            sandbox.reached = node.networks.generation
            sandbox.namespaces = {kind: str(path) for kind, path in found["namespaces"].items()}
        return {"namespaces": sandbox.namespaces, "shm": sandbox.files.get("shm", "")}

    async def _volumes(self) -> dict[int, inputs.ImageVolume]:
        """The images that the container mounts, each as one mount."""
        node, container = self._node, self._container
        found: dict[int, inputs.ImageVolume] = {}
        for wanted in imagevolumes.wanted_volumes(self._sandbox.config, container.config, self._host):
            image = await node.images.catalog.find(wanted.image, f"config.mounts[{wanted.number}].image.image")
            if image is not None:
                path = await node.volumes.mount(container.id, wanted.number, image, wanted.sub_path)
                found[wanted.number] = inputs.ImageVolume(paths=(path,), image_ref=image.id)
        return found

    def _pid_namespace(self, identifier: str) -> str:
        """Of a running container of the same pod."""
        found = self._node.all_containers.get(identifier)
        if found is None or found.pod_id != self._sandbox.id or not found.is_running or not found.pid:
            return ""
        return f"/proc/{found.pid}/ns/pid"

    def _bundle(self, document: inputs.Json) -> str:
        """In a thread: a bundle for hooks, which are told of one, and where those that look for it find the container's root.

        A runtime that is not ours finds all that it is to do there.
        """
        bundle = os.path.join(self._node.container_directory(self._container.id), BUNDLE)
        if self._command:
            document = {**document, "ociVersion": _FOR_OTHERS}
        os.makedirs(os.path.join(bundle, document["root"]["path"]), exist_ok=True)
        with open(os.path.join(bundle, "config.json"), "wb") as file:
            file.write(encode(document))
        return bundle

    def _request(self, built: build.Built, root: Root, bundle: str) -> messages.CreateRequest:
        node, container = self._node, self._container
        uids, gids = built.ids.documents() if built.ids is not None else ([], [])
        overlay = messages.Overlay(
            lowers=[os.fspath(one) for one in root.lowers],
            upper=os.fspath(root.upper),
            work=os.fspath(root.work),
            volatile=True,
            uids=_mappings(uids),
            gids=_mappings(gids),
        )
        return messages.CreateRequest(
            id=container.id,
            state=node.shim_directory(container.id),
            bundle=bundle,
            config=encode(built.document),
            root=overlay,
            stdin=container.config.stdin,
            stdin_once=container.config.stdin_once,
            terminal=bool(built.document["process"].get("terminal")),
            log_path=built.log_path,
            log_line_limit=self._settings["containers.log_line_limit"],
            log_size_limit=self._settings["containers.log_size_limit"],
            log_rate_limit=self._settings["containers.log_rate_limit"],
            cgroup_manager=node.config["cgroups.manager"],
        )


def _make_directory(wanted: inputs.Directory) -> None:
    """Make one, unless somebody else was quicker: what is there keeps its owner and its mode. Raises OSError."""
    path = wanted.path.rstrip("/")
    os.makedirs(os.path.dirname(path), wanted.mode, exist_ok=True)
    try:
        os.mkdir(path, wanted.mode)
    except FileExistsError:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(fd, wanted.uid, wanted.gid)
    finally:
        os.close(fd)


def _mappings(documents: list[dict[str, Any]]) -> list[messages.IDMapping]:
    return [messages.IDMapping(container_id=one["containerID"], host_id=one["hostID"], size=one["size"]) for one in documents]
