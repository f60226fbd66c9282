"""Containers: their life, their statistics, volumes and logs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.specs import page, says, spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

BASIC = "Container runtime should support basic operations on container runtime should support "
VOLUME = "Container runtime should support adding volume and device runtime should support starting container with volume"
LOG = "Container runtime should support log runtime should support "
SEVERAL = "Multiple Containers [Conformance] when running multiple containers in a pod should support "
LINE = "hello World"


@spec(BASIC + "creating container [Conformance]")
def test_creating(node: Ocirtd, pod: str) -> None:
    made = specs.create(node, pod, "sleep", "1000")
    [found] = node.containers(id=made)
    assert (found.id, found.pod_sandbox_id, found.state) == (made, pod, cri.CONTAINER_CREATED)


@spec(BASIC + "preserving container attributes [Conformance]")
def test_attributes(node: Ocirtd, pod: str) -> None:
    labels = {"foo": "bar", "io.kubernetes.container.name": "app", "io.kubernetes.pod.uid": "some-uid"}
    made = specs.create(node, pod, "sleep", "1000", name="app", labels=labels, annotations={"abc": "def"})
    for found in (node.status(made), node.containers(id=made)[0]):
        assert (found.metadata.name, found.metadata.attempt) == ("app", 0)
        assert dict(found.labels) == labels
        assert dict(found.annotations) == {"abc": "def"}


@spec(BASIC + "starting container [Conformance]")
def test_starting(node: Ocirtd, pod: str) -> None:
    made = specs.create(node, pod, "sleep", "1000")
    node.start_container(made)
    status = node.status(made)
    assert status.state == cri.CONTAINER_RUNNING
    assert status.started_at >= status.created_at > 0


@spec(BASIC + "stopping container [Conformance]")
def test_stopping(node: Ocirtd, box: str) -> None:
    node.stop_container(box, 20)
    status = node.status(box)
    assert status.state == cri.CONTAINER_EXITED
    assert status.finished_at >= status.started_at > 0


@spec(BASIC + "removing created container [Conformance]")
def test_removing_created(node: Ocirtd, pod: str) -> None:
    made = specs.create(node, pod, "sleep", "1000")
    node.remove_container(made)
    assert node.containers(id=made) == []


@spec(BASIC + "removing running container [Conformance]")
def test_removing_running(node: Ocirtd, box: str) -> None:
    node.remove_container(box)
    assert node.containers(id=box) == []


@spec(BASIC + "removing stopped container [Conformance]")
def test_removing_stopped(node: Ocirtd, box: str) -> None:
    node.stop_container(box, 20)
    assert node.status(box).state == cri.CONTAINER_EXITED
    node.remove_container(box)
    assert node.containers(id=box) == []


@spec(BASIC + "execSync [Conformance]")
def test_exec(node: Ocirtd, box: str) -> None:
    assert says(node, box, "echo", "-n", "hello") == "hello"


@spec(BASIC + "execSync with timeout [Conformance]")
def test_exec_with_a_timeout(node: Ocirtd, pod: str) -> None:
    """Nothing of the program is left, nor of what it has started."""
    box = specs.started(node, specs.create(node, pod, "tail", "-f", "/dev/null"))
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        node.exec(box, "sh", "-c", "sleep 4321 & sleep 4321", timeout=1)
    assert says(node, box, "sh", "-c", "pgrep sleep || true") == ""


# -- statistics --


def stats(node: Ocirtd, **wanted: Any) -> list[cri.ContainerStats]:
    """Of containers that a filter names; without one, of all that run."""
    request = cri.ListContainerStatsRequest(filter=cri.ContainerStatsFilter(**wanted) if wanted else None)
    return list(node.runtime.ListContainerStats(request, timeout=PATIENCE).stats)


@spec(BASIC + "listing container stats [Conformance]")
def test_statistics_of_one(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, name="counted")
    found = node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=box), timeout=PATIENCE).stats
    assert (found.attributes.id, found.attributes.metadata.name) == (box, "counted")
    assert found.cpu.timestamp > 0
    assert found.memory.timestamp > 0


@spec(BASIC + "listing stats for started containers [Conformance]")
def test_statistics_by_id(node: Ocirtd, pod: str, box: str) -> None:
    specs.sleeper(node, pod)
    assert [one.attributes.id for one in stats(node, id=box)] == [box]


@spec(BASIC + "listing stats for started containers when filter is nil [Conformance]")
def test_statistics_without_a_filter(node: Ocirtd, pod: str, box: str) -> None:
    """Of what runs, and of nothing else."""
    specs.create(node, pod, "sleep", "1000")
    assert [one.attributes.id for one in stats(node)] == [box]


@spec(BASIC + "listing stats for three created containers when filter is nil. [Conformance]")
def test_statistics_of_three(node: Ocirtd, pod: str) -> None:
    boxes = {specs.sleeper(node, pod) for _ in range(3)}
    found = stats(node)
    assert {one.attributes.id for one in found} == boxes
    assert len(found) == 3


@spec(BASIC + "listing stats for containers filtered by labels [Conformance]")
def test_statistics_by_labels(node: Ocirtd, pod: str) -> None:
    box = specs.sleeper(node, pod, labels={"foo": "bar"})
    assert [one.attributes.id for one in stats(node, label_selector={"foo": "bar"})] == [box]
    assert stats(node, label_selector={"foo": "baz"}) == []


# -- volumes and logs --


@spec(VOLUME + " [Conformance]")
def test_a_volume(node: Ocirtd, pod: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mount = cri.Mount(host_path=str(tmp_path), container_path="/volume", selinux_relabel=True)
    box = specs.sleeper(node, pod, mounts=[mount])
    assert says(node, box, "ls", "-A", "/volume") == "file\n"


@spec(VOLUME + " when host path is a symlink [Conformance]")
def test_a_volume_that_is_a_link(node: Ocirtd, pod: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    mount = cri.Mount(host_path=str(tmp_path / "link"), container_path="/volume", selinux_relabel=True)
    box = specs.sleeper(node, pod, mounts=[mount])
    assert says(node, box, "ls", "-A", "/volume") == "file\n"


def logged(log: Path) -> list[tuple[str, str]]:
    """Stream and text of each line of a log, whose times are those of RFC 3339."""
    found = []
    for line in log.read_text().splitlines():
        at, stream, _, text = line.split(" ", 3)
        assert datetime.fromisoformat(at).tzinfo is not None
        found.append((stream, text))
    return found


@spec(LOG + "starting container with log [Conformance]")
def test_a_log(node: Ocirtd) -> None:
    config = specs.pod_config(node)
    pod = node.run_pod(config)
    box = specs.create(node, pod, "echo", LINE, name="talker")
    node.start_container(box)
    node.wait(box)
    log = Path(config.log_directory) / "talker.log"
    assert node.status(box).log_path == str(log)
    assert logged(log) == [("stdout", LINE)]


@spec(LOG + "reopening container log [Conformance]")
def test_reopening_a_log(node: Ocirtd, pod: str) -> None:
    """The new file is there when the call returns, and the old one has seen its last line."""
    box = specs.started(node, specs.create(node, pod, "sh", "-c", f"while :; do echo {LINE}; sleep 0.02; done"))
    log = Path(node.status(box).log_path)
    node.until(lambda: logged(log), "a line")
    old = log.rename(f"{log}.new")
    node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=box), timeout=PATIENCE)
    assert log.exists()
    length = old.stat().st_size
    node.until(lambda: len(logged(log)) > 5, "lines of the new log")
    assert old.stat().st_size == length
    assert set(logged(old)) == set(logged(log)) == {("stdout", LINE)}


# -- several in a pod --


@pytest.fixture
def several(node: Ocirtd) -> tuple[str, str, str]:
    """A pod with a server and another container."""
    pod = node.run_pod(specs.pod_config(node, port_mappings=[cri.PortMapping(container_port=80)]))
    server = specs.started(node, specs.create(node, pod, image=specs.HTTPD))
    other = specs.started(node, specs.create(node, pod, "sh", "-c", f"echo {LINE}; sleep 1000"))
    return pod, server, other


@spec(SEVERAL + "network")
def test_the_network_of_several(node: Ocirtd, several: tuple[str, str, str]) -> None:
    """The server is reached at the pod's address, and by the other container at its own."""
    pod, _, other = several
    node.until(lambda: page(node.pod_status(pod).network.ip, 80) == 200, "the page")
    assert says(node, other, "wget", "-q", "-O", "-", "http://127.0.0.1/") == "here\n"


@spec(SEVERAL + "container log")
def test_the_logs_of_several(node: Ocirtd, several: tuple[str, str, str]) -> None:
    for box, text in zip(several[1:], ("httpd", LINE), strict=True):
        log = Path(node.status(box).log_path)
        node.until(lambda log=log, text=text: text in log.read_text(), f"{text} in {log}")  # type: ignore[misc]


@spec(SEVERAL + "container exec")
def test_programs_in_several(node: Ocirtd, several: tuple[str, str, str]) -> None:
    for box, word in zip(several[1:], ("httpd", "busybox"), strict=True):
        assert says(node, box, "echo", word) == f"{word}\n"
