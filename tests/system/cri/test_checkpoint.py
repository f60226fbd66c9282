"""CheckpointContainer: an archive where CRIU works, else the reason; the container goes on in either case."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.build import ROOT
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"


def works() -> bool:
    if shutil.which("criu") is None:
        return False
    return subprocess.run(["criu", "check"], capture_output=True, check=False).returncode == 0


def checkpoint(node: Ocirtd, identifier: str, location: Path | str, timeout: int = 0) -> None:
    request = cri.CheckpointContainerRequest(container_id=identifier, location=str(location), timeout=timeout)
    node.runtime.CheckpointContainer(request, timeout=120)


def goes_on(node: Ocirtd, identifier: str) -> None:
    before = len(node.logged(identifier))
    node.until(lambda: len(node.logged(identifier)) > before + 3, "more lines")
    assert node.status(identifier).state == cri.CONTAINER_RUNNING
    assert node.exec(identifier, "true").exit_code == 0


def test_an_archive_or_the_reason(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.run(pod, "sh", "-c", f"echo mine > /new; rm -r /etc; mkdir /etc; echo x > /etc/y; {COUNT}", name="counter")
    node.until(lambda: node.logged(made), "its first line")
    place = node.place / "checkpoints"
    place.mkdir()
    location = place / "c.tar"
    if not works():
        with refused(grpc.StatusCode.UNIMPLEMENTED) as words:
            checkpoint(node, made, location)
        assert "CRIU" in words[0]
        assert os.listdir(place) == []
        goes_on(node, made)
        return
    checkpoint(node, made, location)
    assert os.listdir(place) == ["c.tar"]
    assert location.stat().st_mode & 0o777 == 0o600
    goes_on(node, made)
    with tarfile.open(location) as archive:
        names = archive.getnames()
        assert {"config.dump", "spec.dump", "status.dump", "dump.log", "container.log", "deleted.files"} <= set(names)
        assert any(name.startswith("checkpoint/core-") for name in names)

        def read(name: str) -> bytes:
            file = archive.extractfile(name)
            assert file is not None
            return file.read()

        config = json.loads(read("config.dump"))
        assert (config["id"], config["name"]) == (made, "counter")
        assert config["rootfsImageRef"] == node.status(made).image_ref
        assert json.loads(read("spec.dump"))["process"]["args"][0] == "sh"
        assert json.loads(read("status.dump"))["id"] == made
        deleted = json.loads(read("deleted.files"))
        assert "etc/passwd" in deleted
        assert "etc/y" not in deleted
        with tarfile.open(fileobj=io.BytesIO(read("rootfs-diff.tar"))) as changes:
            assert {"new", "etc", "etc/y"} <= set(changes.getnames())
            file = changes.extractfile("new")
            assert file is not None
            assert file.read() == b"mine\n"


def test_a_daemon_that_dies_meanwhile(node: Ocirtd) -> None:
    """The container does not stand still for ever. One that somebody else has paused does."""
    pod = node.run_pod()
    made, other = (node.run(pod, "sh", "-c", COUNT) for _ in range(2))
    ocirt = [str(ROOT / "build/ocirt"), "--root", str(node.place / "v/runtime")]
    for one in (made, other):
        node.until(lambda one=one: node.logged(one), "its first line")  # type: ignore[misc]
        subprocess.run([*ocirt, "pause", one], check=True)
    mark = node.place / "r/containers" / made / "paused"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    node.kill()
    node.start()
    goes_on(node, made)
    assert not mark.exists()
    before = node.logged(other)
    time.sleep(0.5)
    assert node.logged(other) == before
    subprocess.run([*ocirt, "resume", other], check=True)
    goes_on(node, other)


def test_what_cannot_be_written_down(node: Ocirtd) -> None:
    pod = node.run_pod()
    made = node.create(pod, node.container_config("sleep", "1000"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        checkpoint(node, made, node.place / "c.tar")
    node.start_container(made)
    with refused(grpc.StatusCode.NOT_FOUND):
        checkpoint(node, "0" * 64, node.place / "c.tar")
    for location in ("", "relative.tar", "/tmp/"):
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            checkpoint(node, made, location)
        assert "location" in words[0]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        checkpoint(node, made, node.place / "c.tar", -1)
    assert "timeout" in words[0]
    if shutil.which("criu"):
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
            checkpoint(node, made, node.place / "nowhere/c.tar")
        assert "location" in words[0]


def test_whole_pods_are_not(node: Ocirtd) -> None:
    pod = node.run_pod()
    with refused(grpc.StatusCode.UNIMPLEMENTED) as words:
        node.runtime.CheckpointPod(cri.CheckpointPodRequest(pod_sandbox_id=pod, output_path="/tmp/x"))
    assert "whole pods" in words[0]
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        node.runtime.RestorePod(cri.RestorePodRequest(checkpoint_path="/tmp/x"))
