"""Metrics of real containers, as a kubelet asks for them."""

from __future__ import annotations

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.metrics import descriptors, of_container, of_pods
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def test_only_what_runs(node: Ocirtd) -> None:
    pod, stopped = node.run_pod(), node.run_pod()
    running = node.run(pod, "sleep", "1000")
    node.create(pod, node.container_config("true"))
    node.wait(node.run(pod, "true"))
    node.stop_pod(stopped)
    found = of_pods(node)
    assert list(found) == [pod]
    assert [one.container_id for one in found[pod].container_metrics] == [running]
    assert list(found[pod].metrics) == []  # its network is the node's


def test_labels(node: Ocirtd) -> None:
    pod = node.run_pod(node.pod_config("web"))
    made = node.run(pod, "sleep", "1000", name="app")
    (one,) = of_pods(node)[pod].container_metrics
    seen = next(each for each in one.metrics if each.name == "container_last_seen")
    labels = dict(zip(descriptors(node)["container_last_seen"].label_keys, seen.label_values, strict=True))
    assert made in labels["id"]  # with systemd it is a scope
    assert labels["id"].startswith("/")
    assert labels["name"] == made
    assert (labels["container"], labels["pod"], labels["namespace"]) == ("app", "web", "default")
    assert labels["image"] == node.status(made).image.image


def test_a_stream_of_them(node: Ocirtd) -> None:
    pods = [node.run_pod() for _ in range(25)]
    node.run(pods[0], "sleep", "1000")
    parts = list(node.runtime.StreamPodSandboxMetrics(cri.StreamPodSandboxMetricsRequest(), timeout=20))
    assert all(part.pod_sandbox_metrics for part in parts)
    assert [one.pod_sandbox_id for part in parts for one in part.pod_sandbox_metrics] == list(of_pods(node))
    assert len(parts) == 2


def test_processes_and_sockets(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.run(pod, "sh", "-c", "busybox nc -l -p 0 & sleep 1000 & wait")
    node.until(lambda: of_container(of_pods(node)[pod], made)["container_sockets"] == 1, "the socket")
    values = of_container(of_pods(node)[pod], made)
    assert values["container_processes"] == 3
    assert values["container_file_descriptors"] >= 9
