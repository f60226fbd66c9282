"""Metrics and health of a daemon."""

from __future__ import annotations

import socket

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def _get(node: Ocirtd, path: str) -> tuple[str, dict[str, float]]:
    """The first line of the answer, and samples."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(node.place / "m"))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        data = b""
        while more := client.recv(1 << 16):
            data += more
    head, _, body = data.decode().partition("\r\n\r\n")
    lines = [line.rpartition(" ") for line in body.splitlines() if path == "/metrics" and not line.startswith("#")]
    return head.splitlines()[0], {name: float(value) for name, _, value in lines}


def test_calls_pods_and_health(node: Ocirtd) -> None:
    node.stop()
    node.config.write_text(node.config.read_text() + f'[metrics]\nlisten = "unix://{node.place}/m"\n')
    node.start()
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    node.wait(node.run(pod, "true"))
    with refused(grpc.StatusCode.NOT_FOUND):
        node.runtime.ContainerStatus(cri.ContainerStatusRequest(container_id="nothing"))
    refusal = 'ocirtd_rpc_total{method="ContainerStatus",code="NOT_FOUND"}'
    node.until(lambda: refusal in _get(node, "/metrics")[1], "the refusal, which is counted once it was sent")
    line, found = _get(node, "/metrics")
    assert line == "HTTP/1.1 200 OK"
    assert found['ocirtd_pods{state="ready"}'] == 1
    assert found['ocirtd_containers{state="running"}'] == found['ocirtd_containers{state="exited"}'] == 1
    assert found['ocirtd_rpc_total{method="CreateContainer",code="OK"}'] == 2
    assert found[refusal] == 1
    assert found['ocirtd_rpc_seconds_count{method="RunPodSandbox"}'] == 1
    assert found["ocirtd_zygote_starts_total"] == 1
    assert found["ocirtd_shims"] == 2
    assert _get(node, "/healthz")[0] == "HTTP/1.1 200 OK"
    assert _get(node, "/")[0] == "HTTP/1.1 404 Not Found"
    node.stop_container(box)
    node.remove_pod(pod)
    assert _get(node, "/metrics")[1]['ocirtd_pods{state="ready"}'] == 0
