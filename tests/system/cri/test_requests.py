"""Requests over gRPC: bad ones are refused by field and leave nothing; what good ones ask for is what the container has."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.unit.cri.spec.test_validate import CONTAINERS, PODS

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def test_bad_requests(node: Ocirtd) -> None:
    """A hundred of them: the right code, a message that names the field, and nothing is left."""
    for given, field, word in PODS:
        request = cri.RunPodSandboxRequest(config=given)
        with refused(INVALID) as said:
            node.runtime.RunPodSandbox(request, timeout=PATIENCE)
        assert said[0].startswith(field), said
        assert word in said[0], said
    with refused(INVALID) as said:
        node.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=node.pod_config(), runtime_handler="kata"), timeout=PATIENCE)
    assert said[0].startswith("runtime_handler")
    assert node.pods() == []
    assert node.left() == []

    pod = node.run_pod()  # in the node's network
    before = node.left()
    for config, field, word in CONTAINERS:
        if word == "the pod has POD":
            continue
        asked = cri.ContainerConfig()
        asked.CopyFrom(config)
        if asked.log_path == "":
            asked.log_path = "app.log"
        if asked.image.image:
            asked.image.image = node.image
        with refused(INVALID) as said:
            node.create(pod, asked)
        assert said[0].startswith(field), said
        assert word in said[0], said
    assert node.containers() == []
    assert node.left() == before


def test_refused_after_a_look(node: Ocirtd) -> None:
    """What only a look at the image or at the host can tell is refused as well, and all that was begun is taken back."""
    pod = node.run_pod()
    before = node.left()

    def asked(field: str, **more: Any) -> None:
        with refused(INVALID) as said:
            node.create(pod, node.container_config("true", **more))
        assert said[0].startswith(field), said

    def secure(**context: Any) -> cri.LinuxContainerConfig:
        return cri.LinuxContainerConfig(security_context=cri.LinuxContainerSecurityContext(**context))

    security = "config.linux.security_context"
    asked(f"{security}.run_as_username", linux=secure(run_as_username="nobody-here"))
    asked(f"{security}.seccomp_profile_path", linux=secure(seccomp_profile_path="localhost//not/there.json"))
    asked("config.devices[0].host_path", devices=[cri.Device(host_path="/dev/not-there")])
    asked("config.devices[0].host_path", devices=[cri.Device(host_path="/etc/passwd")])
    asked("config.CDI_devices[0].name", CDI_devices=[cri.CDIDevice(name="vendor.example/gpu=0")])
    shared = cri.Mount(container_path="/mnt", host_path="/proc/self", propagation=cri.PROPAGATION_BIDIRECTIONAL)
    asked("config.mounts[0].propagation", mounts=[shared])
    assert node.containers() == []
    assert node.left() == before


@pytest.mark.parametrize("value", [b"caf\xe9", b"\xff\xfe\xfd"])
def test_bytes_that_are_not_text(node: Ocirtd, value: bytes) -> None:
    """A variable reaches the program, and programs that are run beside it, as the client sent it."""
    pod = node.run_pod()
    config = node.container_config("sh", "-c", 'printf %s "$X" >/x; exec sleep 1000', envs=[cri.KeyValue(key="X", value=value)])
    made = node.create(pod, config)
    node.start_container(made)
    node.until(lambda: node.exec(made, "cat", "/x").stdout == value, "the program's variable")
    assert node.exec(made, "sh", "-c", 'printf %s "$X"').stdout == value


def test_user(node: Ocirtd) -> None:
    """Who the process is, and what the status says of it."""
    pod = node.run_pod()
    context = cri.LinuxContainerSecurityContext(run_as_user=cri.Int64Value(value=1000), supplemental_groups=[1234])
    linux = cri.LinuxContainerConfig(security_context=context)
    made = node.run(pod, "sleep", "1000", linux=linux)
    said = node.exec(made, "sh", "-c", "id -u; id -G").stdout.decode().split()
    assert sorted(map(int, said)) == [29, 1000, 1000, 1234]
    assert node.status(made).user.linux == cri.LinuxContainerUser(uid=1000, gid=1000, supplemental_groups=[29, 1000, 1234])
