"""Looks at containers and pods as the CRI's messages. In a thread: it reads files."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats import cgroups, network
from ocirt_cri.stats.rates import Rates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocirt_cri.stats.cgroups import Pressure, Usage
    from ocirt_cri.stats.layers import LayerUsage
    from ocirt_cri.stats.sources import Container, Pod

    Pressures = dict[str, Pressure] | None


class Collector:
    """Reads cgroups, and remembers what processor time each had used. Threads share it. mountpoint: where containers write."""

    def __init__(self, layers: LayerUsage, mountpoint: str) -> None:
        self._layers = layers
        self._mountpoint = mountpoint
        self._links = network.Links()
        self._rates = Rates()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the socket to the kernel."""
        self._links.close()

    def sample(self, containers: Iterable[Container], pods: Iterable[Pod]) -> None:
        """A look at processor times alone, so that there is an earlier one whenever somebody asks."""
        paths = {one.id: one.cgroup for one in containers} | {one.id: one.cgroup for one in pods if one.cgroup}
        for name, cgroup in paths.items():
            used = cgroups.cpu(cgroup)
            if used is not None:
                self._rate(name, used)
        with self._lock:
            self._rates.keep(paths)

    def containers(self, containers: Iterable[Container]) -> list[cri.ContainerStats]:
        """Those of these that run; one that has ended since is left out."""
        return [found for one in containers if (found := self._running(one)) is not None]

    def container(self, container: Container) -> cri.ContainerStats:
        """One of them: of a container that does not run, what it has written."""
        return self._running(container) or self._described(container)

    def pod(self, pod: Pod, containers: Iterable[Container]) -> cri.PodSandboxStats:
        """A pod with these containers."""
        mine = [one for one in containers if one.is_running]
        usages = [(one, usage) for one in mine if (usage := cgroups.read(one.cgroup)) is not None]
        found = cri.PodSandboxStats()
        attributes = found.attributes
        attributes.id = pod.id
        attributes.metadata.CopyFrom(pod.metadata)
        attributes.labels.update(pod.labels)
        attributes.annotations.update(pod.annotations)
        linux = found.linux
        linux.containers.extend(self._message(one, usage) for one, usage in usages)
        whole = cgroups.read(pod.cgroup) if pod.cgroup else None
        if whole is not None:
            rate = None if whole.cpu is None else self._rate(pod.id, whole.cpu)
            _fill(whole, rate, linux.cpu, linux.memory, linux.io)
            count = len(cgroups.processes(pod.cgroup))
        else:
            whole = _sum([usage for _, usage in usages])
            rates = [one.cpu.usage_nano_cores.value for one in linux.containers if one.cpu.HasField("usage_nano_cores")]
            _fill(whole, sum(rates) if rates or not mine else None, linux.cpu, linux.memory, linux.io)
            count = sum(len(cgroups.processes(one.cgroup)) for one in mine)
        linux.process.timestamp = whole.timestamp
        linux.process.process_count.value = count
        self._network(pod, mine, linux)
        return found

    def _running(self, container: Container) -> cri.ContainerStats | None:
        usage = cgroups.read(container.cgroup) if container.is_running else None
        return None if usage is None else self._message(container, usage)

    def _described(self, container: Container) -> cri.ContainerStats:
        found = cri.ContainerStats()
        attributes = found.attributes
        attributes.id = container.id
        attributes.metadata.CopyFrom(container.metadata)
        attributes.labels.update(container.labels)
        attributes.annotations.update(container.annotations)
        written = self._layers.get(container.id)
        if written is not None:
            layer = found.writable_layer
            layer.timestamp = written.timestamp
            layer.fs_id.mountpoint = self._mountpoint
            layer.used_bytes.value = written.size
            if written.inodes is not None:
                layer.inodes_used.value = written.inodes
        return found

    def _message(self, container: Container, usage: Usage) -> cri.ContainerStats:
        found = self._described(container)
        rate = None if usage.cpu is None else self._rate(container.id, usage.cpu)
        _fill(usage, rate, found.cpu, found.memory, found.io)
        if usage.swap is not None:
            found.swap.timestamp = usage.timestamp
            found.swap.swap_usage_bytes.value = usage.swap
            if usage.swap_limit is not None:
                found.swap.swap_available_bytes.value = max(0, usage.swap_limit - usage.swap)
        return found

    def _rate(self, name: str, used: int) -> int | None:
        with self._lock:
            return self._rates.see(name, time.monotonic_ns(), used)

    def _network(self, pod: Pod, containers: list[Container], linux: cri.LinuxPodSandboxStats) -> None:
        """The counters of its interfaces; none for a pod in the host's network, or whose namespace is gone."""
        found = network.of_pod(self._links, pod.netns, next((one.pid for one in containers if one.pid), 0))
        if not found:
            return
        linux.network.timestamp = time.time_ns()
        default = next((one for one in found if one.name == pod.interface), found[0])
        for one in found:
            message = linux.network.default_interface if one is default else linux.network.interfaces.add()
            message.name = one.name
            message.rx_bytes.value = one.received
            message.rx_errors.value = one.receive_errors
            message.tx_bytes.value = one.sent
            message.tx_errors.value = one.send_errors


def _fill(usage: Usage, rate: int | None, cpu: cri.CpuUsage, memory: cri.MemoryUsage, io: cri.IoUsage) -> None:
    cpu.timestamp = memory.timestamp = usage.timestamp
    if usage.cpu is not None:
        cpu.usage_core_nano_seconds.value = usage.cpu
    if rate is not None:
        cpu.usage_nano_cores.value = rate
    for message, value in (
        (memory.usage_bytes, usage.memory),
        (memory.working_set_bytes, usage.working_set),
        (memory.available_bytes, usage.available),
        (memory.rss_bytes, usage.anonymous),
        (memory.page_faults, usage.faults),
        (memory.major_page_faults, usage.major_faults),
    ):
        if value is not None:
            message.value = value
            message.SetInParent()  # 0 is a value, too
    _pressure(cpu.psi, usage.pressure.get("cpu"))
    _pressure(memory.psi, usage.pressure.get("memory"))
    if "io" in usage.pressure:
        io.timestamp = usage.timestamp
        _pressure(io.psi, usage.pressure["io"])


def _pressure(message: cri.PsiStats, found: Pressures) -> None:
    for kind, part in (("some", message.Some), ("full", message.Full)):
        one = (found or {}).get(kind)
        if one is not None:
            part.Total, part.Avg10, part.Avg60, part.Avg300 = one.total, one.avg10, one.avg60, one.avg300
            part.SetInParent()


def _sum(usages: list[Usage]) -> Usage:
    """Several cgroups together, without what cannot be added up: limits and pressure."""
    whole = cgroups.Usage(time.time_ns(), cpu=0, memory=0, anonymous=0, faults=0, major_faults=0)
    for name in ("cpu", "memory", "anonymous", "faults", "major_faults", "inactive_file"):
        setattr(whole, name, sum(getattr(one, name) or 0 for one in usages))
    return whole
