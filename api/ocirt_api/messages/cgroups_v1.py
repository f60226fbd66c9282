"""What `StatsResponse` holds on a host with cgroup version 1: cgroups_v1.proto."""

from __future__ import annotations

from ocirt_api.message import UINT64, Message, one, repeated, string, uint32, uint64


class HugetlbStat(Message):
    """Huge pages of one size."""

    usage: int = uint64(1)
    max: int = uint64(2)
    failcnt: int = uint64(3)
    pagesize: str = string(4)


class PidsStat(Message):
    """Processes."""

    current: int = uint64(1)
    limit: int = uint64(2)


class CPUUsage(Message):
    """CPU time, in nanoseconds."""

    total: int = uint64(1)
    kernel: int = uint64(2)
    user: int = uint64(3)
    per_cpu: list[int] = repeated(4, UINT64)


class Throttle(Message):
    """Periods in which the quota ran out."""

    periods: int = uint64(1)
    throttled_periods: int = uint64(2)
    throttled_time: int = uint64(3)


class CPUStat(Message):
    """CPU time and throttling."""

    usage: CPUUsage | None = one(1, CPUUsage)
    throttling: Throttle | None = one(2, Throttle)


class MemoryEntry(Message):
    """One of the counters of memory."""

    limit: int = uint64(1)
    usage: int = uint64(2)
    max: int = uint64(3)
    failcnt: int = uint64(4)


class MemoryStat(Message):
    """What memory.stat says, and the counters."""

    cache: int = uint64(1)
    rss: int = uint64(2)
    rss_huge: int = uint64(3)
    mapped_file: int = uint64(4)
    dirty: int = uint64(5)
    writeback: int = uint64(6)
    pg_pg_in: int = uint64(7)
    pg_pg_out: int = uint64(8)
    pg_fault: int = uint64(9)
    pg_maj_fault: int = uint64(10)
    inactive_anon: int = uint64(11)
    active_anon: int = uint64(12)
    inactive_file: int = uint64(13)
    active_file: int = uint64(14)
    unevictable: int = uint64(15)
    hierarchical_memory_limit: int = uint64(16)
    hierarchical_swap_limit: int = uint64(17)
    total_cache: int = uint64(18)
    total_rss: int = uint64(19)
    total_rss_huge: int = uint64(20)
    total_mapped_file: int = uint64(21)
    total_dirty: int = uint64(22)
    total_writeback: int = uint64(23)
    total_pg_pg_in: int = uint64(24)
    total_pg_pg_out: int = uint64(25)
    total_pg_fault: int = uint64(26)
    total_pg_maj_fault: int = uint64(27)
    total_inactive_anon: int = uint64(28)
    total_active_anon: int = uint64(29)
    total_inactive_file: int = uint64(30)
    total_active_file: int = uint64(31)
    total_unevictable: int = uint64(32)
    usage: MemoryEntry | None = one(33, MemoryEntry)
    swap: MemoryEntry | None = one(34, MemoryEntry)
    kernel: MemoryEntry | None = one(35, MemoryEntry)
    kernel_tcp: MemoryEntry | None = one(36, MemoryEntry)


class MemoryOomControl(Message):
    """What memory.oom_control says."""

    oom_kill_disable: int = uint64(1)
    under_oom: int = uint64(2)
    oom_kill: int = uint64(3)


class BlkIOEntry(Message):
    """One figure of one device."""

    op: str = string(1)
    device: str = string(2)
    major: int = uint64(3)
    minor: int = uint64(4)
    value: int = uint64(5)


class BlkIOStat(Message):
    """What the files of blkio say."""

    io_service_bytes_recursive: list[BlkIOEntry] = repeated(1, BlkIOEntry)
    io_serviced_recursive: list[BlkIOEntry] = repeated(2, BlkIOEntry)
    io_queued_recursive: list[BlkIOEntry] = repeated(3, BlkIOEntry)
    io_service_time_recursive: list[BlkIOEntry] = repeated(4, BlkIOEntry)
    io_wait_time_recursive: list[BlkIOEntry] = repeated(5, BlkIOEntry)
    io_merged_recursive: list[BlkIOEntry] = repeated(6, BlkIOEntry)
    io_time_recursive: list[BlkIOEntry] = repeated(7, BlkIOEntry)
    sectors_recursive: list[BlkIOEntry] = repeated(8, BlkIOEntry)


class RdmaEntry(Message):
    """One device."""

    device: str = string(1)
    hca_handles: int = uint32(2)
    hca_objects: int = uint32(3)


class RdmaStat(Message):
    """Remote direct memory access."""

    current: list[RdmaEntry] = repeated(1, RdmaEntry)
    limit: list[RdmaEntry] = repeated(2, RdmaEntry)


class NetworkStat(Message):
    """One link."""

    name: str = string(1)
    rx_bytes: int = uint64(2)
    rx_packets: int = uint64(3)
    rx_errors: int = uint64(4)
    rx_dropped: int = uint64(5)
    tx_bytes: int = uint64(6)
    tx_packets: int = uint64(7)
    tx_errors: int = uint64(8)
    tx_dropped: int = uint64(9)


class CgroupStats(Message):
    """Tasks by their state."""

    nr_sleeping: int = uint64(1)
    nr_running: int = uint64(2)
    nr_stopped: int = uint64(3)
    nr_uninterruptible: int = uint64(4)
    nr_io_wait: int = uint64(5)


class Metrics(Message):
    """What a container uses, in cgroups of version 1."""

    TYPE_URL = "io.containerd.cgroups.v1.Metrics"

    hugetlb: list[HugetlbStat] = repeated(1, HugetlbStat)
    pids: PidsStat | None = one(2, PidsStat)
    cpu: CPUStat | None = one(3, CPUStat)
    memory: MemoryStat | None = one(4, MemoryStat)
    blkio: BlkIOStat | None = one(5, BlkIOStat)
    rdma: RdmaStat | None = one(6, RdmaStat)
    network: list[NetworkStat] = repeated(7, NetworkStat)
    cgroup_stats: CgroupStats | None = one(8, CgroupStats)
    memory_oom_control: MemoryOomControl | None = one(9, MemoryOomControl)
