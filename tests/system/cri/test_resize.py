"""Limits of containers while they run: what is in force is what the status says."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest

from ocirt.cgroups.layout import detect
from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MIB = 1 << 20
UNALIGNED = 80_000_000  # bytes: no whole number of pages
GIVEN = cri.LinuxContainerResources(
    cpu_shares=102, cpu_quota=20_000, cpu_period=100_000, memory_limit_in_bytes=UNALIGNED, memory_swap_limit_in_bytes=UNALIGNED
)


def limits(node: Ocirtd, identifier: str) -> cri.LinuxContainerResources:
    return node.status(identifier).resources.linux


def update(node: Ocirtd, identifier: str, **values: int | str) -> None:
    wanted = cri.LinuxContainerResources(**values)  # type: ignore[arg-type]
    request = cri.UpdateContainerResourcesRequest(container_id=identifier, linux=wanted, annotations={"any": "thing"})
    node.runtime.UpdateContainerResources(request, timeout=10)


def has(controller: str) -> bool:
    layout = detect()
    if layout.mode == "v2":
        return controller in Path(layout.mounts[""], "cgroup.controllers").read_text().split()
    return controller in layout.mounts


def swap_is_counted() -> bool:
    layout = detect()
    return layout.mode == "v2" or os.path.exists(layout.mounts.get("memory", "") + "/memory.memsw.limit_in_bytes")


def test_what_is_in_force(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.run(pod, "sleep", "1000", linux=cri.LinuxContainerConfig(resources=GIVEN))
    found = limits(node, made)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (102, 20_000, 100_000)
    assert found.memory_limit_in_bytes == UNALIGNED
    assert found.memory_swap_limit_in_bytes in (UNALIGNED, 0 if not swap_is_counted() else UNALIGNED)
    update(node, made, cpu_quota=50_000)
    update(node, made, cpu_shares=307)
    update(node, made, memory_limit_in_bytes=UNALIGNED + 1_000_000)
    found = limits(node, made)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_period) == (307, 50_000, 100_000)
    assert found.memory_limit_in_bytes == UNALIGNED + 1_000_000
    node.kill()
    node.start()
    assert limits(node, made) == found
    update(node, made, cpu_quota=-1)
    assert limits(node, made).cpu_quota == -1


def test_nothing_asked_for(node: Ocirtd) -> None:
    """Then it is what the kernel gives."""
    made = node.create(node.run_pod(), node.container_config("true"))
    found = limits(node, made)
    if has("cpu"):
        assert found.cpu_period == 100_000
        assert found.cpu_shares > 2
    assert (found.cpu_quota, found.memory_limit_in_bytes) == (0, 0)


def test_memory_that_is_in_use(node: Ocirtd) -> None:
    """It is not taken away: nothing has changed."""
    if not has("memory"):
        pytest.skip("no controller of memory")
    pod = node.run_pod()
    given = cri.LinuxContainerResources(memory_limit_in_bytes=64 * MIB, cpu_quota=20_000)
    made = node.run(pod, "dd", "if=/dev/zero", "of=/dev/null", "bs=20M", linux=cri.LinuxContainerConfig(resources=given))
    stats = cri.ContainerStatsRequest(container_id=made)
    node.until(lambda: node.runtime.ContainerStats(stats).stats.memory.rss_bytes.value > 20 * MIB, "the memory")
    before = limits(node, made)
    with refused(grpc.StatusCode.FAILED_PRECONDITION if detect().mode == "v2" else grpc.StatusCode.UNKNOWN) as words:
        update(node, made, memory_limit_in_bytes=4 * MIB, cpu_shares=55)
    assert "usage" in words[0]
    assert limits(node, made) == before
    assert node.status(made).state == cri.CONTAINER_RUNNING
    update(node, made, memory_limit_in_bytes=128 * MIB)
    assert limits(node, made).memory_limit_in_bytes == 128 * MIB


def test_swap(node: Ocirtd) -> None:
    if not (has("memory") and swap_is_counted()):
        pytest.skip("swap is not counted here")
    given = cri.LinuxContainerResources(memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=96 * MIB)
    made = node.run(node.run_pod(), "sleep", "1000", linux=cri.LinuxContainerConfig(resources=given))
    assert limits(node, made).memory_swap_limit_in_bytes == 96 * MIB
    update(node, made, memory_swap_limit_in_bytes=128 * MIB)
    assert limits(node, made).memory_swap_limit_in_bytes == 128 * MIB
    update(node, made, memory_limit_in_bytes=256 * MIB)
    found = limits(node, made)
    assert (found.memory_limit_in_bytes, found.memory_swap_limit_in_bytes) == (256 * MIB, 256 * MIB)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        update(node, made, memory_swap_limit_in_bytes=MIB)
    assert "linux.memory_swap_limit_in_bytes" in words[0]


def test_files_of_version_2(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.run(pod, "sleep", "1000")
    request = cri.UpdateContainerResourcesRequest(
        container_id=made, linux=cri.LinuxContainerResources(unified={"memory.high": str(64 * MIB)})
    )
    if detect().mode != "v2":
        with refused(grpc.StatusCode.UNIMPLEMENTED) as words:
            node.runtime.UpdateContainerResources(request, timeout=10)
        assert "linux.unified" in words[0]
    else:
        node.runtime.UpdateContainerResources(request, timeout=10)
        assert limits(node, made).unified["memory.high"] == str(64 * MIB)


def test_one_that_was_not_started(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.create(pod, node.container_config("true"))
    update(node, made, cpu_shares=200)
    assert limits(node, made).cpu_shares == 200
    node.start_container(made)
    node.wait(made)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        update(node, made, cpu_shares=300)
