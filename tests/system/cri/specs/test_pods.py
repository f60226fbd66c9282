"""Pods: their life, their networks and sysctls, what is asked twice, and what the runtime says of itself."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import metrics, specs
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.specs import page, says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

BASIC = "PodSandbox runtime should support basic operations on PodSandbox runtime should support "
METRICS = "PodSandbox runtime should support metrics operations runtime should support "
SYSCTLS = "PodSandbox runtime should support sysctls should support "
NETWORKING = "Networking runtime should support networking runtime should support "
INFO = "Runtime info runtime should support returning runtime info runtime should return "
UNKNOWN = "0" * 64
MIB = 1 << 20
LIMITS = cri.LinuxContainerResources(
    cpu_period=100_000, cpu_quota=20_000, cpu_shares=1024, memory_limit_in_bytes=64 * MIB, memory_swap_limit_in_bytes=64 * MIB
)


@spec(BASIC + "running PodSandbox [Conformance]")
def test_running(node: Ocirtd, pod: str) -> None:
    status = node.pod_status(pod)
    assert status.state == cri.SANDBOX_READY
    assert status.created_at > 0
    assert [one.id for one in node.pods(id=pod)] == [pod]


@spec(BASIC + "stopping PodSandbox [Conformance]")
def test_stopping(node: Ocirtd, pod: str) -> None:
    node.stop_pod(pod)
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY


@spec(BASIC + "removing PodSandbox [Conformance]")
def test_removing(node: Ocirtd, pod: str) -> None:
    node.stop_pod(pod)
    node.remove_pod(pod)
    assert node.pods(id=pod) == []
    with refused(grpc.StatusCode.NOT_FOUND):
        node.pod_status(pod)


@spec(BASIC + "preserving PodSandbox attributes [Conformance]")
def test_attributes(node: Ocirtd) -> None:
    labels = {"foo": "bar", "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "default"}
    config = specs.pod_config(node, name="web", labels=labels, annotations={"abc": "def"})
    pod = node.run_pod(config)
    told: list[Any] = [node.pod_status(pod), *node.pods(id=pod)]
    assert len(told) == 2
    for found in told:
        assert found.metadata == config.metadata
        assert dict(found.labels) == labels
        assert dict(found.annotations) == {"abc": "def"}


# -- metrics --


@spec(METRICS + "returning metrics descriptors [Conformance]")
def test_descriptors(node: Ocirtd) -> None:
    """All names, each of which is explained and has labels."""
    found = metrics.descriptors(node)
    assert set(found) == metrics.EXPECTED
    assert all(one.help and list(one.label_keys) for one in found.values())


@spec(METRICS + "listing pod sandbox metrics [Conformance]")
def test_every_name_has_a_value(node: Ocirtd, pod: str) -> None:
    described = metrics.descriptors(node)
    box = specs.sleeper(node, pod, resources=LIMITS)
    says(node, box, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo hi > /file$i; done")
    found = metrics.of_pods(node)[pod]
    everything = [*found.metrics, *(one for each in found.container_metrics for one in each.metrics)]
    assert {one.name for one in everything} == metrics.EXPECTED - metrics.absent()
    for one in everything:
        assert len(one.label_values) == len(described[one.name].label_keys)
        assert all(one.label_values), one
    assert {one.name for one in found.metrics} == {name for name in metrics.EXPECTED if "_network_" in name}
    values = metrics.of_container(found, box)
    assert values["container_spec_cpu_quota"] == 20_000
    assert values["container_spec_memory_limit_bytes"] == 64 * MIB
    assert values["container_processes"] == values["container_threads"] == 1
    assert values["container_ulimits_soft"] == 1024
    assert values["container_fs_usage_bytes"] >= 9 * 4096
    assert abs(values["container_start_time_seconds"] - values["container_last_seen"]) < 60


# -- sysctls --


def sysctl(node: Ocirtd, name: str, value: str) -> None:
    """A pod's containers have it, and the node does not."""
    config = specs.pod_config(node)
    config.linux.sysctls[name] = value
    box = specs.sleeper(node, node.run_pod(config))
    path = f"/proc/sys/{name.replace('.', '/')}"
    assert says(node, box, "cat", path) == f"{value}\n"
    with open(path, encoding="ascii") as file:
        assert file.read().strip() != value


@spec(SYSCTLS + "safe sysctls")
def test_a_safe_sysctl(node: Ocirtd) -> None:
    sysctl(node, "kernel.shm_rmid_forced", "1")


@spec(SYSCTLS + "unsafe sysctls")
def test_an_unsafe_sysctl(node: Ocirtd) -> None:
    sysctl(node, "fs.mqueue.msg_max", "100")


# -- networks --


@spec(NETWORKING + "DNS config [Conformance]")
def test_names(node: Ocirtd) -> None:
    wanted = cri.DNSConfig(servers=["10.10.10.10"], searches=["google.com"], options=["ndots:8"])
    box = specs.sleeper(node, node.run_pod(specs.pod_config(node, dns_config=wanted)))
    lines = says(node, box, "cat", "/etc/resolv.conf").splitlines()
    assert lines == ["search google.com", "nameserver 10.10.10.10", "options ndots:8"]


@spec(NETWORKING + "set hostname [Conformance]")
def test_hostname(node: Ocirtd) -> None:
    box = specs.sleeper(node, node.run_pod(specs.pod_config(node, hostname="test-hostname")))
    assert says(node, box, "hostname") == "test-hostname\n"


def server(node: Ocirtd, mapping: cri.PortMapping) -> str:
    """A pod with a server in it."""
    pod = node.run_pod(specs.pod_config(node, port_mappings=[mapping]))
    specs.started(node, specs.create(node, pod, image=specs.NGINX))
    return pod


@spec(NETWORKING + "port mapping with only container port [Conformance]")
def test_a_port_of_the_pod(node: Ocirtd) -> None:
    pod = server(node, cri.PortMapping(container_port=80))
    node.until(lambda: page(node.pod_status(pod).network.ip, 80) == 200, "the page at the pod's address")


@spec(NETWORKING + "port mapping with host port and container port [Conformance]")
def test_a_port_of_the_host(node: Ocirtd) -> None:
    """Also where the host asks itself; and no longer, once the pod has stopped."""
    pod = server(node, cri.PortMapping(container_port=80, host_port=12000))
    node.until(lambda: page("127.0.0.1", 12000) == 200, "the page at the host's port")
    node.stop_pod(pod)
    assert page("127.0.0.1", 12000) == 0


# -- what is asked twice, or of what is not there --


@spec("Idempotence StopPodSandbox should not return an error if not found")
def test_stopping_no_pod(node: Ocirtd) -> None:
    node.stop_pod(UNKNOWN)


@spec("Idempotence StopPodSandbox should not return an error if already stopped")
def test_stopping_twice(node: Ocirtd, pod: str) -> None:
    for _ in range(2):
        node.stop_pod(pod)
        assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY


@spec("Idempotence RemovePodSandbox should not return an error if not found")
def test_removing_no_pod(node: Ocirtd) -> None:
    node.remove_pod(UNKNOWN)


@spec("Idempotence StopContainer should not return an error if not found")
def test_stopping_no_container(node: Ocirtd) -> None:
    node.stop_container(UNKNOWN)


@spec("Idempotence StopContainer should not return an error if already stopped")
def test_stopping_a_container_twice(node: Ocirtd, box: str) -> None:
    """Nor if it is removed twice."""
    for _ in range(2):
        node.stop_container(box, 20)
        assert node.status(box).state == cri.CONTAINER_EXITED
    node.remove_container(box)
    node.remove_container(box)


@spec("Idempotence RemoveContainer should not return an error if not found")
def test_removing_no_container(node: Ocirtd) -> None:
    node.remove_container(UNKNOWN)


@spec("Idempotence RemoveImage should not return an error if not found")
def test_removing_no_image(node: Ocirtd) -> None:
    for _ in range(2):
        node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=UNKNOWN)), timeout=PATIENCE)


# -- the runtime --


@spec(INFO + "version info [Conformance]")
def test_version(node: Ocirtd) -> None:
    found = node.runtime.Version(cri.VersionRequest(version="0.1.0"), timeout=PATIENCE)
    assert (found.version, found.runtime_name, found.runtime_api_version) == ("0.1.0", "ocirt", "v1")
    assert found.runtime_version


@spec(INFO + "runtime conditions [Conformance]")
def test_conditions(node: Ocirtd) -> None:
    found = node.runtime.Status(cri.StatusRequest(), timeout=PATIENCE).status
    assert {one.type: one.status for one in found.conditions} == {"RuntimeReady": True, "NetworkReady": True}
