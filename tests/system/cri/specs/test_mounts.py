"""Mounts: who sees them, who may write, images as volumes; and a container that wants too much memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.isolation import MS_BIND, MS_PRIVATE, MS_REC, MS_SHARED, mount, umount
from tests.support.ocirtd import Ocirtd, refused
from tests.support.specs import fails, says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

PROPAGATION = "Container Mount Propagation runtime should support mount propagation mount with "
READONLY = "Container Mount Readonly runtime should support readonly mounts should "
IMAGE = "Image Volume [Feature:ImageVolume] "
MIB = 1 << 20


# -- propagation --


@contextlib.contextmanager
def mounted(source: str, target: Path, kind: str = "none", flags: int = MS_BIND) -> Iterator[None]:
    """Something mounted at a directory that is made."""
    target.mkdir(exist_ok=True)
    mount(source, str(target), kind, flags)
    try:
        yield
    finally:
        umount(str(target))


def propagation(node: Ocirtd, place: Path, wanted: cri.MountPropagation.ValueType, flag: int, *, there: bool, here: bool) -> None:
    """Whether a later mount of the host's is seen `there`, in a container's volume; and one of the container's `here`."""
    (place / "source").mkdir()
    (place / "source/file").touch()
    volume = place / "volume"
    with mounted(str(place), place):
        mount("none", str(place), "none", MS_PRIVATE)
        volume.mkdir()
        for name in ("from-host", "from-container"):
            (volume / name).mkdir()
        with mounted(str(volume), volume):
            mount("none", str(volume), "none", flag | MS_REC)
            pod = specs.run_pod(node, privileged=True)
            given = cri.Mount(host_path=str(volume), container_path="/volume", propagation=wanted)
            box = specs.sleeper(node, pod, mounts=[given], privileged=True)
            [told] = node.status(box).mounts
            assert (told.host_path, told.container_path, told.propagation) == (str(volume), "/volume", wanted)
            assert not told.readonly
            with mounted(str(place / "source"), volume / "from-host"):
                assert bool(says(node, box, "ls", "-A", "/volume/from-host")) is there
            says(node, box, "mount", "--bind", "/etc", "/volume/from-container")
            assert bool(list((volume / "from-container").iterdir())) is here
            says(node, box, "umount", "/volume/from-container")
            node.remove_pod(pod)


@spec(PROPAGATION + "'rprivate' should not support propagation")
def test_private(node: Ocirtd, tmp_path: Path) -> None:
    propagation(node, tmp_path, cri.PROPAGATION_PRIVATE, MS_PRIVATE, there=False, here=False)


@spec(PROPAGATION + "'rshared' should support propagation from host to container and vice versa")
def test_shared(node: Ocirtd, tmp_path: Path) -> None:
    propagation(node, tmp_path, cri.PROPAGATION_BIDIRECTIONAL, MS_SHARED, there=True, here=True)


@spec(PROPAGATION + "'rslave' should support propagation from host to container")
def test_slave(node: Ocirtd, tmp_path: Path) -> None:
    propagation(node, tmp_path, cri.PROPAGATION_HOST_TO_CONTAINER, MS_SHARED, there=True, here=False)


# -- what may be written --


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[str]:
    """A directory in which another file system is mounted."""
    with mounted("none", tmp_path / "inner", "tmpfs", 0):
        yield str(tmp_path)


@spec(READONLY + "support non-recursive readonly mounts")
def test_read_only(node: Ocirtd, pod: str, volume: str) -> None:
    """The directory, and not what is mounted in it."""
    box = specs.sleeper(node, pod, mounts=[cri.Mount(host_path=volume, container_path="/mnt", readonly=True)])
    assert "Read-only file system" in fails(node, box, "touch", "/mnt/file")
    says(node, box, "touch", "/mnt/inner/file")


@spec(READONLY + "support recursive readonly mounts")
def test_read_only_all_the_way(node: Ocirtd, pod: str, volume: str) -> None:
    handlers = node.runtime.Status(cri.StatusRequest(), timeout=10).runtime_handlers
    assert {one.name: one.features.recursive_read_only_mounts for one in handlers}[""]
    wanted = cri.Mount(host_path=volume, container_path="/mnt", readonly=True, recursive_read_only=True)
    box = specs.sleeper(node, pod, mounts=[wanted])
    assert node.status(box).mounts[0].recursive_read_only
    for place in ("/mnt/file", "/mnt/inner/file"):
        assert "Read-only file system" in fails(node, box, "touch", place)


def is_refused(node: Ocirtd, pod: str, **wanted: Any) -> None:
    """A mount that cannot be read-only in all that it holds, when the container is made; the message says which."""
    given = cri.Mount(container_path="/mnt", recursive_read_only=True, **wanted)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        specs.create(node, pod, "sleep", "1000", mounts=[given])
    assert "mounts[0]" in said[0]
    assert node.containers() == []


@spec(READONLY + "reject a recursive readonly mount with PROPAGATION_HOST_TO_CONTAINER")
def test_read_only_with_mounts_of_the_host(node: Ocirtd, pod: str, volume: str) -> None:
    is_refused(node, pod, host_path=volume, readonly=True, propagation=cri.PROPAGATION_HOST_TO_CONTAINER)


@spec(READONLY + "reject a recursive readonly mount with PROPAGATION_BIDIRECTIONAL")
def test_read_only_with_mounts_of_both(node: Ocirtd, pod: str, volume: str) -> None:
    is_refused(node, pod, host_path=volume, readonly=True, propagation=cri.PROPAGATION_BIDIRECTIONAL)


@spec(READONLY + "reject a recursive readonly mount with ReadOnly: false")
def test_read_only_and_not(node: Ocirtd, pod: str, volume: str) -> None:
    is_refused(node, pod, host_path=volume, readonly=False)


# -- images as volumes --


def image_volume(node: Ocirtd, **more: Any) -> cri.Mount:
    """An image of the store as a volume."""
    wanted = {"readonly": True, **more}
    return cri.Mount(container_path="/image", image=cri.ImageSpec(image=specs.pull(node, specs.NGINX)), **wanted)


@spec(IMAGE + "should return image digest in ContainerStatus mounts")
def test_the_digest_of_a_volume(node: Ocirtd, pod: str) -> None:
    box = specs.create(node, pod, "sleep", "1000", mounts=[image_volume(node)])
    [told] = [one for one in node.status(box).mounts if one.container_path == "/image"]
    assert told.image.image_ref == specs.pull(node, specs.NGINX)
    assert told.readonly


@spec(IMAGE + "should correctly mount image and enforce read-only")
def test_an_image_as_a_volume(node: Ocirtd, pod: str) -> None:
    """Its programs can be run."""
    box = specs.sleeper(node, pod, mounts=[image_volume(node)])
    assert says(node, box, "ls", "/image/usr/sbin/nginx") == "/image/usr/sbin/nginx\n"
    assert "Read-only file system" in fails(node, box, "touch", "/image/file")
    assert says(node, box, "/image/bin/busybox", "echo", "it runs") == "it runs\n"


@spec(IMAGE + "should reject Image Volume with Readonly set to false")
def test_a_volume_to_write_to(node: Ocirtd, pod: str) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        specs.create(node, pod, "sleep", "1000", mounts=[image_volume(node, readonly=False)])
    assert "readonly" in said[0]


@spec(IMAGE + "subPath should succeed when using a valid subPath")
def test_a_part_of_an_image(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, mounts=[image_volume(node, image_sub_path="etc")])
    assert says(node, box, "ls", "-A", "/image").split() == ["group", "passwd"]


@spec(IMAGE + "subPath should fail when subPath does not exist in the image")
def test_a_part_that_is_not_there(node: Ocirtd, pod: str) -> None:
    with refused(grpc.StatusCode.UNKNOWN) as said:
        specs.create(node, pod, "sleep", "1000", mounts=[image_volume(node, image_sub_path="not-existing")])
    assert "not-existing" in said[0]
    assert node.containers() == []


# -- memory --


@spec("Container OOM runtime should output OOMKilled reason should terminate with exitCode 137 and reason OOMKilled")
def test_too_much_memory_is_told(node: Ocirtd) -> None:
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=15 * MIB, memory_swap_limit_in_bytes=15 * MIB)
    pod = specs.run_pod(node, privileged=True)
    box = specs.create(node, pod, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=20M", resources=limits)
    node.start_container(box)
    status = node.wait(box)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")
