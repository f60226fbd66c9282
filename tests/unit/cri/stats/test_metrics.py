"""The values of metrics, from files as kernels of both versions write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats import cgroups, descriptors, insides, kernelfiles, values
from ocirt_cri.stats.disks import Disk, Disks
from ocirt_cri.stats.values import Value
from tests.unit.cri.stats.test_cgroups import V1, V2, written

DISK = Disk("/dev/root", 254, 1, 1 << 30, 1000, 900)
MORE_V2 = V2 | {
    "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"
    "nr_periods 7\nnr_throttled 3\nthrottled_usec 4200000\n",
    "memory.stat": V2["memory.stat"] + "file_mapped 77\n",
    "memory.peak": "12000000\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n",
    "io.stat": "999:8 rbytes=100 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n999:9 \n",
    "pids.current": "5\n",
    "pids.max": "100\n",
}
MORE_V1 = V1 | {
    "cpuacct.stat": "user 200\nsystem 50\n",
    "cpu.stat": "nr_periods 7\nnr_throttled 3\nthrottled_time 4200000000\n",
    "memory.stat": V1["memory.stat"]
    + "total_cache 5000000\ntotal_mapped_file 77\ntotal_active_file 3\npgfault 34\npgmajfault 1\n",
    "memory.max_usage_in_bytes": "12000000\n",
    "memory.failcnt": "12\n",
    "memory.kmem.usage_in_bytes": "100\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "blkio.throttle.io_service_bytes_recursive": "999:8 Read 100\n999:8 Write 200\n999:8 Sync 300\n999:8 Total 300\nTotal 300\n",
    "blkio.throttle.io_serviced_recursive": "999:8 Read 3\n999:8 Write 4\n999:8 Total 7\nTotal 7\n",
    "pids.current": "5\n",
    "pids.max": "100\n",
}
V1_CONTROLLERS = ("cpuacct", "cpu", "memory", "blkio", "pids")
SAME = {
    ("container_cpu_usage_seconds_total", "total"): 2,
    ("container_cpu_user_seconds_total",): 2,
    ("container_cpu_system_seconds_total",): 0,
    ("container_cpu_cfs_periods_total",): 7,
    ("container_cpu_cfs_throttled_periods_total",): 3,
    ("container_cpu_cfs_throttled_seconds_total",): 4,
    ("container_memory_usage_bytes",): 10485760,
    ("container_memory_working_set_bytes",): 8388608,
    ("container_memory_rss",): 4096000,
    ("container_memory_swap",): 4096,
    ("container_memory_cache",): 5000000,
    ("container_memory_mapped_file",): 77,
    ("container_memory_kernel_usage",): 100,
    ("container_memory_total_active_file_bytes",): 3,
    ("container_memory_total_inactive_file_bytes",): 2097152,
    ("container_memory_failcnt",): 12,
    ("container_memory_max_usage_bytes",): 12000000,
    ("container_oom_events_total",): 1,
    ("container_memory_failures_total", "pgfault", "hierarchy"): 1234,
    ("container_memory_failures_total", "pgmajfault", "hierarchy"): 5,
}
OF_DISKS = {
    ("container_blkio_device_usage_total", "999:8", "999", "8", "Read"): 100,
    ("container_blkio_device_usage_total", "999:8", "999", "8", "Write"): 200,
    ("container_fs_reads_bytes_total", "999:8"): 100,
    ("container_fs_reads_total", "999:8"): 3,
    ("container_fs_writes_bytes_total", "999:8"): 200,
    ("container_fs_writes_total", "999:8"): 4,
}


def as_mapping(found: list[Value]) -> dict[tuple[str, ...], int]:
    named = {(one.name, *one.labels): one.value for one in found}
    assert len(named) == len(found), "the same name with the same labels twice"
    for one in found:
        assert len(one.labels) == len(descriptors.TABLE[one.name].labels)
        assert all(one.labels)
        assert one.value >= 0
    return named


def paths_of(place: str, version: int) -> dict[str, str]:
    return {"": place} if version == 2 else dict.fromkeys(V1_CONTROLLERS, place)


@pytest.mark.parametrize(("files", "version"), [(MORE_V2, 2), (MORE_V1, 1)])
def test_both_versions_say_the_same(files: dict[str, str], version: int, tmp_path: Path) -> None:
    paths = paths_of(written(tmp_path / "c", files), version)
    usage = cgroups.read(paths)
    assert usage is not None
    found = as_mapping([*values.of_cpu(paths, usage), *values.of_memory(paths, usage)])
    own = {("container_memory_failures_total", kind, "container") for kind in ("pgfault", "pgmajfault")}
    assert {key: value for key, value in found.items() if key not in own} == SAME
    assert [found[key] for key in sorted(own)] == ([1234, 5] if version == 2 else [34, 1])
    assert values.of_threads(paths) == (5, 100)
    disks = as_mapping(list(values.of_disks(paths, Disks(), DISK)))
    assert disks == OF_DISKS if version == 1 else OF_DISKS.items() <= disks.items()


@pytest.mark.parametrize(
    ("files", "version"),
    [
        ({"io.stat": ""}, 2),
        ({"blkio.throttle.io_service_bytes_recursive": "Total 0\n", "blkio.throttle.io_serviced_recursive": "Total 0\n"}, 1),
    ],
)
def test_no_device_was_used_yet(files: dict[str, str], version: int, tmp_path: Path) -> None:
    """Then it is the one that it writes its files to, with nothing."""
    paths = paths_of(written(tmp_path / "c", files), version)
    found = as_mapping(list(values.of_disks(paths, Disks(), DISK)))
    assert set(found.values()) == {0}
    assert ("container_blkio_device_usage_total", "/dev/root", "254", "1", "Read") in found
    assert len(found) == 6


def test_no_controllers(tmp_path: Path) -> None:
    """Only what is known is said."""
    paths = {"": written(tmp_path / "c", {"cpu.stat": "usage_usec 1\n"})}
    usage = cgroups.read(paths)
    assert usage is not None
    found = [*values.of_cpu(paths, usage), *values.of_memory(paths, usage), *values.of_pressure(usage)]
    assert found == [Value("container_cpu_usage_seconds_total", 0, ("total",))]
    assert list(values.of_disks(paths, Disks(), DISK)) == []
    assert values.of_threads(paths) == (None, None)
    assert list(values.of_huge_pages(paths)) == []


def test_pressure_in_seconds() -> None:
    one = cgroups.Pressure(0, 0, 0, 3_999_999_999)
    usage = cgroups.Usage(1, pressure={"io": {"some": one, "full": one}, "cpu": {"some": one}})
    assert as_mapping(list(values.of_pressure(usage))) == {
        ("container_pressure_io_waiting_seconds_total",): 3,
        ("container_pressure_io_stalled_seconds_total",): 3,
        ("container_pressure_cpu_waiting_seconds_total",): 3,
    }


def test_limits() -> None:
    nothing = as_mapping(list(values.of_limits(cri.LinuxContainerResources(), cgroups.Usage(1))))
    assert nothing == {
        ("container_spec_cpu_period",): 100_000,
        ("container_spec_cpu_shares",): 1024,
        ("container_spec_memory_limit_bytes",): 0,
        ("container_spec_memory_reservation_limit_bytes",): 0,
        ("container_spec_memory_swap_limit_bytes",): 0,
    }
    given_ones = cri.LinuxContainerResources(
        cpu_period=50_000, cpu_quota=20_000, cpu_shares=2, memory_limit_in_bytes=1 << 20, unified={"memory.low": "4096"}
    )
    found = as_mapping(list(values.of_limits(given_ones, cgroups.Usage(1, swap_limit=8192))))
    assert list(found.values()) == [50_000, 20_000, 2, 1 << 20, 4096, 8192]
    unlimited = cri.LinuxContainerResources(cpu_quota=-1, memory_limit_in_bytes=-1, unified={"memory.low": "max"})
    assert as_mapping(list(values.of_limits(unlimited, cgroups.Usage(1)))) == nothing


def test_descriptors() -> None:
    found = descriptors.descriptors()
    assert len(found) == len({one.name for one in found}) == 58
    for one in found:
        assert one.help
        assert one.label_keys[:6] == list(descriptors.BASE)
        assert len(set(one.label_keys)) == len(one.label_keys)
        counts = one.name.endswith("_total") and not one.name.endswith("inodes_total")
        assert descriptors.TABLE[one.name].counter == (counts or one.name == "container_memory_failcnt")


def test_processes(tmp_path: Path) -> None:
    for pid, links in ((7, ["socket:[1]", "pipe:[2]", "/dev/null"]), (8, ["socket:[1]"])):
        (tmp_path / f"{pid}/fd").mkdir(parents=True)
        (tmp_path / f"{pid}/task/{pid}").mkdir(parents=True)
        for number, target in enumerate(links):
            (tmp_path / f"{pid}/fd/{number}").symlink_to(target)
    (tmp_path / "8/task/9").mkdir()
    (tmp_path / "7/limits").write_text(
        "Limit  Soft  Hard  Units\nMax open files            1024                 524288   files\n"
    )
    found = insides.look(str(tmp_path), [7, 8, 99], 7)
    assert (found.processes, found.threads, found.descriptors, found.sockets, found.files) == (3, 3, 4, 2, 1024)


@pytest.mark.parametrize("text", [None, b"", b"Max open files", b"Max open files  unlimited  unlimited files"])
def test_no_limit_of_files(text: bytes | None) -> None:
    assert insides.open_files(text) is None


def test_a_look_counts_for_a_while(tmp_path: Path) -> None:
    place = written(tmp_path / "c", {"cgroup.procs": "1\n"})
    looks = insides.Insides(str(tmp_path))
    assert looks.look("a", {"": place}, 0).processes == 1
    (tmp_path / "c/cgroup.procs").write_text("1\n2\n")
    assert looks.look("a", {"": place}, 0).processes == 1
    assert looks.look("b", {"": place}, 0).processes == 2
    looks.keep({"b"})
    assert looks.look("a", {"": place}, 0).processes == 2


@given(some.binary(max_size=200))
def test_whatever_a_file_has(text: bytes) -> None:
    assert all(isinstance(value, int) for value in kernelfiles.keys(text).values())
    for name in (b"a", b"usage_usec", b""):
        kernelfiles.key(text, name)
    values._io_stat(text)


def test_the_file_system_of_a_path(tmp_path: Path) -> None:
    found = Disks().of(str(tmp_path))
    assert found.device
    assert found.size > 0
    assert Disks().device("999999:1") == "999999:1"
