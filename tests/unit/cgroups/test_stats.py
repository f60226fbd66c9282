"""Statistics from directories of files as kernels write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ocirt.cgroups import stats
from ocirt.cgroups.parse import UNLIMITED
from ocirt.cgroups.stats import huge_page_sizes, read_stats
from ocirt.errors import Error

PRESSURE = "some avg10=1.00 avg60=0.50 avg300=0.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def fill(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


@pytest.fixture(autouse=True)
def sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "huge_page_sizes", lambda: ["2MB"])


def usage(found: stats.Usage) -> tuple[int, int, int, int]:
    return found.limit, found.usage, found.max_usage, found.failures


def test_version_1(tmp_path: Path) -> None:
    memory = {"memory.stat": "cache 7\nrss 8\n"}
    for prefix, base in (("memory.", 100), ("memory.memsw.", 200)):
        for index, name in enumerate(("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")):
            memory[prefix + name] = f"{base + index}\n"
    # This kernel has no limit of kernel memory any more.
    memory |= {"memory.kmem.usage_in_bytes": "4\n", "memory.kmem.max_usage_in_bytes": "5\n", "memory.kmem.failcnt": "0\n"}
    paths = {
        "cpu": fill(tmp_path / "cpu", {"cpu.stat": "nr_periods 1\nnr_throttled 2\nthrottled_time 3\nnr_bursts 4\n"}),
        "cpuacct": fill(
            tmp_path / "cpuacct",
            {
                "cpuacct.stat": "user 5\nsystem 6\n",
                "cpuacct.usage": "120000000\n",
                "cpuacct.usage_percpu": "100000000 20000000 \n",
                "cpuacct.usage_all": "cpu user system\n0 1 2\n1 3 4\n",
            },
        ),
        "cpuset": fill(
            tmp_path / "cpuset",
            {
                "cpuset.cpus": "0-1\n",
                "cpuset.mems": "\n",
                "cpuset.sched_load_balance": "1\n",
                "cpuset.sched_relax_domain_level": "-1\n",
            },
        ),
        "memory": fill(tmp_path / "memory", memory),
        "pids": fill(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "max\n"}),
        "blkio": fill(
            tmp_path / "blkio",
            {
                "blkio.bfq.io_serviced_recursive": "Total 0\n",
                "blkio.throttle.io_serviced_recursive": "8:0 Read 5\nTotal 5\n",
                "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\nTotal 4096\n",
            },
        ),
        "hugetlb": fill(
            tmp_path / "hugetlb",
            {"hugetlb.2MB.usage_in_bytes": "1\n", "hugetlb.2MB.max_usage_in_bytes": "2\n", "hugetlb.2MB.failcnt": "3\n"},
        ),
        "": str(tmp_path / "nothing"),
    }
    cgroup = {"mode": "hybrid", "paths": paths}
    found = read_stats(cgroup)
    assert (found.cpu.periods, found.cpu.throttled_periods, found.cpu.throttled_time) == (1, 2, 3)
    assert (found.cpu.user, found.cpu.system, found.cpu.total) == (50_000_000, 60_000_000, 120_000_000)
    assert (found.cpu.per_cpu, found.cpu.per_cpu_user, found.cpu.per_cpu_system) == ([100000000, 20000000], [1, 3], [2, 4])
    assert (found.cpuset["cpus"], found.cpuset["mems"], found.cpuset["sched_load_balance"]) == ([0, 1], [], 1)
    assert (found.cpuset["sched_relax_domain_level"], found.cpuset["mem_hardwall"]) == (-1, 0)
    assert usage(found.memory.usage) == (100, 101, 102, 103)
    assert usage(found.memory.swap) == (200, 201, 202, 203)
    assert usage(found.memory.kernel) == (0, 4, 5, 0)
    assert usage(found.memory.kernel_tcp) == (0, 0, 0, 0)
    assert (found.memory.cache, found.memory.raw) == (7, {"cache": 7, "rss": 8})
    assert (found.pids, found.pids_limit) == (3, 0)
    assert found.io == {"io_serviced": [(8, 0, "Read", 5)], "io_service_bytes": [(8, 0, "Read", 4096)]}
    assert usage(found.huge_pages["2MB"]) == (0, 1, 2, 3)
    assert found.memory.pressure is found.cpu.pressure is found.io_pressure is None


def test_version_2(tmp_path: Path) -> None:
    directory = fill(
        tmp_path / "x",
        {
            "cpu.stat": "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 4\nnr_throttled 5\nthrottled_usec 6\n",
            "cpu.pressure": PRESSURE,
            "memory.stat": "anon 1\nfile 2\n",
            "memory.current": "10\n",
            "memory.max": "100\n",
            "memory.peak": "20\n",
            "memory.swap.current": "5\n",
            "memory.swap.max": "50\n",
            "pids.current": "3\n",
            "pids.max": "7\n",
            "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
            "io.pressure": PRESSURE,
            "hugetlb.2MB.rsvd.current": "1\n",
            "hugetlb.2MB.current": "99\n",
            "hugetlb.2MB.events": "max 2\n",
        },
    )
    cgroup = {"mode": "v2", "paths": {"": directory}}
    found = read_stats(cgroup)
    assert (found.cpu.total, found.cpu.user, found.cpu.system) == (3000, 2000, 1000)
    assert (found.cpu.periods, found.cpu.throttled_periods, found.cpu.throttled_time) == (4, 5, 6000)
    assert found.cpu.pressure is not None
    assert found.cpu.pressure["some"] == {"avg10": 1, "avg60": 0.5, "avg300": 0, "total": 5}
    assert usage(found.memory.usage) == (100, 10, 20, 0)
    assert usage(found.memory.swap) == (150, 15, 0, 0)
    assert (found.memory.cache, found.memory.pressure) == (2, None)
    assert (found.pids, found.pids_limit) == (3, 7)
    assert found.io["io_service_bytes"] == [(8, 0, "Read", 1), (8, 0, "Write", 2)]
    assert found.io["io_serviced"] == [(8, 0, "Read", 3), (8, 0, "Write", 4)]
    assert usage(found.huge_pages["2MB"]) == (0, 1, 0, 2)


@pytest.mark.parametrize(("memory", "swap", "together"), [("max", "max", UNLIMITED), ("max", "0", UNLIMITED), ("4", "0", 4)])
def test_limits_of_memory_and_swap(tmp_path: Path, memory: str, swap: str, together: int) -> None:
    files = {
        "memory.current": "1",
        "memory.max": memory,
        "memory.swap.current": "0",
        "memory.swap.max": swap,
        "pids.current": "0",
    }
    found = read_stats({"mode": "v2", "paths": {"": fill(tmp_path / "x", files)}})
    assert found.memory.swap.limit == together


@pytest.mark.parametrize("cgroup", [{"mode": "v2", "paths": {}}, {"mode": "none", "paths": {}}, {"mode": "v1", "paths": {}}])
def test_nothing(cgroup: dict[str, Any]) -> None:
    found = read_stats(cgroup)
    assert (found.cpu.total, found.memory.raw, found.pids, found.io, found.huge_pages) == (0, {}, 0, {}, {})


def test_without_controllers(tmp_path: Path) -> None:
    """Version 2 tells processor time all the same, and processes can be counted."""
    files = {"cpu.stat": "usage_usec 3\n", "cgroup.procs": "1\n2\n"}
    cgroup = {"mode": "v2", "paths": {"": fill(tmp_path / "x", files)}}
    found = read_stats(cgroup)
    assert (found.cpu.total, found.pids, found.pids_limit, found.memory.swap.limit) == (3000, 2, 0, 0)


def test_a_file_that_says_nothing_known(tmp_path: Path) -> None:
    cgroup = {"mode": "v1", "paths": {"pids": fill(tmp_path / "x", {"pids.current": "many\n"})}}
    with pytest.raises(Error, match=r"x/pids\.current: unable to parse: 'many' is no number"):
        read_stats(cgroup)


def test_huge_page_sizes(tmp_path: Path) -> None:
    for name in ("hugepages-2048kB", "hugepages-1048576kB", "hugepages-64kB", "other", "hugepages-x"):
        (tmp_path / name).mkdir()
    assert huge_page_sizes(str(tmp_path)) == ["1GB", "2MB", "64KB"]
    assert huge_page_sizes(str(tmp_path / "nothing")) == []
