"""Metrics of real containers, as a kubelet asks for them."""

from __future__ import annotations

import os

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MIB = 1 << 20
NAMES = """
    blkio_device_usage_total cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total
    cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total file_descriptors fs_inodes_free
    fs_inodes_total fs_limit_bytes fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total
    fs_writes_total hugetlb_max_usage_bytes hugetlb_usage_bytes last_seen memory_cache memory_failcnt
    memory_failures_total memory_kernel_usage memory_mapped_file memory_max_usage_bytes memory_rss memory_swap
    memory_usage_bytes memory_working_set_bytes network_receive_bytes_total network_receive_errors_total
    network_receive_packets_dropped_total network_receive_packets_total network_transmit_bytes_total
    network_transmit_errors_total network_transmit_packets_dropped_total network_transmit_packets_total oom_events_total
    pressure_cpu_stalled_seconds_total pressure_cpu_waiting_seconds_total pressure_io_stalled_seconds_total
    pressure_io_waiting_seconds_total pressure_memory_stalled_seconds_total pressure_memory_waiting_seconds_total
    processes sockets spec_cpu_period spec_cpu_quota spec_cpu_shares spec_memory_limit_bytes
    spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes start_time_seconds threads threads_max ulimits_soft
"""
EXPECTED = {f"container_{name}" for name in NAMES.split()}
LIMITS = cri.LinuxContainerResources(
    cpu_period=100_000, cpu_quota=20_000, cpu_shares=1024, memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=64 * MIB
)


def descriptors(node: Ocirtd) -> dict[str, cri.MetricDescriptor]:
    found = node.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest(), timeout=10).descriptors
    return {one.name: one for one in found}


def metrics(node: Ocirtd) -> dict[str, cri.PodSandboxMetrics]:
    found = node.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest(), timeout=10).pod_metrics
    return {one.pod_sandbox_id: one for one in found}


def of_container(found: cri.PodSandboxMetrics, identifier: str) -> dict[str, int]:
    (one,) = [one for one in found.container_metrics if one.container_id == identifier]
    return {each.name: each.value.value for each in one.metrics}


def absent() -> set[str]:
    """What this machine's kernel does not tell."""
    pages = {name for name in EXPECTED if "hugetlb" in name}
    pressure = {name for name in EXPECTED if "_pressure_" in name}
    with open("/proc/self/cgroup", encoding="ascii") as file:
        version_1 = any(line.split(":")[1] == "hugetlb" for line in file)
    controllers = "/sys/fs/cgroup/cgroup.controllers"
    if os.path.exists(controllers):
        with open(controllers, encoding="ascii") as file:
            version_1 = version_1 or "hugetlb" in file.read().split()
    return (set() if version_1 else pages) | (set() if os.path.exists("/proc/pressure/cpu") else pressure)


def test_every_name_has_a_value(networked: Ocirtd) -> None:
    node = networked
    described = descriptors(node)
    assert set(described) == EXPECTED
    pod = node.run_pod(node.pod_config(options=cri.NamespaceOption(pid=cri.CONTAINER)))
    made = node.run(pod, "sleep", "1000", linux=cri.LinuxContainerConfig(resources=LIMITS))
    node.exec(made, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo hi > /file$i; done")
    found = metrics(node)[pod]
    everything = [*found.metrics, *(one for each in found.container_metrics for one in each.metrics)]
    assert {one.name for one in everything} == EXPECTED - absent()
    for one in everything:
        assert len(one.label_values) == len(described[one.name].label_keys)
        assert all(one.label_values), one
    assert {one.name for one in found.metrics} == {name for name in EXPECTED if "_network_" in name}
    values = of_container(found, made)
    assert values["container_spec_cpu_quota"] == 20_000
    assert values["container_spec_memory_limit_bytes"] == 64 * MIB
    assert values["container_processes"] == values["container_threads"] == 1
    assert values["container_ulimits_soft"] == 1024
    assert values["container_fs_usage_bytes"] >= 9 * 4096
    assert abs(values["container_start_time_seconds"] - values["container_last_seen"]) < 60


def test_only_what_runs(node: Ocirtd) -> None:
    pod, stopped = node.run_pod(), node.run_pod()
    running = node.run(pod, "sleep", "1000")
    node.create(pod, node.container_config("true"))
    node.wait(node.run(pod, "true"))
    node.stop_pod(stopped)
    found = metrics(node)
    assert list(found) == [pod]
    assert [one.container_id for one in found[pod].container_metrics] == [running]
    assert list(found[pod].metrics) == []  # its network is the node's


def test_labels(node: Ocirtd) -> None:
    pod = node.run_pod(node.pod_config("web"))
    made = node.run(pod, "sleep", "1000", name="app")
    (one,) = metrics(node)[pod].container_metrics
    seen = next(each for each in one.metrics if each.name == "container_last_seen")
    labels = dict(zip(descriptors(node)["container_last_seen"].label_keys, seen.label_values, strict=True))
    assert made in labels["id"]  # with systemd it is a scope
    assert labels["id"].startswith("/")
    assert labels["name"] == made
    assert (labels["container"], labels["pod"], labels["namespace"]) == ("app", "web", "default")
    assert labels["image"] == node.status(made).image.image


def test_a_stream_of_them(node: Ocirtd) -> None:
    pods = [node.run_pod() for _ in range(25)]
    node.run(pods[0], "sleep", "1000")
    parts = list(node.runtime.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest(), timeout=20))
    assert all(part.pod_sandbox_metrics for part in parts)
    assert [one.pod_sandbox_id for part in parts for one in part.pod_sandbox_metrics] == list(metrics(node))
    assert len(parts) == 2


def test_processes_and_sockets(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.run(pod, "sh", "-c", "busybox nc -l -p 0 & sleep 1000 & wait")
    node.until(lambda: of_container(metrics(node)[pod], made)["container_sockets"] == 1, "the socket")
    values = of_container(metrics(node)[pod], made)
    assert values["container_processes"] == 3
    assert values["container_file_descriptors"] >= 9
