"""Pods and containers over gRPC, with real shims, from their making to their removal."""

from __future__ import annotations

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def test_a_container_lives(node: Ocirtd) -> None:
    """From the pod to its removal, with what is said of it meanwhile."""
    pod = node.run_pod()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    made = node.create(pod, node.container_config("sh", "-c", "echo out; echo err >&2; exec sleep 1000"))
    status = node.status(made)
    assert (status.state, status.started_at, status.finished_at, status.exit_code) == (cri.CONTAINER_CREATED, 0, 0, 0)
    node.start_container(made)
    status = node.status(made)
    assert status.state == cri.CONTAINER_RUNNING
    assert status.started_at >= status.created_at > 0
    assert node.exec(made, "sh", "-c", "cat; echo one; echo two >&2; exit 3") == cri.ExecSyncResponse(
        stdout=b"one\n", stderr=b"two\n", exit_code=3
    )
    node.until(lambda: len(node.logged(made)) == 2, "both lines of the log")
    assert sorted(node.logged(made)) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    node.stop_container(made)
    status = node.status(made)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 137, "Error")
    node.remove_container(made)
    assert node.containers() == []
    node.stop_pod(pod)
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
    node.remove_pod(pod)
    assert node.pods() == []
    assert node.left() == []
