"""SIGKILL of ocirtd in the middle of what it does, for pods with namespaces and networks of their own: the retry succeeds, and in
the end nothing is left.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)
MOMENTS = int(os.environ.get("OCIRT_TEST_MOMENTS", "4"))
CHANCE = random.Random(os.environ.get("OCIRT_TEST_SEED", "1"))


def kill_during(node: Ocirtd, call: Callable[..., Any], request: Any, longest: float) -> None:
    """Kill the daemon at a random moment of a call, and start another."""
    under_way = call(request, timeout=PATIENCE)
    time.sleep(CHANCE.uniform(0, longest))
    node.kill()
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
        under_way.cancel()
    node.start()


def test_a_kill_at_any_moment(networked: Ocirtd) -> None:
    node = networked
    for number in range(MOMENTS):
        config = node.pod_config(f"pod{number}", options=OWN)
        config.linux.resources.memory_limit_in_bytes = 64 << 20  # so that it has a cgroup of its own
        kill_during(node, node.runtime.RunPodSandbox.future, cri.RunPodSandboxRequest(config=config), 0.1)
        pod = node.run_pod(config)
        assert len(node.pods()) == 1
        wanted = node.container_config("sleep", "1000")
        request = cri.CreateContainerRequest(pod_sandbox_id=pod, config=wanted)
        kill_during(node, node.runtime.CreateContainer.future, request, 0.1)
        made = node.create(pod, wanted)
        kill_during(node, node.runtime.StartContainer.future, cri.StartContainerRequest(container_id=made), 0.02)
        if node.status(made).state == cri.CONTAINER_CREATED:
            node.start_container(made)
        assert node.exec(made, "true").exit_code == 0
        kill_during(node, node.runtime.StopPodSandbox.future, cri.StopPodSandboxRequest(pod_sandbox_id=pod), 0.1)
        node.stop_pod(pod)
        assert node.status(made).exit_code == 137
        kill_during(node, node.runtime.RemovePodSandbox.future, cri.RemovePodSandboxRequest(pod_sandbox_id=pod), 0.05)
        node.remove_pod(pod)
        assert node.pods() == node.containers() == []
        assert node.left() == []
        assert list(Path("/run/netns").iterdir()) == []
