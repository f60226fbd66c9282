"""The daemon as a process, and a client of it: pods and containers of a small image."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as stubs
from ocirt_images import platforms
from tests.support import images
from tests.support.build import ROOT
from tests.support.bundle import make_rootfs
from tests.support.isolation import umount
from tests.support.patience import patience
from tests.support.registry import LocalRegistry

PATIENCE = patience(30.0)
_OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.max_receive_message_length", 16 << 20))
_numbers = itertools.count()


def busybox_image(place: Path, **config: Any) -> images.Image:
    """An image with the tests' busybox and files."""
    here = {"os": "linux", "architecture": platforms.host().architecture}
    wanted = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], **config}
    return images.image([images.layer(images.tree(make_rootfs(place)))], config=wanted, platform=here)


class Ocirtd:
    """One daemon's directories, and the process while it runs. `place` has a short path: sockets lie below it."""

    def __init__(self, place: Path, cgroup_parent: str, manager: str = "cgroupfs") -> None:
        self.place = place
        self.cgroup_parent = cgroup_parent
        self.config = place / "ocirtd.toml"
        self.nri = place / "n"
        tables = (
            f'[cgroups]\nmanager = "{manager}"',
            "[images]\nsync = false",
            f'[network]\nconfig_dir = "{place}/net.d"',
            f'[nri]\nsocket = "{self.nri}"\nplugins = "{place}/nri.d"\nconfig_dir = "{place}/nri.conf.d"',
        )
        self.config.write_text("\n".join(tables) + "\n")
        self.log = place / "log"
        self.socket = place / "s"
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None
        self.runtime: stubs.RuntimeServiceStub
        self.images: stubs.ImageServiceStub
        self.image = ""

    @property
    def command(self) -> list[str]:
        """How it is started."""
        flags = {"config": self.config, "root": self.place / "r", "state": self.place / "v", "listen": f"unix://{self.socket}"}
        return [str(ROOT / "build" / "ocirtd"), *(f"--{name}={value}" for name, value in flags.items()), "--log-level=debug"]

    @property
    def environment(self) -> dict[str, str]:
        """What it is started with: nothing of the machine's that images would take."""
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return env | {"OCIRT_CERTS_D": str(self.place / "certs.d"), "HOME": str(self.place)}

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=ROOT
            )
        self.connect()

    def connect(self) -> None:
        """Be its client, and wait until it is ready."""
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=_OPTIONS)
        self.runtime = stubs.RuntimeServiceStub(self._channel)
        self.images = stubs.ImageServiceStub(self._channel)
        self.until(self.is_ready, "it to be ready")

    def is_ready(self) -> bool:
        """Whether it answers, and has found what an earlier one has left."""
        assert self.process is None or self.process.poll() is None, self.log.read_text()
        try:
            found = self.runtime.Status(cri.StatusRequest(), timeout=PATIENCE)
        except grpc.RpcError:
            return False
        return bool(found.status.conditions[0].status)

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        """Wait for it."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.log.read_text()}"
            time.sleep(0.01)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, to which it has to end well."""
        assert self._end(signal.SIGTERM) == 0, self.log.read_text()

    def _end(self, number: int) -> int:
        assert self.process is not None
        self.disconnect()
        self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def disconnect(self) -> None:
        """Be no client any more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def pull(self, registry: LocalRegistry, name: str, tag: str) -> str:
        """Have an image; its id."""
        spec = cri.ImageSpec(image=f"{registry.address}/{name}:{tag}")
        found = self.images.PullImage(cri.PullImageRequest(image=spec), timeout=PATIENCE)
        self.image = found.image_ref
        return str(found.image_ref)

    # -- pods and containers --

    def pod_config(self, name: str = "", **more: Any) -> cri.PodSandboxConfig:
        """Of a pod with all of the node's namespaces but for pids, which its containers have of their own."""
        number = next(_numbers)
        options = more.pop("options", cri.NamespaceOption(network=cri.NODE, ipc=cri.NODE, pid=cri.CONTAINER))
        return cri.PodSandboxConfig(
            metadata=cri.PodSandboxMetadata(name=name or f"pod{number}", uid=f"uid{number}", namespace="default"),
            log_directory=str(self.place / "logs" / str(number)),
            linux=cri.LinuxPodSandboxConfig(
                cgroup_parent=self.cgroup_parent,
                security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
            ),
            **more,
        )

    def run_pod(self, config: cri.PodSandboxConfig | None = None) -> str:
        """A new pod's id."""
        request = cri.RunPodSandboxRequest(config=config or self.pod_config())
        return str(self.runtime.RunPodSandbox(request, timeout=PATIENCE).pod_sandbox_id)

    def container_config(self, *command: str, name: str = "", **more: Any) -> cri.ContainerConfig:
        """Of a container that runs a command, with a log."""
        name = name or f"c{next(_numbers)}"
        linux = more.pop("linux", cri.LinuxContainerConfig())
        linux.security_context.namespace_options.pid = cri.CONTAINER
        return cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=self.image),
            command=command,
            log_path=f"{name}.log",
            linux=linux,
            **more,
        )

    def create(self, pod: str, config: cri.ContainerConfig) -> str:
        """A new container's id."""
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=config)
        return str(self.runtime.CreateContainer(request, timeout=PATIENCE).container_id)

    def start_container(self, identifier: str) -> None:
        """Run its program."""
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=identifier), timeout=PATIENCE)

    def run(self, pod: str, *command: str, **more: Any) -> str:
        """A new container that runs a command; its id."""
        identifier = self.create(pod, self.container_config(*command, **more))
        self.start_container(identifier)
        return identifier

    def status(self, identifier: str) -> cri.ContainerStatus:
        """A container's."""
        request = cri.ContainerStatusRequest(container_id=identifier)
        return self.runtime.ContainerStatus(request, timeout=PATIENCE).status

    def pod_status(self, identifier: str) -> cri.PodSandboxStatus:
        """A pod's."""
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=identifier)
        return self.runtime.PodSandboxStatus(request, timeout=PATIENCE).status

    def wait(self, identifier: str) -> cri.ContainerStatus:
        """Wait for its end."""
        self.until(lambda: self.status(identifier).state == cri.CONTAINER_EXITED, "the container's end")
        return self.status(identifier)

    def exec(self, identifier: str, *command: str, timeout: int = 0) -> cri.ExecSyncResponse:
        """Run one more program in a container."""
        return self.runtime.ExecSync(
            cri.ExecSyncRequest(container_id=identifier, cmd=command, timeout=timeout), timeout=PATIENCE + timeout
        )

    def logged(self, identifier: str) -> list[tuple[str, str, str]]:
        """Stream, tag and text of what a container's log has."""
        found = []
        for line in Path(self.status(identifier).log_path).read_text().splitlines():
            _, stream, tag, text = line.split(" ", 3)
            found.append((stream, tag, text))
        return found

    def stop_container(self, identifier: str, seconds: int = 0) -> None:
        """Stop it."""
        request = cri.StopContainerRequest(container_id=identifier, timeout=seconds)
        self.runtime.StopContainer(request, timeout=PATIENCE + seconds)

    def remove_container(self, identifier: str) -> None:
        """Remove it."""
        self.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=identifier), timeout=PATIENCE)

    def stop_pod(self, identifier: str) -> None:
        """Stop it."""
        self.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=identifier), timeout=PATIENCE)

    def remove_pod(self, identifier: str) -> None:
        """Remove it."""
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=identifier), timeout=PATIENCE)

    def pods(self, **wanted: Any) -> list[cri.PodSandbox]:
        """All, or those that a filter names."""
        request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(**wanted))
        return list(self.runtime.ListPodSandbox(request, timeout=PATIENCE).items)

    def containers(self, **wanted: Any) -> list[cri.Container]:
        """All, or those that a filter names."""
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(**wanted))
        return list(self.runtime.ListContainers(request, timeout=PATIENCE).containers)

    def clear(self) -> None:
        """Remove all pods, and end."""
        if self.process is not None:
            for pod in self.pods():
                self.remove_pod(pod.id)
            self.stop()

    def forget(self) -> None:
        """Unmount what stays when a daemon ends: the mount namespace that keeps those of pods."""
        for place in ("v/keeper/mnt", "v/keeper"):
            with contextlib.suppress(OSError):
                umount(str(self.place / place))

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Around what is done with it: nothing of its pods is left then, and it ends in any case."""
        try:
            yield
            self.clear()
            assert self.left() == []
        finally:
            if self.process is not None:
                self.kill()
            self.forget()

    def left(self) -> list[str]:
        """What is in its directories that a daemon without pods should not have. Compiled filters are kept, as @seccomp."""
        places = ("v/shims", "v/pods", "v/runtime", "r/containers", "r/images/writables")
        found = [one for name in places if (self.place / name).is_dir() for one in (self.place / name).iterdir()]
        return [str(one) for one in found if one.name != "@seccomp"]


class Wrapped(Ocirtd):
    """The daemon's code in a program of the tests: `module` is called with the daemon's place, and then its arguments."""

    module = ""

    @property
    def command(self) -> list[str]:
        """How it is started."""
        return [sys.executable, "-m", self.module, str(self.place), *super().command[1:]]

    @property
    def environment(self) -> dict[str, str]:
        """With the folders of packages, which the launcher finds by itself."""
        folders = (ROOT, *(ROOT / floor for floor in ("api", "images", "cni", "shim", "cri")))
        return super().environment | {"PYTHONPATH": ":".join(map(str, folders))}


@contextlib.contextmanager
def refused(code: grpc.StatusCode) -> Iterator[list[str]]:
    """A call in the block fails with this code; its text is in the list afterwards."""
    words: list[str] = []
    try:
        yield words
    except grpc.RpcError as err:
        words.append(err.details() or "")
        assert err.code() == code, f"{err.code()}: {err.details()}"
    else:
        raise AssertionError(f"no {code}")
