"""CRI endpoints for a measurement: ocirtd, and containerd 2 with runc, each with an image; the pods that are asked of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import grpc

from conformance import goprograms
from conformance.drivers import Containerd, Machine, call, peer
from conformance.nodes import Node
from conformance.test_cri import IMAGE, make_archive
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as services
from tests.support.layouts import Layer, image
from tests.support.runtime import wait_for

_numbers = itertools.count()
_networks_made = itertools.count()


class Pod:
    """A pod with a container that sleeps, or more."""

    def __init__(self, endpoint: Endpoint, config: cri.PodSandboxConfig) -> None:
        self.endpoint = endpoint
        self.config = config
        self.id = ""
        self.containers: list[str] = []

    def start(self) -> None:
        """RunPodSandbox, CreateContainer, StartContainer."""
        self.id = self.endpoint.calls.RunPodSandbox(cri.RunPodSandboxRequest(config=self.config)).pod_sandbox_id
        self.add()

    def add(self) -> None:
        """CreateContainer, StartContainer: one more, which `execute` is for from now on."""
        calls = self.endpoint.calls
        name = f"c{len(self.containers)}"
        options = self.config.linux.security_context.namespace_options
        container = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name=name),
            image=cri.ImageSpec(image=IMAGE),
            command=["/bin/sleep", "2147483647"],
            log_path=f"{name}.log",
            linux=cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(namespace_options=options)),
        )
        request = cri.CreateContainerRequest(pod_sandbox_id=self.id, config=container, sandbox_config=self.config)
        self.containers.append(calls.CreateContainer(request).container_id)
        calls.StartContainer(cri.StartContainerRequest(container_id=self.containers[-1]))

    def execute(self, *command: str) -> None:
        """ExecSync. Raises AssertionError unless the command succeeds."""
        done = self.endpoint.calls.ExecSync(cri.ExecSyncRequest(container_id=self.containers[-1], cmd=command, timeout=30))
        assert done.exit_code == 0, done

    def end(self) -> None:
        """StopContainer(0) of each container, StopPodSandbox, RemovePodSandbox."""
        calls = self.endpoint.calls
        for container in self.containers:
            calls.StopContainer(cri.StopContainerRequest(container_id=container, timeout=0))
        calls.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=self.id))
        calls.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self.id))


class Endpoint:
    """A CRI server that runs; `stop` ends it."""

    def __init__(
        self, name: str, socket: Path, machine: Machine, pids: Callable[[], list[int]], stop: Callable[[], None]
    ) -> None:
        self.name = name
        self.machine = machine
        self.logs = socket.parent / "pod-logs"
        self.logs.mkdir(exist_ok=True)
        self._pids = pids
        self._stop = stop
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=[("grpc.default_authority", "localhost")])
        self.calls = services.RuntimeServiceStub(self._channel)

    def describe(self, *, host_network: bool) -> Pod:
        """A pod that is not there yet."""
        name = f"p{next(_numbers)}"
        mode = cri.NODE if host_network else cri.POD
        options = cri.NamespaceOption(network=mode, pid=cri.CONTAINER)
        return Pod(
            self,
            cri.PodSandboxConfig(
                metadata=cri.PodSandboxMetadata(name=name, uid=name, namespace="bench"),
                hostname="" if host_network else name,
                log_directory=str(self.logs / name),
                linux=cri.LinuxPodSandboxConfig(
                    cgroup_parent=self.machine.cgroup_parent,
                    security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
                ),
            ),
        )

    def stats(self, number: int) -> None:
        """ListContainerStats. Raises AssertionError unless it has so many."""
        found = self.calls.ListContainerStats(cri.ListContainerStatsRequest()).stats
        assert len(found) == number, len(found)

    def processes(self) -> list[int]:
        """The daemon and all its shims; not what the pods run."""
        return self._pids()

    def memory(self) -> float:
        """PSS of the daemon and all its shims, in MiB; what the pods run does not count."""
        total = 0
        for pid in self._pids():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024

    def stop(self) -> None:
        """End it."""
        self._channel.close()
        self._stop()


def _infrastructure(machine: Machine) -> list[int]:
    """The processes that are no pod's: those whose program is not the sleep of a container."""
    found = []
    for pid in machine.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words[0] != b"/bin/sleep":
            found.append(pid)
    return found


def _networks(place: Path) -> Path:
    """A folder with a network list: the same for all, but for its addresses and its bridge."""
    place.mkdir(parents=True, exist_ok=True)
    number = next(_networks_made)
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": f"10.{97 + number}.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{place}/ipam",
    }
    plugins = [
        {"type": "bridge", "bridge": f"bench{number}", "isGateway": True, "ipMasq": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    (place / "10-bench.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "bench", "plugins": plugins}))
    return place


def build() -> None:
    """Have all programs of others."""
    from conformance.cniplugins import programs  # noqa: PLC0415  (it needs Go)

    programs()
    goprograms.containerd2()


def containerd(machine: Machine) -> Endpoint:
    """containerd 2 with runc, the reference plugins, and the image."""
    from conformance.cniplugins import programs  # noqa: PLC0415  (it needs Go)

    place = machine.path / "ctr-containerd"
    others = set(machine.processes())
    made = Containerd(machine, "ctr", runtimes={"runc": peer()}, sandbox_image=IMAGE, programs=goprograms.containerd2())
    try:
        networks = _networks(place / "cni")
        for program in Path(programs()).iterdir():
            (networks / program.name).symlink_to(program)
        wait_for(made.ready, "containerd", 20)
        archive = make_archive(machine)
        call([*made.argv(), "--namespace", "k8s.io", "images", "import", str(archive)], env=machine.env).ok()
    except BaseException:
        made.stop()
        raise
    return Endpoint(
        "containerd",
        Path(made.address),
        machine,
        lambda: [pid for pid in _infrastructure(machine) if pid not in others and not _is_ours(pid)],
        made.stop,
    )


def executing(machine: Machine) -> Endpoint:
    """ocirtd with the image and the reference plugins, which it executes."""
    from conformance.cniplugins import programs  # noqa: PLC0415  (it needs Go)

    return ocirtd(machine, "ocirtd, reference plugins", plugins=str(programs()))


def ocirtd(machine: Machine, name: str = "ocirtd", *, plugins: str = "", trace: str = "") -> Endpoint:
    """ocirtd with the image. plugins: a directory of plugins that are used instead of its own; trace: see the key."""
    place = "m" if plugins else "n"  # short: a socket's path has 107 bytes
    node = Node(machine, place, _networks(machine.path / f"{place}-networks"))
    if plugins:
        text = node.config.read_text()
        node.config.write_text(text.replace("[network]\n", f'[network]\nbin_dirs = ["{plugins}"]\n'))
    plain = machine.image.read_bytes()
    node.load({IMAGE: image(Layer(plain, plain, ""), Cmd=["sleep", "2147483647"], Env=["PATH=/bin"])})
    if trace:
        node.config.write_text(f'trace = "{trace}"\n' + node.config.read_text())
    others = set(machine.processes())
    node.start()
    return Endpoint(
        name,
        node.socket,
        machine,
        lambda: [pid for pid in _infrastructure(machine) if pid not in others and _is_ours(pid)],
        node.stop,
    )


def _is_ours(pid: int) -> bool:
    """Whether a process is ocirtd, its zygote, or a fork of that: all are interpreters."""
    try:
        return "python" in Path(f"/proc/{pid}/exe").readlink().name or "ocirt" in Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
