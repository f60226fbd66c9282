"""Cgroup files of both versions, as kernels write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_cri.stats import cgroups
from ocirt_cri.stats.cgroups import Pressure

V2 = {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
    "memory.current": "10485760\n",
    "memory.max": "16777216\n",
    "memory.stat": "anon 4096000\nfile 5000000\nkernel 100\ninactive_anon 1\nactive_anon 2\ninactive_file 2097152\n"
    "active_file 3\nworkingset_refault_file 9\npgfault 1234\npgmajfault 5\n",
    "memory.swap.current": "4096\n",
    "memory.swap.max": "8192\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=9.99 total=1\n",
    "cgroup.procs": "1\n2\n3\n",
}
V1 = {
    "cpuacct.usage": "2500000123\n",
    "memory.usage_in_bytes": "10485760\n",
    "memory.limit_in_bytes": "16777216\n",
    "memory.memsw.limit_in_bytes": "20971520\n",
    "memory.stat": "cache 1\nrss 2\ninactive_file 3\ntotal_cache 4\ntotal_rss 4096000\ntotal_swap 4096\ntotal_pgfault 1234\n"
    "total_pgmajfault 5\ntotal_inactive_file 2097152\n",
    "cgroup.procs": "1\n2\n3\n",
}


def written(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return str(directory)


def test_version_2(tmp_path: Path) -> None:
    found = cgroups.read({"": written(tmp_path / "c", V2)})
    assert found is not None
    assert found.timestamp > 1_700_000_000_000_000_000
    assert (found.cpu, found.memory, found.limit) == (2_500_000_000, 10485760, 16777216)
    assert (found.working_set, found.available) == (8388608, 8388608)
    assert (found.anonymous, found.faults, found.major_faults) == (4096000, 1234, 5)
    assert (found.swap, found.swap_limit) == (4096, 8192)
    assert found.pressure == {
        "cpu": {"some": Pressure(1.5, 0.25, 0, 123_000), "full": Pressure(0, 0, 0, 7_000)},
        "memory": {"some": Pressure(0, 0, 0, 0), "full": Pressure(0, 0, 0, 0)},
        "io": {"some": Pressure(0, 0, 9.99, 1_000)},
    }


def test_version_1(tmp_path: Path) -> None:
    """All hierarchies in one directory here, which makes no difference. The lines with `total_` have what is below, too."""
    place = written(tmp_path / "c", V1)
    found = cgroups.read({"cpuacct": place, "memory": place, "pids": place})
    assert found is not None
    assert (found.cpu, found.memory, found.limit) == (2_500_000_123, 10485760, 16777216)
    assert (found.working_set, found.available) == (8388608, 8388608)
    assert (found.anonymous, found.faults, found.major_faults) == (4096000, 1234, 5)
    assert (found.swap, found.swap_limit) == (4096, 4194304)
    assert found.pressure == {}


@pytest.mark.parametrize(
    ("files", "version"),
    [
        (V2 | {"memory.max": "max\n", "memory.swap.max": "max\n"}, ""),
        (
            V1 | {"memory.limit_in_bytes": "9223372036854771712\n", "memory.memsw.limit_in_bytes": "9223372036854771712\n"},
            "memory",
        ),
    ],
)
def test_no_limit(files: dict[str, str], version: str, tmp_path: Path) -> None:
    place = written(tmp_path / "c", files)
    found = cgroups.read({version: place} | ({"cpuacct": place} if version else {}))
    assert found is not None
    assert (found.limit, found.available, found.swap_limit) == (None, None, None)
    assert found.swap == 4096


def test_version_2_beside_version_1(tmp_path: Path) -> None:
    """Without controllers there it tells the pressure alone."""
    place = written(tmp_path / "1", V1)
    unified = written(tmp_path / "2", {name: text for name, text in V2.items() if "pressure" in name or name == "cpu.stat"})
    found = cgroups.read({"cpuacct": place, "memory": place, "": unified})
    assert found is not None
    assert found.cpu == 2_500_000_123
    assert found.pressure["io"] == {"some": Pressure(0, 0, 9.99, 1_000)}


def test_more_cache_than_use(tmp_path: Path) -> None:
    """The two are not read at the same moment."""
    found = cgroups.read({"": written(tmp_path / "c", V2 | {"memory.current": "1000\n"})})
    assert found is not None
    assert found.working_set == 0


@pytest.mark.parametrize("missing", V2)
def test_a_kernel_without_a_file_of_version_2(missing: str, tmp_path: Path) -> None:
    found = cgroups.read({"": written(tmp_path / "c", {name: text for name, text in V2.items() if name != missing})})
    assert (found is None) == (missing == "cpu.stat")
    if found is not None:
        assert found.cpu == 2_500_000_000
        assert (found.memory is None) == (missing == "memory.current")
        assert (found.swap is None) == (missing in ("memory.swap.current", "memory.current"))
        assert len(found.pressure) == (2 if missing.endswith(".pressure") else 3)


@pytest.mark.parametrize("missing", V1)
def test_a_kernel_without_a_file_of_version_1(missing: str, tmp_path: Path) -> None:
    place = written(tmp_path / "c", {name: text for name, text in V1.items() if name != missing})
    found = cgroups.read({"cpuacct": place, "memory": place})
    assert found is not None
    assert (found.cpu is None) == (missing == "cpuacct.usage")
    assert (found.memory is None) == (missing == "memory.usage_in_bytes")


def test_a_cgroup_that_is_gone(tmp_path: Path) -> None:
    place = str(tmp_path / "gone")
    for paths in ({"": place}, {"memory": place, "cpuacct": place}, {}):
        assert cgroups.read(paths) is None
        assert cgroups.cpu(paths) is None
        assert cgroups.processes(paths) == []


def test_files_that_say_something_else(tmp_path: Path) -> None:
    """Nothing is raised for what some kernel may write one day."""
    place = written(tmp_path / "c", dict.fromkeys(V2, "a b\nsome avg10=x\n\nfull\n-1\n"))
    found = cgroups.read({"": place})
    assert found is not None
    assert (found.cpu, found.memory) == (None, None)
    assert found.pressure == {}


def test_only_the_processor_time(tmp_path: Path) -> None:
    assert cgroups.cpu({"": written(tmp_path / "2", V2)}) == 2_500_000_000
    assert cgroups.cpu({"cpuacct": written(tmp_path / "1", V1), "memory": ""}) == 2_500_000_123


def test_processes_below_count(tmp_path: Path) -> None:
    place = written(tmp_path / "c", V1)
    written(tmp_path / "c/inner", {"cgroup.procs": "4\n"})
    written(tmp_path / "c/inner/most", {"cgroup.procs": "5\n6\n"})
    for controller in ("pids", "memory", "cpuacct", ""):
        assert len(cgroups.processes({controller: place})) == 6


def test_a_long_file(tmp_path: Path) -> None:
    """Of more than one read(2)."""
    place = written(tmp_path / "c", {"cgroup.procs": "".join(f"{number}\n" for number in range(50_000))})
    assert cgroups.processes({"": place}) == list(range(50_000))
