"""The metrics of pods, as the CRI's messages. In a thread: it reads files."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ocirt.cgroups.layout import detect
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats import cgroups, descriptors, network, values
from ocirt_cri.stats.disks import Disks
from ocirt_cri.stats.insides import Insides
from ocirt_cri.stats.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ocirt_cri.stats.cgroups import Usage
    from ocirt_cri.stats.disks import Disk
    from ocirt_cri.stats.layers import LayerUsage, Written
    from ocirt_cri.stats.sources import Container, Pod

_POD = "POD"  # what a pod's own values have where others have the name of their container
_NO_IMAGE = "none"  # of a pod, which has no process of its own
_SECOND = 1_000_000_000
_PLACES = ("memory", "cpuacct", "pids", "")  # the hierarchies whose path may be the label `id`, the first that there is
_KINDS = {name: descriptors.kind(name) for name in descriptors.TABLE}


class Metrics:
    """Reads cgroups and the files of processes. Threads share it. mountpoint: where containers write."""

    def __init__(self, layers: LayerUsage, mountpoint: str) -> None:
        """Raises OSError without a /proc."""
        self._mounts = detect().mounts
        self._layers = layers
        self._mountpoint = mountpoint
        self._links = network.Links()
        self._disks = Disks()
        self._insides = Insides()
        self._peaks: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the socket to the kernel."""
        self._links.close()

    def keep(self, containers: Iterable[Container]) -> None:
        """Forget what is remembered of all others."""
        names = {one.id for one in containers}
        with self._lock:
            self._insides.keep(names)
            self._peaks = {key: peak for key, peak in self._peaks.items() if key[0] in names}

    def pods(self, pods: Iterable[tuple[Pod, Iterable[Container]]]) -> list[cri.PodSandboxMetrics]:
        """Of pods with these containers, of which those count that run. Raises OSError."""
        found = []
        with self._lock:
            for pod, containers in pods:
                running = [one for one in containers if one.is_running]
                written = self._layers.look([one.id for one in running])
                found.append(
                    cri.PodSandboxMetrics(
                        pod_sandbox_id=pod.id,
                        metrics=_messages(self._labels(pod), self._network(pod, running)),
                        container_metrics=[
                            one for each in running if (one := self._container(pod, each, written.get(each.id))) is not None
                        ],
                    )
                )
        return found

    def _container(self, pod: Pod, container: Container, written: Written | None) -> cri.ContainerMetrics | None:
        """None: it has ended."""
        usage = cgroups.read(container.cgroup)
        if usage is None:
            return None
        found = list(self._values(container, usage, written))
        labels = (
            self._place(container.cgroup) or container.id,
            container.id,
            container.image or _NO_IMAGE,
            container.metadata.name,
            pod.metadata.name,
            pod.metadata.namespace,
        )
        return cri.ContainerMetrics(container_id=container.id, metrics=_messages(labels, found))

    def _values(self, container: Container, usage: Usage, written: Written | None) -> Iterator[Value]:
        paths = container.cgroup
        yield Value("container_last_seen", usage.timestamp // _SECOND)
        yield Value("container_start_time_seconds", container.started_at // _SECOND)
        yield from values.of_cpu(paths, usage)
        yield from values.of_memory(paths, usage)
        yield from self._huge_pages(container)
        yield from values.of_pressure(usage)
        yield from values.of_limits(container.limits, usage)
        disk = self._disk(container)
        yield from values.of_disks(paths, self._disks, disk)
        if written is not None:
            yield Value("container_fs_usage_bytes", written.size, (disk.device,))
        yield Value("container_fs_limit_bytes", disk.size, (disk.device,))
        yield Value("container_fs_inodes_total", disk.inodes, (disk.device,))
        yield Value("container_fs_inodes_free", disk.free, (disk.device,))
        yield from self._processes(container)

    def _disk(self, container: Container) -> Disk:
        path = self._layers.path(container.id)
        try:
            return self._disks.of(os.fspath(path or self._mountpoint))
        except FileNotFoundError:
            return self._disks.of(self._mountpoint)

    def _huge_pages(self, container: Container) -> Iterator[Value]:
        """Version 2 keeps no peak: then it is the most that was ever seen here."""
        for size, used, peak in values.of_huge_pages(container.cgroup):
            key = (container.id, size)
            seen = self._peaks[key] = max(used, self._peaks.get(key, 0))
            yield Value("container_hugetlb_usage_bytes", used, (size,))
            yield Value("container_hugetlb_max_usage_bytes", seen if peak is None else peak, (size,))

    def _processes(self, container: Container) -> Iterator[Value]:
        inside = self._insides.look(container.id, container.cgroup, container.pid)
        threads, most = values.of_threads(container.cgroup)
        yield Value("container_processes", inside.processes)
        yield Value("container_file_descriptors", inside.descriptors)
        yield Value("container_sockets", inside.sockets)
        yield Value("container_threads", inside.threads if threads is None else threads)
        yield Value("container_threads_max", most or 0)
        if inside.files is not None:
            yield Value("container_ulimits_soft", inside.files, ("max_open_files",))

    def _network(self, pod: Pod, containers: list[Container]) -> Iterator[Value]:
        for one in network.of_pod(self._links, pod.netns, next((one.pid for one in containers if one.pid), 0)):
            label = (one.name,)
            yield Value("container_network_receive_bytes_total", one.received, label)
            yield Value("container_network_receive_errors_total", one.receive_errors, label)
            yield Value("container_network_receive_packets_total", one.packets_received, label)
            yield Value("container_network_receive_packets_dropped_total", one.receive_drops, label)
            yield Value("container_network_transmit_bytes_total", one.sent, label)
            yield Value("container_network_transmit_errors_total", one.send_errors, label)
            yield Value("container_network_transmit_packets_total", one.packets_sent, label)
            yield Value("container_network_transmit_packets_dropped_total", one.send_drops, label)

    def _labels(self, pod: Pod) -> tuple[str, ...]:
        return (self._place(pod.cgroup) or pod.id, pod.id, _NO_IMAGE, _POD, pod.metadata.name, pod.metadata.namespace)

    def _place(self, cgroup: Mapping[str, str]) -> str:
        """A cgroup's path below the root of its hierarchy; "" if there is none."""
        controller = next((one for one in _PLACES if one in cgroup and one in self._mounts), None)
        return "" if controller is None else cgroup[controller].removeprefix(self._mounts[controller])


def _messages(labels: tuple[str, ...], found: Iterable[Value]) -> list[cri.Metric]:
    """A time of 0: they were read for this call."""
    return [
        cri.Metric(
            name=one.name,
            metric_type=_KINDS[one.name],
            label_values=[*labels, *one.labels],
            value=cri.UInt64Value(value=one.value),
        )
        for one in found
    ]
