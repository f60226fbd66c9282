"""What a container's status says of limits, for what cgroup files say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ocirt.cgroups.limits import cpu_weight
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import limits
from ocirt_cri.spec import inforce, resources
from ocirt_cri.spec.inforce import NO_LIMIT, Seen
from tests.unit.cri.spec.requests import HOST

MIB = 1 << 20


def asked(**values: Any) -> cri.LinuxContainerResources:
    return cri.LinuxContainerResources(**values)


@given(some.integers(2, 262144))
def test_shares_and_weights(shares: int) -> None:
    """There and back it is the same weight; what was asked for is told again."""
    weight = cpu_weight(shares)
    assert cpu_weight(inforce.shares(weight)) == weight
    assert inforce.shares(weight) <= shares
    assert inforce.reported(asked(cpu_shares=shares), Seen(weight=weight)).cpu_shares == shares


@given(some.integers(1, 10000))
def test_every_weight_has_shares(weight: int) -> None:
    shares = inforce.shares(weight)
    assert 2 <= shares <= 262144
    assert cpu_weight(shares) >= weight
    assert shares == 2 or cpu_weight(shares - 1) < weight


@pytest.mark.parametrize(
    ("given_ones", "seen", "wanted"),
    [
        ({}, Seen(), {}),
        ({"cpu_shares": 100}, Seen(shares=200), {"cpu_shares": 200}),
        ({"cpu_shares": 1024}, Seen(weight=1), {"cpu_shares": 2}),
        ({}, Seen(weight=100), {"cpu_shares": inforce.shares(100)}),
        ({"cpu_quota": 5000}, Seen(quota=NO_LIMIT, period=100_000), {"cpu_period": 100_000}),
        ({"cpu_quota": -1}, Seen(quota=NO_LIMIT), {"cpu_quota": -1}),
        ({"cpu_quota": 5000}, Seen(quota=10_000, period=50_000), {"cpu_quota": 10_000, "cpu_period": 50_000}),
        ({"memory_limit_in_bytes": 80_000_000}, Seen(memory=79_998_976), {"memory_limit_in_bytes": 80_000_000}),
        ({"memory_limit_in_bytes": 80_000_000}, Seen(memory=64 * MIB), {"memory_limit_in_bytes": 64 * MIB}),
        ({"memory_limit_in_bytes": 80_000_000}, Seen(memory=NO_LIMIT), {}),
        (
            {"memory_limit_in_bytes": -1},
            Seen(memory=NO_LIMIT, both=NO_LIMIT),
            {"memory_limit_in_bytes": -1, "memory_swap_limit_in_bytes": -1},
        ),
        (
            {"memory_limit_in_bytes": 80_000_000},
            Seen(memory=79_998_976, both=79_998_976),
            {"memory_limit_in_bytes": 80_000_000, "memory_swap_limit_in_bytes": 80_000_000},
        ),
        (
            {"memory_limit_in_bytes": 64 * MIB, "memory_swap_limit_in_bytes": 96 * MIB},
            Seen(memory=64 * MIB, both=128 * MIB),
            {"memory_limit_in_bytes": 64 * MIB, "memory_swap_limit_in_bytes": 128 * MIB},
        ),
        ({"cpuset_cpus": "0"}, Seen(cpus="0-1", mems=""), {"cpuset_cpus": "0-1"}),
        ({"unified": {"memory.high": "1000"}}, Seen(unified={"memory.high": "0"}), {"unified": {"memory.high": "0"}}),
        ({"oom_score_adj": 5}, Seen(), {"oom_score_adj": 5}),
    ],
)
def test_reported(given_ones: dict[str, Any], seen: Seen, wanted: dict[str, Any]) -> None:
    assert inforce.reported(asked(**given_ones), seen) == asked(**wanted)


def test_huge_pages() -> None:
    given_ones = asked(hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=5), cri.HugepageLimit(page_size="1GB", limit=6)])
    found = inforce.reported(given_ones, Seen(pages={"2MB": 0}))
    assert {one.page_size: one.limit for one in found.hugepage_limits} == {"2MB": 0, "1GB": 6}


V2 = {
    "cpu.weight": "59\n",
    "cpu.max": "20000 100000\n",
    "memory.max": "67108864\n",
    "memory.swap.max": "4096\n",
    "cpuset.cpus": "\n",
    "cpuset.mems": "0\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.1GB.max": "1073741824\n",
    "memory.high": "max\n",
    "io.max": "8:0 rbps=1 wbps=max\n",
}
V1 = {
    "cpu.shares": "512\n",
    "cpu.cfs_quota_us": "-1\n",
    "cpu.cfs_period_us": "100000\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
    "memory.memsw.limit_in_bytes": "9223372036854771712\n",
    "cpuset.cpus": "0-1\n",
    "cpuset.mems": "0\n",
    "hugetlb.2MB.limit_in_bytes": "2097152\n",
}
PAGES = [cri.HugepageLimit(page_size=size, limit=7) for size in ("2MB", "1GB")]


def test_files_of_version_2(tmp_path: Path) -> None:
    for name, text in V2.items():
        (tmp_path / name).write_text(text)
    wanted = asked(hugepage_limits=PAGES, unified={"memory.high": "5", "io.max": "8:0 rbps=1", "memory.low": "3"})
    found = limits.read({"": str(tmp_path)}, wanted)
    assert (found.weight, found.shares) == (59, None)
    assert (found.quota, found.period, found.memory, found.both) == (20_000, 100_000, 64 * MIB, 64 * MIB + 4096)
    assert (found.cpus, found.mems, found.pages) == ("", "0", {"1GB": 1 << 30})
    assert found.unified == {"memory.high": "max"}
    (tmp_path / "memory.swap.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 50000\n")
    found = limits.read({"": str(tmp_path)}, asked())
    assert (found.both, found.quota, found.period) == (NO_LIMIT, NO_LIMIT, 50_000)


def test_files_of_version_1(tmp_path: Path) -> None:
    for name, text in V1.items():
        (tmp_path / name).write_text(text)
    place = str(tmp_path)
    found = limits.read(
        {"": "/nowhere", **dict.fromkeys(("cpu", "memory", "cpuset", "hugetlb"), place)}, asked(hugepage_limits=PAGES)
    )
    assert (found.weight, found.shares) == (None, 512)
    assert (found.quota, found.period, found.memory, found.both) == (NO_LIMIT, 100_000, NO_LIMIT, NO_LIMIT)
    assert (found.cpus, found.mems, found.pages) == ("0-1", "0", {"2MB": 2 * MIB})


def test_no_cgroup() -> None:
    given_ones = asked(cpu_shares=100, memory_limit_in_bytes=MIB)
    for cgroup in ({}, {"": "/nowhere"}, {"memory": "/nowhere", "cpu": "/nowhere"}):
        assert inforce.reported(given_ones, limits.read(cgroup, given_ones)) == given_ones


# -- changes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        # (limit, both) in force, asked for, and what is written
        ((64, 64), (128, 0), (128, 128)),
        ((64, 64), (32, 0), (32, 32)),
        ((64, 96), (80, 0), (80, 96)),
        ((64, 96), (128, 0), (128, 128)),
        ((64, 96), (128, 256), (128, 256)),
        ((64, -1), (128, 0), (128, -1)),
        ((64, 64), (0, 96), (64, 96)),
        ((0, 0), (64, 0), (64, 64)),
        ((64, 64), (-1, 0), (-1, None)),
        ((64, 64), (0, 0), None),
    ],
)
def test_memory_and_swap(old: tuple[int, int], new: tuple[int, int], wanted: tuple[int, int | None] | None) -> None:
    def of(pair: tuple[int, int]) -> cri.LinuxContainerResources:
        sizes = [one * MIB if one > 0 else one for one in pair]
        return asked(memory_limit_in_bytes=sizes[0], memory_swap_limit_in_bytes=sizes[1])

    found = resources.update_of(of(old), of(new), HOST, "linux", pids=0)
    if wanted is None:
        assert "memory" not in found
        return
    memory = found["memory"]
    assert memory["checkBeforeUpdate"] is True
    sizes = [one * MIB if one is not None and one > 0 else one for one in wanted]
    assert [memory.get("limit"), memory.get("swap")] == sizes


def test_only_what_is_given_is_written() -> None:
    old = asked(cpu_shares=100, cpu_quota=5000, cpu_period=100_000, memory_limit_in_bytes=MIB, cpuset_cpus="0")
    assert resources.update_of(old, asked(cpu_shares=200), HOST, "linux", pids=0) == {"cpu": {"shares": 200}}
