"""Cgroups of whole pods: the kubelet's, and our own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt.cgroups import control, paths
from ocirt.cgroups.layout import detect
from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import Isolation
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MIB = 1 << 20
LIMITS = cri.LinuxContainerResources(cpu_shares=500, memory_limit_in_bytes=96 * MIB)
OVERHEAD = cri.LinuxContainerResources(memory_limit_in_bytes=4 * MIB)


@pytest.fixture
def by_files(isolation: Isolation) -> Isolation:
    if isolation.slice:
        pytest.skip("systemd makes the cgroups here")
    return isolation


@pytest.fixture
def kubelets(by_files: Isolation) -> Iterator[dict[str, str]]:
    """A pod's cgroup as a kubelet makes it."""
    layout = detect()
    found = paths.resolve(f"{by_files.cgroup_parent}/kubepods/pod-x-podu1", "", layout, rootless=False)
    made = control.create(found)
    yield found
    control.remove({"paths": found, "created": made})


def info(node: Ocirtd, pod: str) -> dict[str, Any]:
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
    found: dict[str, Any] = json.loads(node.runtime.PodSandboxStatus(request, timeout=10).info["info"])
    return found


def update(node: Ocirtd, pod: str, **limits: cri.LinuxContainerResources) -> None:
    node.runtime.UpdatePodSandboxResources(cri.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, **limits), timeout=10)


def memory_limit(cgroup: dict[str, str]) -> int:
    """Bytes; 0: none, or no controller."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        path = Path(cgroup.get("memory") or cgroup[""], name)
        if path.exists():
            text = path.read_text().strip()
            return int(text) if text.isdecimal() and int(text) < 1 << 60 else 0
    return 0


def with_limits(node: Ocirtd, uid: str = "", parent: str = "") -> cri.PodSandboxConfig:
    config = node.pod_config()
    config.linux.resources.CopyFrom(LIMITS)
    config.linux.overhead.CopyFrom(OVERHEAD)
    if uid:
        config.metadata.uid = uid
        config.linux.cgroup_parent = parent
    return config


def test_a_cgroup_of_our_own(node: Ocirtd, by_files: Isolation) -> None:
    """It has the pod's limits, its containers are in it, and it goes with the pod; the parent stays."""
    pod = node.run_pod(with_limits(node))
    cgroup = info(node, pod)["cgroup"]
    assert info(node, pod)["cgroupMade"]
    assert all(os.path.isdir(one) and one.endswith(f"{by_files.cgroup_parent}/pod-{pod}") for one in cgroup.values())
    assert memory_limit(cgroup) in (100 * MIB, 0)
    made = node.run(pod, "sleep", "1000")
    inner = [one for one in cgroup.values() if os.path.isdir(f"{one}/{made}")]
    assert len(inner) == len(set(cgroup.values()))
    (found,) = node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=10).stats
    assert found.linux.process.process_count.value == 1
    if memory_limit(cgroup):
        assert 0 < found.linux.memory.available_bytes.value < 100 * MIB
    node.remove_pod(pod)
    for one in cgroup.values():
        assert not os.path.exists(one)
        assert os.path.isdir(os.path.dirname(one))


def test_other_limits(node: Ocirtd, by_files: Isolation) -> None:
    pod = node.run_pod(with_limits(node))
    cgroup = info(node, pod)["cgroup"]
    update(node, pod, resources=cri.LinuxContainerResources(memory_limit_in_bytes=60 * MIB))
    assert memory_limit(cgroup) in (64 * MIB, 0)
    node.kill()
    node.start()
    assert info(node, pod)["resources"] == {"cpu_shares": "500", "memory_limit_in_bytes": str(60 * MIB)}
    assert info(node, pod)["overhead"] == {"memory_limit_in_bytes": str(4 * MIB)}
    update(node, pod, overhead=cri.LinuxContainerResources(memory_limit_in_bytes=8 * MIB))
    assert memory_limit(cgroup) in (68 * MIB, 0)
    assert node.pods()[0].id == pod  # a retry of the pod's own request still finds it
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        update(node, pod, resources=cri.LinuxContainerResources(cpu_shares=1))
    assert "resources.cpu_shares" in words[0]
    with refused(grpc.StatusCode.NOT_FOUND):
        update(node, "0" * 64, resources=LIMITS)
    assert memory_limit(cgroup) in (68 * MIB, 0)
    node.stop_pod(pod)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        update(node, pod, resources=LIMITS)
    node.remove_pod(pod)
    assert not any(os.path.exists(one) for one in cgroup.values())


def test_the_kubelets_cgroup_is_left_alone(node: Ocirtd, kubelets: dict[str, str], by_files: Isolation) -> None:
    config = with_limits(node, "u1", f"{by_files.cgroup_parent}/kubepods/pod-x-podu1")
    pod = node.run_pod(config)
    found = info(node, pod)
    assert found["cgroup"] == kubelets
    assert not found["cgroupMade"]
    assert memory_limit(kubelets) == 0
    made = node.run(pod, "sleep", "1000")
    assert all(os.path.isdir(f"{one}/{made}") for one in kubelets.values())
    update(node, pod, resources=cri.LinuxContainerResources(cpu_shares=200))
    assert info(node, pod)["resources"]["cpu_shares"] == "200"
    assert memory_limit(kubelets) == 0
    (stats,) = node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=10).stats
    assert stats.linux.process.process_count.value == 1
    node.remove_pod(pod)
    assert all(os.path.isdir(one) for one in kubelets.values())


def test_a_kubelets_cgroup_that_is_missing(node: Ocirtd, by_files: Isolation) -> None:
    pod = node.run_pod(with_limits(node, "u2", f"{by_files.cgroup_parent}/kubepods/podu2"))
    cgroup = info(node, pod)["cgroup"]
    assert memory_limit(cgroup) in (100 * MIB, 0)
    node.run(pod, "sleep", "1000")
    node.remove_pod(pod)
    assert not any(os.path.exists(os.path.dirname(one)) for one in cgroup.values())


def test_limits_that_cannot_be(node: Ocirtd, by_files: Isolation) -> None:
    """Nothing is left of the pod."""
    config = with_limits(node)
    config.linux.resources.cpuset_cpus = "4000"
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.run_pod(config)
    assert "cpuset_cpus" in words[0]
    assert node.pods() == []
    layout = detect()
    for mount in layout.mounts.values():
        assert not list(Path(mount + by_files.cgroup_parent).glob("pod-*"))
