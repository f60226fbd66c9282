"""The metrics that a kubelet asks for: their names, and what a node has of them."""

from __future__ import annotations

import os

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd

NAMES = """
    blkio_device_usage_total cpu_cfs_periods_total cpu_cfs_throttled_periods_total cpu_cfs_throttled_seconds_total
    cpu_system_seconds_total cpu_usage_seconds_total cpu_user_seconds_total file_descriptors fs_inodes_free
    fs_inodes_total fs_limit_bytes fs_reads_bytes_total fs_reads_total fs_usage_bytes fs_writes_bytes_total
    fs_writes_total hugetlb_max_usage_bytes hugetlb_usage_bytes last_seen memory_cache memory_failcnt
    memory_failures_total memory_kernel_usage memory_mapped_file memory_max_usage_bytes memory_rss memory_swap
    memory_total_active_file_bytes memory_total_inactive_file_bytes
    memory_usage_bytes memory_working_set_bytes network_receive_bytes_total network_receive_errors_total
    network_receive_packets_dropped_total network_receive_packets_total network_transmit_bytes_total
    network_transmit_errors_total network_transmit_packets_dropped_total network_transmit_packets_total oom_events_total
    pressure_cpu_stalled_seconds_total pressure_cpu_waiting_seconds_total pressure_io_stalled_seconds_total
    pressure_io_waiting_seconds_total pressure_memory_stalled_seconds_total pressure_memory_waiting_seconds_total
    processes sockets spec_cpu_period spec_cpu_quota spec_cpu_shares spec_memory_limit_bytes
    spec_memory_reservation_limit_bytes spec_memory_swap_limit_bytes start_time_seconds threads threads_max ulimits_soft
"""
EXPECTED = {f"container_{name}" for name in NAMES.split()}


def descriptors(node: Ocirtd) -> dict[str, cri.MetricDescriptor]:
    """By name."""
    found = node.runtime.ListMetricDescriptors(cri.ListMetricDescriptorsRequest(), timeout=10).descriptors
    return {one.name: one for one in found}


def of_pods(node: Ocirtd) -> dict[str, cri.PodSandboxMetrics]:
    """Of all pods, by id."""
    found = node.runtime.ListPodSandboxMetrics(cri.ListPodSandboxMetricsRequest(), timeout=10).pod_metrics
    return {one.pod_sandbox_id: one for one in found}


def of_container(found: cri.PodSandboxMetrics, identifier: str) -> dict[str, int]:
    """Of one container among those of its pod, by name."""
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
