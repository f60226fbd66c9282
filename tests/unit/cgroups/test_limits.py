"""`limits.writes`: resources of config.json to cgroup files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt.cgroups import limits
from ocirt.cgroups.limits import OPTIONAL, OR_NEXT, REQUIRED, cpu_weight, io_weight, swap_limit, writes
from ocirt.cgroups.notes import ignored
from ocirt.errors import Error

MIB = 1 << 20


def short(resources: dict[str, Any] | None, mode: str) -> list[str]:
    """Each write as "file=value", with "?" for an optional one and "|" for one with an alternative."""
    marks = {REQUIRED: "", OPTIONAL: "?", OR_NEXT: "|"}
    return [f"{file}{marks[missing]}={value}" for _, file, value, _, missing in writes(resources, mode)]


TABLE: list[tuple[dict[str, Any], list[str] | str, list[str] | str]] = [
    # resources, version 1, version 2; a text is the error
    ({}, [], []),
    ({"devices": [{"allow": False, "access": "rwm"}]}, [], []),
    ({"network": {}, "rdma": {}, "unified": {}}, [], []),
    # pids
    ({"pids": {}}, [], []),
    ({"pids": {"limit": 0}}, ["pids.max=1"], ["pids.max=1"]),
    ({"pids": {"limit": -1}}, ["pids.max=max"], ["pids.max=max"]),
    ({"pids": {"limit": 7}}, ["pids.max=7"], ["pids.max=7"]),
    # memory
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    ({"memory": {"limit": 64}}, ["memory.limit_in_bytes=64"], ["memory.max=64"]),
    (
        {"memory": {"limit": -1}},
        ["memory.memsw.limit_in_bytes?=-1", "memory.limit_in_bytes=-1"],
        ["memory.swap.max?=max", "memory.max=max"],
    ),
    (
        {"memory": {"limit": 64, "swap": 96}},
        ["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=96"],
        ["memory.swap.max=32", "memory.max=64"],
    ),
    (
        {"memory": {"limit": 64, "swap": 64}},
        ["memory.limit_in_bytes=64", "memory.memsw.limit_in_bytes=64"],
        ["memory.swap.max?=0", "memory.max=64"],
    ),
    (
        {"memory": {"limit": 64, "swap": -1}},
        ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=64"],
        ["memory.swap.max?=max", "memory.max=64"],
    ),
    (
        {"memory": {"limit": -1, "swap": -1}},
        ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
        ["memory.swap.max?=max", "memory.max=max"],
    ),
    (
        {"memory": {"limit": -1, "swap": 96}},
        ["memory.memsw.limit_in_bytes=96", "memory.limit_in_bytes=-1"],
        ["memory.swap.max=96", "memory.max=max"],
    ),
    ({"memory": {"swap": -1}}, ["memory.memsw.limit_in_bytes=-1"], ["memory.swap.max?=max"]),
    ({"memory": {"swap": 96}}, ["memory.memsw.limit_in_bytes=96"], "unable to set swap limit without memory limit"),
    (
        {"memory": {"limit": 64, "swap": 63}},
        "memory+swap limit should be >= memory limit",
        "memory+swap limit should be >= memory limit",
    ),
    ({"memory": {"limit": -2}}, "-2 is no limit", "-2 is no limit"),
    ({"memory": {"reservation": 32}}, ["memory.soft_limit_in_bytes=32"], ["memory.low=32"]),
    ({"memory": {"reservation": -1}}, ["memory.soft_limit_in_bytes=-1"], ["memory.low=max"]),
    ({"memory": {"kernel": 5, "kernelTCP": 6}}, [], []),
    ({"memory": {"disableOOMKiller": True}}, ["memory.oom_control=1"], []),
    ({"memory": {"disableOOMKiller": False}}, [], []),
    ({"memory": {"swappiness": 0}}, ["memory.swappiness=0"], []),
    ({"memory": {"swappiness": (1 << 64) - 1}}, [], []),
    ({"memory": {"swappiness": 101}}, "invalid memory swappiness value: 101 (valid range is 0-100)", []),
    # cpu
    ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, [], []),
    ({"cpu": {"shares": 1024}}, ["cpu.shares=1024"], ["cpu.weight=100"]),
    ({"cpu": {"shares": 1}}, "the minimum allowed cpu-shares is 2", ["cpu.weight=1"]),
    ({"cpu": {"shares": 262145}}, "the maximum allowed cpu-shares is 262144", ["cpu.weight=10000"]),
    ({"cpu": {"quota": 5000}}, ["cpu.cfs_quota_us=5000"], ["cpu.max=5000 100000"]),
    ({"cpu": {"quota": -1}}, ["cpu.cfs_quota_us=-1"], ["cpu.max=max 100000"]),
    ({"cpu": {"period": 20000}}, ["cpu.cfs_period_us=20000"], ["cpu.max=max 20000"]),
    (
        {"cpu": {"quota": 5000, "period": 20000, "burst": 100}},
        ["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=5000", "cpu.cfs_burst_us?=100"],
        ["cpu.max=5000 20000", "cpu.max.burst=100"],
    ),
    ({"cpu": {"burst": 0}}, ["cpu.cfs_burst_us?=0"], ["cpu.max.burst=0"]),
    ({"cpu": {"shares": 512, "idle": 1}}, ["cpu.shares=512", "cpu.idle=1"], ["cpu.weight=59", "cpu.idle=1"]),
    ({"cpu": {"shares": 512, "idle": 0}}, ["cpu.idle=0", "cpu.shares=512"], ["cpu.idle=0", "cpu.weight=59"]),
    (
        {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000}},
        ["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"],
        [],
    ),
    ({"cpu": {"cpus": "0-1", "mems": "0"}}, ["cpuset.cpus=0-1", "cpuset.mems=0"], ["cpuset.cpus=0-1", "cpuset.mems=0"]),
    ({"cpu": {"cpus": "", "mems": ""}}, [], []),
    # block I/O
    (
        {"blockIO": {"weight": 500}},
        ["blkio.weight|=500", "blkio.bfq.weight=500"],
        ["io.bfq.weight|=500", "io.weight=4950"],
    ),
    ({"blockIO": {"leafWeight": 500}}, ["blkio.leaf_weight=500"], []),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 100, "leafWeight": 200}]}},
        ["blkio.weight_device|=8:0 100", "blkio.bfq.weight_device=8:0 100", "blkio.leaf_weight_device=8:0 200"],
        ["io.bfq.weight?=8:0 100"],
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 1, "rate": 2}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 2, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 3, "rate": 0}],
            },
        },
        [
            "blkio.throttle.read_bps_device=8:0 1",
            "blkio.throttle.write_bps_device=8:1 2",
            "blkio.throttle.read_iops_device=8:2 3",
            "blkio.throttle.write_iops_device=8:3 0",
        ],
        ["io.max=8:0 rbps=1", "io.max=8:1 wbps=2", "io.max=8:2 riops=3", "io.max=8:3 wiops=max"],
    ),
    # huge pages
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}, {"pageSize": "1GB", "limit": 0}]},
        [
            "hugetlb.2MB.limit_in_bytes=4194304",
            "hugetlb.2MB.rsvd.limit_in_bytes?=4194304",
            "hugetlb.1GB.limit_in_bytes=0",
            "hugetlb.1GB.rsvd.limit_in_bytes?=0",
        ],
        ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max?=4194304", "hugetlb.1GB.max=0", "hugetlb.1GB.rsvd.max?=0"],
    ),
    (
        {"hugepageLimits": [{"pageSize": "/../../x/2MB", "limit": 1}]},
        "'/../../x/2MB' is no huge page size",
        "'/../../x/2MB' is no huge page size",
    ),
    # unified
    ({"unified": {"memory.high": "1048576"}}, "cannot use unified on cgroup v1", ["memory.high=1048576"]),
    (
        {"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "cgroup.max.depth": "4"}},
        "cannot use unified on cgroup v1",
        ["io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "cgroup.max.depth=4"],
    ),
    (
        {"unified": {"../memory.max": "1"}},
        "cannot use unified on cgroup v1",
        'unified resource "../memory.max" must be a file name (no slashes)',
    ),
    (
        {"unified": {"memory": "1"}},
        "cannot use unified on cgroup v1",
        'unified resource "memory" must be in the form CONTROLLER.PARAMETER',
    ),
    ({"unified": {"cgroup.procs": "1"}}, "cannot use unified on cgroup v1", 'unified resource "cgroup.procs" is no setting'),
    # network
    ({"network": {"classID": 0, "priorities": []}}, [], []),
    ({"network": {"classID": 1048577}}, ["net_cls.classid=1048577"], []),
    (
        {"network": {"priorities": [{"name": "eth0", "priority": 500}, {"name": "lo", "priority": 0}]}},
        ["net_prio.ifpriomap=eth0 500", "net_prio.ifpriomap=lo 0"],
        [],
    ),
    # rdma
    (
        {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1000}, "rxe3": {"hcaHandles": 0}}},
        ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=mlx4_0 hca_object=1000", "rdma.max=rxe3 hca_handle=0"],
        ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=mlx4_0 hca_object=1000", "rdma.max=rxe3 hca_handle=0"],
    ),
]


@pytest.mark.parametrize("mode", ["v1", "hybrid", "v2"])
@pytest.mark.parametrize("case", TABLE, ids=lambda case: str(case[0])[:60])
def test_table(case: tuple[dict[str, Any], list[str] | str, list[str] | str], mode: str) -> None:
    """Each resource gives exactly these writes, or this error."""
    resources, version_1, version_2 = case
    expected = version_2 if mode == "v2" else version_1
    if isinstance(expected, str):
        with pytest.raises(Error) as caught:
            writes(resources, mode)
        assert caught.value.message == expected
        assert caught.value.subject.startswith("/linux/resources/")
        assert caught.value.code == "invalid"
    else:
        assert short(resources, mode) == expected


def test_everything_at_once_keeps_controllers_apart() -> None:
    """The controller of an entry is its file's, and each pointer names what was set."""
    resources = {
        "memory": {"limit": 64, "swap": 96, "reservation": 32},
        "cpu": {"shares": 512, "cpus": "0", "mems": "0"},
        "pids": {"limit": 5},
        "blockIO": {"weight": 10},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
    }
    for mode in ("v1", "v2"):
        found = writes(resources, mode, "/at")
        assert {entry[0] for entry in found} == {"memory", "cpu", "cpuset", "pids", "io" if mode == "v2" else "blkio", "hugetlb"}
        for controller, file, _, pointer, _ in found:
            assert file.startswith(controller + ".")
            section, *rest = pointer.removeprefix("/at/").split("/")
            value: Any = resources[section]
            for part in rest:
                value = value[int(part) if isinstance(value, list) else part]


def test_unified_pointer_is_escaped() -> None:
    """RFC 6901: ~ and / in a name."""
    with pytest.raises(Error) as caught:
        writes({"unified": {"a/b~c.d": "1"}}, "v2")
    assert caught.value.subject == "/linux/resources/unified/a~1b~0c.d"


def test_nothing() -> None:
    """No resources, no writes."""
    assert writes(None, "v1") == writes(None, "v2") == []


@pytest.mark.parametrize(
    ("shares", "weight"),
    # Values of runc 1.5.2's function.
    [(0, 0), (1, 1), (2, 1), (3, 2), (10, 4), (64, 12), (100, 17), (256, 35), (512, 59), (1000, 99), (1024, 100), (1025, 101)]
    + [(2048, 174), (4096, 303), (10240, 639), (65536, 3023), (262143, 10000), (262144, 10000), (1 << 40, 10000)],
)
def test_cpu_weight(shares: int, weight: int) -> None:
    """cpu.shares to cpu.weight."""
    assert cpu_weight(shares) == weight


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_cpu_weight_is_monotonic_and_in_range(one: int, other: int) -> None:
    """More shares are never less weight, and the kernel takes every weight."""
    assert 1 <= cpu_weight(one) <= 10000
    if one <= other:
        assert cpu_weight(one) <= cpu_weight(other)


@pytest.mark.parametrize(("block", "weight"), [(0, 0), (1, 1), (10, 1), (11, 11), (100, 910), (500, 4950), (1000, 10000)])
def test_io_weight(block: int, weight: int) -> None:
    """blkio.weight to io.weight."""
    assert io_weight(block) == weight


@given(st.integers(-1, 1 << 62), st.integers(-1, 1 << 62))
def test_swap_limit(swap: int, memory: int) -> None:
    """What is written for swap plus what is written for memory is what was asked for both."""
    try:
        found = swap_limit(swap, memory)
    except Error:
        assert swap > 0
        assert memory == 0 or swap < memory
        return
    if swap == -1 or (swap == 0 and memory == -1):
        assert found == -1
    elif swap == 0:
        assert found is None
    elif memory == -1:
        assert found == swap
    else:
        assert found is not None
        assert found >= 0
        assert found + memory == swap


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "memory": st.fixed_dictionaries(
                {},
                optional={name: st.integers(-1, 1 << 62) for name in ("limit", "swap", "reservation")}
                | {"swappiness": st.integers(0, 100), "disableOOMKiller": st.booleans()},
            ),
            "cpu": st.fixed_dictionaries(
                {},
                optional={
                    "shares": st.integers(2, 262144),
                    "quota": st.integers(-1, 1 << 40),
                    "period": st.integers(0, 1 << 40),
                    "burst": st.integers(0, 1 << 40),
                    "idle": st.integers(0, 1),
                    "cpus": st.just("0"),
                },
            ),
            "pids": st.fixed_dictionaries({}, optional={"limit": st.integers(-(1 << 62), 1 << 62)}),
            "blockIO": st.fixed_dictionaries({}, optional={"weight": st.integers(10, 1000)}),
        },
    ),
    st.sampled_from(["v1", "v2"]),
)
def test_values_are_ones_the_kernel_reads(resources: dict[str, Any], mode: str) -> None:
    """Every value is a decimal number, "max", or the two together, and every set value is written or told to be left aside."""
    try:
        found = writes(resources, mode)
    except Error as error:
        assert "swap" in error.subject  # the only ones here that can contradict each other
        return
    for _, _, value, _, _ in found:
        for word in value.split(" "):
            assert word == "max" or int(word) >= -1
    told = {pointer for _, _, _, pointer, _ in found} | {pointer for pointer, _ in ignored(resources, mode)}
    for section in ("memory", "cpu", "pids", "blockIO"):
        for name, value in resources.get(section, {}).items():
            if name == "period" or (value == 0 and (section == "memory" or name == "quota")):
                continue  # the period is told with the quota; 0 is unset there
            assert f"{limits.POINTER}/{section}/{name}" in told or value is False


@pytest.mark.parametrize(
    ("resources", "version_1", "version_2"),
    [
        (None, [], []),
        ({"memory": {"kernel": 1}}, ["memory/kernel"], ["memory/kernel"]),
        ({"memory": {"swappiness": 10, "disableOOMKiller": True}}, [], ["memory/swappiness", "memory/disableOOMKiller"]),
        (
            {"network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]}},
            [],
            ["network/classID", "network/priorities"],
        ),
        ({"cpu": {"realtimeRuntime": 1, "realtimePeriod": 0}}, [], ["cpu/realtimeRuntime"]),
        (
            {"blockIO": {"leafWeight": 10, "weightDevice": [{"major": 1, "minor": 2, "weight": 3, "leafWeight": 4}]}},
            [],
            ["blockIO/leafWeight", "blockIO/weightDevice/0/leafWeight", "blockIO/weightDevice/0/weight"],
        ),
    ],
)
def test_ignored(resources: dict[str, Any] | None, version_1: list[str], version_2: list[str]) -> None:
    """What a version leaves aside is named."""
    for mode, expected in (("hybrid", version_1), ("v2", version_2)):
        assert [pointer.removeprefix("/linux/resources/") for pointer, _ in ignored(resources, mode)] == expected
