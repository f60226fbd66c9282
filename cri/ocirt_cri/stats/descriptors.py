"""The metrics that a node tells of its containers, with the names, units and labels by which cAdvisor made them known.

A kubelet passes them on as its own /metrics/cadvisor (KEP-2371), so the names are a contract; values are whole numbers, as CRI
has no others. All have the labels of `BASE`, and their own after these.
"""

from __future__ import annotations

from typing import NamedTuple

from ocirt_api.cri import api_pb2 as cri

# id: the cgroup's path; name: the id in CRI; the others as a person calls them.
BASE = ("id", "name", "image", "container", "pod", "namespace")

_DISK = ("device",)
_LINK = ("interface",)
_PAGES = ("pagesize",)


class Descriptor(NamedTuple):
    """help: a sentence for a person; labels: beside `BASE`; counter: whether it only grows."""

    help: str
    labels: tuple[str, ...] = ()
    counter: bool = False


def _counter(help_text: str, *labels: str) -> Descriptor:
    return Descriptor(help_text, labels, counter=True)


TABLE: dict[str, Descriptor] = {
    "container_blkio_device_usage_total": _counter(
        "Bytes moved from and to a block device.", "device", "major", "minor", "operation"
    ),
    "container_cpu_cfs_periods_total": _counter("Periods of the processor quota that have passed."),
    "container_cpu_cfs_throttled_periods_total": _counter("Periods in which the processor quota was used up."),
    "container_cpu_cfs_throttled_seconds_total": _counter("Seconds that processes waited for the next period of the quota."),
    "container_cpu_system_seconds_total": _counter("Seconds of processor time in the kernel."),
    "container_cpu_usage_seconds_total": _counter("Seconds of processor time.", "cpu"),
    "container_cpu_user_seconds_total": _counter("Seconds of processor time in programs."),
    "container_file_descriptors": Descriptor("Open file descriptors of all processes."),
    "container_fs_inodes_free": Descriptor("Inodes that are free in the file system of the writable layer.", _DISK),
    "container_fs_inodes_total": Descriptor("Inodes of the file system of the writable layer.", _DISK),
    "container_fs_limit_bytes": Descriptor("Bytes that the writable layer may take at most.", _DISK),
    "container_fs_reads_bytes_total": _counter("Bytes read from a device.", *_DISK),
    "container_fs_reads_total": _counter("Reads from a device.", *_DISK),
    "container_fs_usage_bytes": Descriptor("Bytes that the writable layer takes.", _DISK),
    "container_fs_writes_bytes_total": _counter("Bytes written to a device.", *_DISK),
    "container_fs_writes_total": _counter("Writes to a device.", *_DISK),
    "container_hugetlb_max_usage_bytes": Descriptor("The most bytes of huge pages that were used at a time.", _PAGES),
    "container_hugetlb_usage_bytes": Descriptor("Bytes of huge pages that are used.", _PAGES),
    "container_last_seen": Descriptor("When this was read, in seconds since the epoch."),
    "container_memory_cache": Descriptor("Bytes of page cache."),
    "container_memory_failcnt": _counter("How often the limit of memory was reached."),
    "container_memory_failures_total": _counter("Page faults.", "failure_type", "scope"),
    "container_memory_kernel_usage": Descriptor("Bytes of memory that the kernel uses for it."),
    "container_memory_mapped_file": Descriptor("Bytes of files that are mapped into memory."),
    "container_memory_max_usage_bytes": Descriptor("The most bytes of memory that were used at a time."),
    "container_memory_rss": Descriptor("Bytes of anonymous memory."),
    "container_memory_swap": Descriptor("Bytes that are swapped out."),
    "container_memory_total_active_file_bytes": Descriptor("Bytes of page cache that was used of late."),
    "container_memory_total_inactive_file_bytes": Descriptor("Bytes of page cache that goes first."),
    "container_memory_usage_bytes": Descriptor("Bytes of memory of every kind."),
    "container_memory_working_set_bytes": Descriptor("Bytes of memory without the page cache that can go at once."),
    "container_network_receive_bytes_total": _counter("Bytes received.", *_LINK),
    "container_network_receive_errors_total": _counter("Errors while receiving.", *_LINK),
    "container_network_receive_packets_dropped_total": _counter("Packets dropped while receiving.", *_LINK),
    "container_network_receive_packets_total": _counter("Packets received.", *_LINK),
    "container_network_transmit_bytes_total": _counter("Bytes sent.", *_LINK),
    "container_network_transmit_errors_total": _counter("Errors while sending.", *_LINK),
    "container_network_transmit_packets_dropped_total": _counter("Packets dropped while sending.", *_LINK),
    "container_network_transmit_packets_total": _counter("Packets sent.", *_LINK),
    "container_oom_events_total": _counter("Processes that the kernel killed for want of memory."),
    "container_pressure_cpu_stalled_seconds_total": _counter("Seconds in which all processes waited for a processor."),
    "container_pressure_cpu_waiting_seconds_total": _counter("Seconds in which a process waited for a processor."),
    "container_pressure_io_stalled_seconds_total": _counter("Seconds in which all processes waited for I/O."),
    "container_pressure_io_waiting_seconds_total": _counter("Seconds in which a process waited for I/O."),
    "container_pressure_memory_stalled_seconds_total": _counter("Seconds in which all processes waited for memory."),
    "container_pressure_memory_waiting_seconds_total": _counter("Seconds in which a process waited for memory."),
    "container_processes": Descriptor("Processes."),
    "container_sockets": Descriptor("Open sockets of all processes."),
    "container_spec_cpu_period": Descriptor("The period of the processor quota, in microseconds."),
    "container_spec_cpu_quota": Descriptor("Processor time in each period, in microseconds; there is none without a quota."),
    "container_spec_cpu_shares": Descriptor("The share of the processors, 2 to 262144."),
    "container_spec_memory_limit_bytes": Descriptor("The limit of memory, 0 for none."),
    "container_spec_memory_reservation_limit_bytes": Descriptor("Memory that is not taken away under pressure, 0 for none."),
    "container_spec_memory_swap_limit_bytes": Descriptor("The limit of what is swapped out, 0 for none, or for no swap."),
    "container_start_time_seconds": Descriptor("When it was started, in seconds since the epoch."),
    "container_threads": Descriptor("Threads of all processes."),
    "container_threads_max": Descriptor("The limit of threads, 0 for none."),
    "container_ulimits_soft": Descriptor("Soft resource limits of the first process.", ("ulimit",)),
}


def descriptors() -> list[cri.MetricDescriptor]:
    """The table as the CRI has it."""
    return [cri.MetricDescriptor(name=name, help=one.help, label_keys=[*BASE, *one.labels]) for name, one in TABLE.items()]


def kind(name: str) -> cri.MetricType.ValueType:
    """Counter or gauge."""
    return cri.COUNTER if TABLE[name].counter else cri.GAUGE
