"""Runtime handlers by configuration, and what Status says of them."""

from __future__ import annotations

import signal

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

SMALL = "[handlers.small.containers]\nrlimits = { NOFILE = [77, 88] }\n[handlers.small.pods]\nshm_size = 1048576\n"


def status(node: Ocirtd) -> cri.StatusResponse:
    return node.runtime.Status(cri.StatusRequest(), timeout=10)


def run_pod(node: Ocirtd, handler: str) -> str:
    request = cri.RunPodSandboxRequest(config=node.pod_config(), runtime_handler=handler)
    return str(node.runtime.RunPodSandbox(request, timeout=PATIENCE).pod_sandbox_id)


def with_handlers(node: Ocirtd, text: str) -> None:
    """The configuration with these tables in it, read without a restart."""
    before = node.config.read_text().partition("[handlers")[0]
    node.config.write_text(before + text)
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)


def test_a_handler_with_limits_of_its_own(node: Ocirtd) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        run_pod(node, "small")
    assert "runtime_handler" in words[0]
    with_handlers(node, SMALL)
    node.until(lambda: "small" in {one.name for one in status(node).runtime_handlers}, "the handler")
    assert [one.name for one in status(node).runtime_handlers] == ["", "ocirt", "small"]
    pod, other = run_pod(node, "small"), run_pod(node, "ocirt")
    assert node.pod_status(pod).runtime_handler == "small"
    made, plain = node.run(pod, "sleep", "1000"), node.run(other, "sleep", "1000")
    assert node.exec(made, "sh", "-c", "ulimit -n").stdout == b"77\n"
    assert node.exec(plain, "sh", "-c", "ulimit -n").stdout == b"1024\n"
    with_handlers(node, "")
    node.until(lambda: len(status(node).runtime_handlers) == 2, "the handler to go")
    late = node.run(pod, "sleep", "1000")  # the pod goes on
    assert node.exec(late, "sh", "-c", "ulimit -n").stdout == b"1024\n"
    assert node.exec(made, "sh", "-c", "ulimit -n").stdout == b"77\n"


def test_features_are_those_of_the_kernel(node: Ocirtd) -> None:
    found = status(node)
    assert found.features.supplemental_groups_policy
    assert found.features.mount_options
    assert {one.features.user_namespaces for one in found.runtime_handlers} == {found.features.user_namespaces_host_network}
    pod = node.run_pod()
    mount = cri.Mount(
        container_path="/tree", host_path=str(node.place / "data"), readonly=True, recursive_read_only=True,
        propagation=cri.PROPAGATION_PRIVATE,
    )  # fmt: skip
    wanted = node.container_config("sleep", "1000", mounts=[mount])
    if all(one.features.recursive_read_only_mounts for one in found.runtime_handlers):
        made = node.create(pod, wanted)
        assert node.status(made).mounts[0].recursive_read_only
    else:
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            node.create(pod, wanted)
