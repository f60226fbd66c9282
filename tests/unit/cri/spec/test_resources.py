"""Limits, cgroups and annotations."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt.cgroups.limits import writes
from ocirt.cgroups.systemd import unit_of
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.spec import cgroups, podresources, resources
from ocirt_cri.spec.pod import pod_of
from tests.unit.cri.spec.requests import (
    CONTAINER_ID,
    HOST,
    POD_ID,
    SETTINGS,
    config,
    limited,
    made,
    pod_config,
    refused,
    with_host,
    with_settings,
)

PLACE = "config.linux.resources"
DEVICES = {"devices": [{"allow": False, "access": "rwm"}]}


def pages(**sizes: int) -> list[cri.HugepageLimit]:
    return [cri.HugepageLimit(page_size=name.removeprefix("s"), limit=limit) for name, limit in sizes.items()]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"cpu_shares": 1024}, {"cpu": {"shares": 1024}}),
        ({"cpu_quota": 50000, "cpu_period": 100000}, {"cpu": {"quota": 50000, "period": 100000}}),
        ({"cpu_quota": -1}, {"cpu": {"quota": -1}}),
        ({"cpuset_cpus": "0-1", "cpuset_mems": "0"}, {"cpu": {"cpus": "0-1", "mems": "0"}}),
        ({"memory_limit_in_bytes": 1 << 24}, {"memory": {"limit": 1 << 24, "swap": 1 << 24}}),
        ({"memory_limit_in_bytes": -1}, {"memory": {"limit": -1}}),
        (
            {"memory_limit_in_bytes": 1 << 24, "memory_swap_limit_in_bytes": 1 << 25},
            {"memory": {"limit": 1 << 24, "swap": 1 << 25}},
        ),
        ({"memory_limit_in_bytes": 1 << 24, "memory_swap_limit_in_bytes": -1}, {"memory": {"limit": 1 << 24, "swap": -1}}),
        ({"hugepage_limits": pages(s2MB=1 << 22)}, {"hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 22}]}),
        ({"unified": {"memory.oom.group": "1", "memory.high": "5"}}, {"unified": {"memory.high": "5", "memory.oom.group": "1"}}),
    ],
)
def test_limits(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = made(limited(**given)).document["linux"]["resources"]
    assert found == wanted | DEVICES
    writes(found, "v2")


def test_a_limit_of_tasks() -> None:
    found = made(settings=with_settings(pids_limit=100)).document["linux"]["resources"]
    assert found["pids"] == {"limit": 100}
    assert (
        "pids"
        not in made(settings=with_settings(pids_limit=100), host=with_host(controllers=frozenset())).document["linux"][
            "resources"
        ]
    )


def test_host_that_does_not_count_swap() -> None:
    given = limited(memory_limit_in_bytes=1 << 24, memory_swap_limit_in_bytes=1 << 25)
    assert made(given, host=with_host(swap=False)).document["linux"]["resources"]["memory"] == {"limit": 1 << 24}


def test_host_without_huge_pages() -> None:
    """The kubelet sends a limit of 0 for each size that it knows of."""
    host = with_host(controllers=frozenset(("memory",)))
    assert "hugepageLimits" not in made(limited(hugepage_limits=pages(s2MB=0, s1GB=0)), host=host).document["linux"]["resources"]
    given = limited(hugepage_limits=pages(s2MB=5))
    refused(lambda: made(given, host=host), f"{PLACE}.hugepage_limits", "hugetlb", code="unsupported")


def test_files_of_version_2_on_version_1() -> None:
    given = limited(unified={"memory.high": "5"})
    refused(lambda: made(given, host=with_host(cgroup_version=1)), f"{PLACE}.unified", "version 1", code="unsupported")


@pytest.mark.parametrize(
    ("given", "host", "wanted"),
    [(0, {}, 0), (-999, {}, -999), (1000, {}, 1000), (-999, {"oom_score_adj": -500, "limited_oom_score_adj": True}, -500)],
)
def test_score(given: int, host: dict[str, Any], wanted: int) -> None:
    assert made(limited(oom_score_adj=given), host=with_host(**host)).document["process"]["oomScoreAdj"] == wanted


BAD = [
    ({"cpu_shares": 1}, "cpu_shares", "2 to 262144"),
    ({"cpu_shares": -1}, "cpu_shares", "2 to 262144"),
    ({"cpu_shares": 262145}, "cpu_shares", "2 to 262144"),
    ({"cpu_period": 999}, "cpu_period", "1000 to"),
    ({"cpu_period": -1}, "cpu_period", "1000 to"),
    ({"cpu_period": 1 << 40}, "cpu_period", "1000 to"),
    ({"cpu_quota": -2}, "cpu_quota", "-1 for no limit"),
    ({"cpu_quota": 999}, "cpu_quota", "1000 microseconds"),
    ({"cpuset_cpus": "zero"}, "cpuset_cpus", "not a list"),
    ({"cpuset_mems": "5-1"}, "cpuset_mems", "not a list"),
    ({"memory_limit_in_bytes": -2}, "memory_limit_in_bytes", "out of range"),
    ({"memory_limit_in_bytes": 12}, "memory_limit_in_bytes", "out of range"),
    ({"memory_swap_limit_in_bytes": 5}, "memory_swap_limit_in_bytes", "without one of memory"),
    ({"memory_swap_limit_in_bytes": -2}, "memory_swap_limit_in_bytes", "out of range"),
    ({"memory_limit_in_bytes": 1 << 24, "memory_swap_limit_in_bytes": 1 << 23}, "memory_swap_limit_in_bytes", "below"),
    ({"oom_score_adj": 1001}, "oom_score_adj", "-1000 to 1000"),
    ({"oom_score_adj": -1001}, "oom_score_adj", "-1000 to 1000"),
    ({"hugepage_limits": pages(s2M=5)}, "hugepage_limits[0].page_size", "not the size"),
    ({"hugepage_limits": pages(s2MB=5) * 2}, "hugepage_limits[1].page_size", "twice"),
    ({"unified": {"cgroup.procs": "1"}}, 'unified["cgroup.procs"]', "no limit"),
    ({"unified": {"cgroup.kill": "1"}}, 'unified["cgroup.kill"]', "no limit"),
    ({"unified": {"cgroup.freeze": "1"}}, 'unified["cgroup.freeze"]', "no limit"),
    ({"unified": {"../memory.max": "1"}}, 'unified["../memory.max"]', "slashes"),
    ({"unified": {"memory": "1"}}, 'unified["memory"]', "not a file"),
    ({"unified": {".a.b": "1"}}, 'unified[".a.b"]', "CONTROLLER.PARAMETER"),
    ({"unified": {"memory.max": "1\0"}}, 'unified["memory.max"]', "no value"),
]


@pytest.mark.parametrize(("given", "field", "word"), BAD)
def test_bad_limits(given: dict[str, Any], field: str, word: str) -> None:
    refused(lambda: made(limited(**given)), f"{PLACE}.{field}", word)


@pytest.mark.parametrize("name", ["resources", "overhead"])
@pytest.mark.parametrize(("given", "field", "word"), BAD[:4])
def test_bad_limits_of_a_pod(name: str, given: dict[str, Any], field: str, word: str) -> None:
    of = pod_config(linux=cri.LinuxPodSandboxConfig(**{name: cri.LinuxContainerResources(**given)}))  # type: ignore[arg-type]
    refused(lambda: pod_of(of, "", HOST, SETTINGS), f"config.linux.{name}.{field}", word)


def test_limits_of_a_pod() -> None:
    of = pod_config(linux=cri.LinuxPodSandboxConfig(resources=cri.LinuxContainerResources(cpu_shares=2)))
    assert pod_of(of, "", HOST, SETTINGS).resources == {"cpu": {"shares": 2}}


def test_limits_alone() -> None:
    """For UpdateContainerResources."""
    given = cri.LinuxContainerResources(memory_limit_in_bytes=1 << 24)
    resources.check(given, "linux")
    assert resources.resources_of(given, HOST, "linux") == {"memory": {"limit": 1 << 24, "swap": 1 << 24}}


# -- cgroups -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("manager", "given", "of_settings", "wanted"),
    [
        ("cgroupfs", "", "", f"/ocirt/{CONTAINER_ID}"),
        ("cgroupfs", "", "/mine", f"/mine/{CONTAINER_ID}"),
        ("cgroupfs", "/kubepods/burstable/pod1", "/mine", f"/kubepods/burstable/pod1/{CONTAINER_ID}"),
        ("cgroupfs", "kubepods//x/", "", f"/kubepods/x/{CONTAINER_ID}"),
        ("cgroupfs", "/kubepods.slice/kubepods-a.slice", "", f"/kubepods.slice/kubepods-a.slice/{CONTAINER_ID}"),
        ("systemd", "", "", f"system.slice:ocirt:{CONTAINER_ID}"),
        ("systemd", "kubepods-burstable-pod1.slice", "", f"kubepods-burstable-pod1.slice:ocirt:{CONTAINER_ID}"),
        ("systemd", "/kubepods.slice/kubepods-a.slice/", "", f"kubepods-a.slice:ocirt:{CONTAINER_ID}"),
        ("systemd", "/test.slice", "", f"test.slice:ocirt:{CONTAINER_ID}"),
    ],
)
def test_cgroup(manager: str, given: str, of_settings: str, wanted: str) -> None:
    of = pod_config(linux=cri.LinuxPodSandboxConfig(cgroup_parent=given))
    found = made(of=of, settings=with_settings(cgroup_manager=manager, cgroup_parent=of_settings)).document["linux"][
        "cgroupsPath"
    ]
    assert found == wanted
    if manager == "systemd":
        assert unit_of(found, CONTAINER_ID, user=False).name == f"ocirt-{CONTAINER_ID}.scope"


@pytest.mark.parametrize(
    ("manager", "given", "limited", "wanted"),
    [
        ("cgroupfs", "/kubepods/pod{uid}", True, ("/kubepods/pod{uid}", True)),
        ("cgroupfs", "/kubepods/pod{uid}", False, ("/kubepods/pod{uid}", True)),
        ("cgroupfs", "/shared", True, ("/shared/pod-abc", True)),
        ("cgroupfs", "/shared", False, ("/shared", False)),
        ("systemd", "kubepods-pod{uid}.slice", True, ("kubepods-pod{uid}.slice", True)),
        ("systemd", "shared.slice", True, ("shared.slice", False)),
    ],
)
def test_the_cgroup_of_a_pod(manager: str, given: str, limited: bool, wanted: tuple[str, bool]) -> None:
    of = pod_config(linux=cri.LinuxPodSandboxConfig(cgroup_parent=given.format(uid="11")))
    of.metadata.uid = "11"
    if limited:
        of.linux.resources.cpu_shares = 100
    found = cgroups.of_pod(of, "abc", with_settings(cgroup_manager=manager), "f")
    assert found == (wanted[0].format(uid="11"), wanted[1])


@pytest.mark.parametrize(
    ("manager", "given", "word"),
    [
        ("cgroupfs", "/a/../../b", "no path"),
        ("cgroupfs", "..", "no path"),
        ("cgroupfs", "a:b", "no path"),
        ("cgroupfs", "/", "root of all"),
        ("cgroupfs", "kubepods-x.slice", "slice of systemd"),
        ("systemd", "/kubepods/burstable", "no slice"),
        ("systemd", "a--b.slice", "no slice"),
        ("systemd", "x.scope", "no slice"),
        ("systemd", "a\nb.slice", "no path"),
    ],
)
def test_bad_cgroup(manager: str, given: str, word: str) -> None:
    of = pod_config(linux=cri.LinuxPodSandboxConfig(cgroup_parent=given))
    settings = with_settings(cgroup_manager=manager)
    refused(lambda: pod_of(of, "", HOST, settings), "config.linux.cgroup_parent", word)
    refused(lambda: made(of=of, settings=settings), "sandbox_config.linux.cgroup_parent", word)
    if manager == "cgroupfs":
        assert cgroups.parent("/kubepods", settings, "x") == "/kubepods"


# -- annotations ---------------------------------------------------------------------------------------------------------------


def test_annotations_of_ours() -> None:
    given = config(annotations={"io.kubernetes.container.hash": "1", "org.systemd.property.CPUWeight": "1"})
    assert made(given).document["annotations"] == {
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "app",
        "io.kubernetes.cri.image-name": "docker.io/library/busybox:latest",
        "io.kubernetes.cri.sandbox-id": POD_ID,
        "io.kubernetes.cri.sandbox-name": "web",
        "io.kubernetes.cri.sandbox-namespace": "default",
        "io.kubernetes.cri.sandbox-uid": "u-1",
    }


def test_annotations_that_go_on() -> None:
    """Those that the configuration names, and none that would steer the runtime."""
    settings = with_settings(annotations=("io.example/*", "exact", "org.*"), pod_annotations=("io.example/a", "*"))
    given = config(
        annotations={"io.example/a": "c", "exact": "1", "exactly": "2", "org.ocirt.x": "3", "org.systemd.property.X": "4"}
    )
    of = pod_config(
        annotations={"io.example/a": "p", "p": "5", "io.kubernetes.cri.sandbox-id": "6", "org.ocirt.image.writable": "7"}
    )
    found = made(given, of=of, settings=settings).document["annotations"]
    assert {name: value for name, value in found.items() if not name.startswith("io.kubernetes.cri.")} == {
        "io.example/a": "c",
        "exact": "1",
        "p": "5",
    }
    assert found["io.kubernetes.cri.sandbox-id"] == POD_ID


# -- pods ----------------------------------------------------------------------------------------------------------------------

MIB = 1 << 20


@pytest.mark.parametrize(
    ("overhead", "containers", "wanted"),
    [
        ({}, {}, {}),
        ({"cpu_shares": 10, "memory_limit_in_bytes": MIB}, {}, {}),
        ({"cpu_shares": 10}, {"cpu_shares": 100}, {"cpu_shares": 110}),
        ({"cpu_shares": 262144}, {"cpu_shares": 100}, {"cpu_shares": 262144}),
        (
            {"cpu_quota": 10_000, "cpu_period": 50_000},
            {"cpu_quota": 30_000},
            {"cpu_quota": 50_000},
        ),
        ({"cpu_quota": 10_000}, {"cpu_quota": -1}, {"cpu_quota": -1}),
        (
            {"memory_limit_in_bytes": MIB},
            {"memory_limit_in_bytes": 2 * MIB, "memory_swap_limit_in_bytes": 3 * MIB},
            {"memory_limit_in_bytes": 3 * MIB, "memory_swap_limit_in_bytes": 4 * MIB},
        ),
        ({"memory_limit_in_bytes": MIB}, {"memory_limit_in_bytes": -1}, {"memory_limit_in_bytes": -1}),
    ],
)
def test_overhead(overhead: dict[str, Any], containers: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = podresources.together(cri.LinuxContainerResources(**overhead), cri.LinuxContainerResources(**containers))
    assert found == cri.LinuxContainerResources(**wanted)


def test_what_is_not_given_stays() -> None:
    pages = [cri.HugepageLimit(page_size="2MB", limit=1), cri.HugepageLimit(page_size="1GB", limit=2)]
    old = cri.LinuxContainerResources(cpu_shares=5, cpuset_cpus="0", hugepage_limits=pages, unified={"a.b": "1"})
    new = cri.LinuxContainerResources(
        cpu_quota=5000, cpuset_cpus="1", hugepage_limits=[cri.HugepageLimit(page_size="2MB", limit=3)], unified={"a.c": "2"}
    )
    found = resources.changed(old, new)
    assert (found.cpu_shares, found.cpu_quota, found.cpuset_cpus, dict(found.unified)) == (5, 5000, "1", {"a.b": "1", "a.c": "2"})
    assert {one.page_size: one.limit for one in found.hugepage_limits} == {"2MB": 3, "1GB": 2}
    assert resources.changed(found, cri.LinuxContainerResources()) == found


def test_bad_limits_of_a_pod_name_their_field() -> None:
    for name in ("overhead", "resources"):
        given = {"overhead": cri.LinuxContainerResources(), "resources": cri.LinuxContainerResources()}
        given[name].cpu_shares = 1
        refused(lambda: podresources.of_pod(given["overhead"], given["resources"], HOST, ""), f"{name}.cpu_shares", "range")  # noqa: B023
