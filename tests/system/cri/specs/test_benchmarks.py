"""What critest's benchmarks do, once or a few times: whether it works. How fast it is, bench/cri.py says."""

from __future__ import annotations

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.specs import spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

TIMES = 3
IMAGE = f"{specs.TEST_IMAGE}latest"


@spec("Container benchmark about operations on Container benchmark about basic operations on Container")
def test_containers(node: Ocirtd) -> None:
    for _ in range(TIMES):
        box = specs.sleeper(node, specs.run_pod(node))
        node.stop_container(box, 20)
        assert node.status(box).state == cri.CONTAINER_EXITED
        node.remove_container(box)
    assert node.containers() == []


@spec("Image benchmark about operations on Image benchmark about basic operations on Image")
def test_images(node: Ocirtd) -> None:
    image = cri.ImageSpec(image=IMAGE)
    for _ in range(TIMES):
        reference = specs.pull(node, IMAGE)
        assert node.images.ImageStatus(cri.ImageStatusRequest(image=image), timeout=PATIENCE).image.id == reference
        node.images.RemoveImage(cri.RemoveImageRequest(image=image), timeout=PATIENCE)
        assert not node.images.ImageStatus(cri.ImageStatusRequest(image=image), timeout=PATIENCE).HasField("image")


@spec("Image benchmark about operations on Image benchmark about listing Image")
def test_lists_of_images(node: Ocirtd) -> None:
    lists = [node.images.ListImages(cri.ListImagesRequest(), timeout=PATIENCE).images for _ in range(TIMES)]
    assert {specs.BUSYBOX, specs.NGINX} <= {tag for one in lists[0] for tag in one.repo_tags}
    assert all(each == lists[0] for each in lists)


@spec("PodSandbox benchmark about operations on PodSandbox benchmark about lifecycle of PodSandbox")
def test_pods(node: Ocirtd) -> None:
    for _ in range(TIMES):
        pod = specs.run_pod(node)
        assert node.pod_status(pod).state == cri.SANDBOX_READY
        node.stop_pod(pod)
        assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
        node.remove_pod(pod)
        with refused(grpc.StatusCode.NOT_FOUND):
            node.pod_status(pod)


@spec("PodSandbox benchmark about start a container from scratch benchmark about start a container from scratch")
def test_from_scratch(node: Ocirtd) -> None:
    """A pod and a container that runs in it."""
    for _ in range(TIMES):
        assert specs.says(node, specs.sleeper(node, specs.run_pod(node)), "echo", "here") == "here\n"
    assert len(node.pods()) == len(node.containers()) == TIMES
