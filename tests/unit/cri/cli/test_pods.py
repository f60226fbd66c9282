"""`ocirt pods`: what is put together from the CRI's answers."""

from __future__ import annotations

from typing import Any

import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.cli import pods
from ocirt_cri.cli.pods import Row

NOW = 1_000_000_000_000_000_000


class Calls:
    """A service with two pods, one of which has stopped."""

    def ListPodSandbox(self, request: cri.ListPodSandboxRequest, timeout: float) -> cri.ListPodSandboxResponse:
        assert timeout
        items = [
            cri.PodSandbox(
                id="b" * 64,
                metadata=cri.PodSandboxMetadata(name="web", namespace="default", attempt=1),
                state=cri.SANDBOX_READY,
                created_at=NOW - 61_000_000_000,
            ),
            cri.PodSandbox(
                id="a" * 64,
                metadata=cri.PodSandboxMetadata(name="old", namespace="kube-system"),
                state=cri.SANDBOX_NOTREADY,
                created_at=NOW - 7200_000_000_000,
            ),
        ]
        ready = request.filter.HasField("state")
        return cri.ListPodSandboxResponse(items=[one for one in items if not ready or one.state == request.filter.state.state])

    def ListContainers(self, request: cri.ListContainersRequest, timeout: float) -> cri.ListContainersResponse:
        assert timeout
        containers = [
            cri.Container(
                pod_sandbox_id="b" * 64, metadata=cri.ContainerMetadata(name="a", attempt=2), state=cri.CONTAINER_RUNNING
            ),
            cri.Container(pod_sandbox_id="b" * 64, metadata=cri.ContainerMetadata(name="i"), state=cri.CONTAINER_EXITED),
            cri.Container(pod_sandbox_id="gone", metadata=cri.ContainerMetadata(name="x"), state=cri.CONTAINER_RUNNING),
        ]
        return cri.ListContainersResponse(containers=containers)

    def ListPodSandboxStats(self, request: Any, timeout: float) -> cri.ListPodSandboxStatsResponse:
        assert timeout
        stats = cri.PodSandboxStats(attributes=cri.PodSandboxAttributes(id="b" * 64))
        stats.linux.cpu.usage_nano_cores.value = 250_000_000
        stats.linux.memory.working_set_bytes.value = 3 << 20
        stats.linux.network.default_interface.rx_bytes.value = 2048
        return cri.ListPodSandboxStatsResponse(stats=[stats])


def test_what_runs() -> None:
    (row,) = pods.look(Calls(), every=False)  # type: ignore[arg-type]
    assert (row.name, row.restarts, row.containers) == ("web", 2, {"a": "running", "i": "exited"})
    assert (row.cpu, row.memory, row.rx, row.tx) == (0.25, 3 << 20, 2048, 0)


def test_all_oldest_first() -> None:
    rows = pods.look(Calls(), every=True)  # type: ignore[arg-type]
    assert [(row.name, row.state, row.cpu) for row in rows] == [("old", "stopped", None), ("web", "ready", 0.25)]


def test_the_table() -> None:
    head, old, web = pods.show(pods.look(Calls(), every=True), NOW).splitlines()  # type: ignore[arg-type]
    assert head.split()[:2] == ["POD", "ID"]
    assert old.split() == ["a" * 13, "kube-system", "old", "stopped", "2h", "0/0", "0", "-", "-", "-"]
    assert web.split() == ["b" * 13, "default", "web", "ready", "1m1s", "1/2", "2", "0.250", "3MiB", "2KiB/0B"]


@pytest.mark.parametrize(
    ("word", "meant"), [("ab", True), ("web", True), ("default", True), ("default/web", True), ("we", False)]
)
def test_what_a_word_means(word: str, meant: bool) -> None:  # noqa: FBT001
    assert pods._is_meant(Row("abc", "default", "web", 0, "ready", 0), word) is meant
