"""Images and statistics of real containers: what their services promise, with all of the daemon around them."""

from __future__ import annotations

import os
import time

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import Ocirtd

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MIB = 1 << 20


def stats(node: Ocirtd, identifier: str) -> cri.ContainerStats:
    return node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=identifier), timeout=10).stats


def image(node: Ocirtd, name: str) -> cri.Image | None:
    found = node.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image=name)), timeout=10)
    return found.image if found.HasField("image") else None


def test_one_identifier_in_all_answers(node: Ocirtd) -> None:
    listed = node.images.ListImages(cri.ListImagesRequest(), timeout=10).images
    assert [one.id for one in listed] == [node.image]
    made = node.run(node.run_pod(), "sleep", "1000")
    assert node.status(made).image_id == node.containers()[0].image_id == node.image
    found = image(node, node.status(made).image.image)
    assert found is not None
    assert found.id == node.image


def test_an_image_that_is_removed_under_a_container(node: Ocirtd) -> None:
    """It runs on, and starts other programs; another container of it there will not be."""
    pod = node.run_pod()
    made = node.run(pod, "sleep", "1000")
    node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=node.image)), timeout=10)
    assert image(node, node.image) is None
    assert node.exec(made, "cat", "/etc/passwd").exit_code == 0
    with pytest.raises(grpc.RpcError) as refused:
        node.create(pod, node.container_config("true"))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert os.listdir(node.place / "r/images/layers") != []
    node.stop_container(made)
    node.remove_container(made)
    assert os.listdir(node.place / "r/images/layers") == []


def test_what_a_container_uses(node: Ocirtd) -> None:
    pod = node.run_pod()
    busy = node.run(pod, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=3; while :; do :; done", labels={"what": "busy"})
    idle = node.run(pod, "sleep", "1000", labels={"what": "idle"})
    created = node.create(pod, node.container_config("true"))
    before = stats(node, busy)
    assert before.attributes.labels == {"what": "busy"}
    time.sleep(1.2)
    now = stats(node, busy)
    assert now.cpu.usage_core_nano_seconds.value - before.cpu.usage_core_nano_seconds.value > 10**8
    assert now.cpu.usage_nano_cores.value > 10**8 > stats(node, idle).cpu.usage_nano_cores.value
    if now.memory.HasField("usage_bytes"):
        assert 0 < now.memory.working_set_bytes.value <= now.memory.usage_bytes.value
    assert not stats(node, created).HasField("cpu")
    everything = node.runtime.ListContainerStats(cri.ListContainerStatsRequest(), timeout=10).stats
    assert {one.attributes.id for one in everything} == {busy, idle}
    wanted = cri.ContainerStatsFilter(label_selector={"what": "idle"})
    (one,) = node.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=wanted), timeout=10).stats
    assert one.attributes.id == idle
    node.until(lambda: stats(node, busy).writable_layer.used_bytes.value > 3 * MIB, "the walker", 60)
    (found,) = node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(), timeout=10).stats
    assert found.attributes.id == pod
    assert found.linux.process.process_count.value == 2
    assert found.linux.cpu.usage_core_nano_seconds.value >= now.cpu.usage_core_nano_seconds.value
    assert not found.linux.HasField("network")  # it is the node's


def test_what_a_daemon_knows_after_it_was_killed(node: Ocirtd) -> None:
    """Images are there, containers are counted, and what they have of the store is still theirs."""
    pod = node.run_pod()
    made = node.run(pod, "sh", "-c", "while :; do :; done")
    node.kill()
    node.start()
    found = image(node, node.image)
    assert found is not None
    assert stats(node, made).cpu.usage_core_nano_seconds.value > 0
    node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=node.image)), timeout=10)
    assert node.exec(made, "true").exit_code == 0
