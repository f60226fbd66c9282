"""Pods and containers over gRPC, with real shims, from their making to their removal."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.isolation import Isolation, cgroup_mounts
from tests.support.ocirtd import Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


def test_a_container_lives(node: Ocirtd) -> None:
    """From the pod to its removal, with what is said of it meanwhile."""
    pod = node.run_pod()
    assert node.pod_status(pod).state == cri.SANDBOX_READY
    made = node.create(pod, node.container_config("sh", "-c", "echo out; echo err >&2; exec sleep 1000"))
    status = node.status(made)
    assert (status.state, status.started_at, status.finished_at, status.exit_code) == (cri.CONTAINER_CREATED, 0, 0, 0)
    node.start_container(made)
    status = node.status(made)
    assert status.state == cri.CONTAINER_RUNNING
    assert status.started_at >= status.created_at > 0
    assert node.exec(made, "sh", "-c", "cat; echo one; echo two >&2; exit 3") == cri.ExecSyncResponse(
        stdout=b"one\n", stderr=b"two\n", exit_code=3
    )
    node.until(lambda: len(node.logged(made)) == 2, "both lines of the log")
    assert sorted(node.logged(made)) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    node.stop_container(made)
    status = node.status(made)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 137, "Error")
    node.remove_container(made)
    assert node.containers() == []
    node.stop_pod(pod)
    assert node.pod_status(pod).state == cri.SANDBOX_NOTREADY
    node.remove_pod(pod)
    assert node.pods() == []
    assert node.left() == []


def test_ids_may_be_cut_and_lists_are_filtered(node: Ocirtd) -> None:
    pod = node.run_pod(node.pod_config(labels={"app": "a", "tier": "x"}))
    other = node.run_pod(node.pod_config(labels={"app": "b"}))
    one = node.run(pod, "sleep", "1000", labels={"role": "web"})
    two = node.create(other, node.container_config("sleep", "1000"))
    assert node.status(one[:12]).id == one
    assert node.pod_status(pod[:12]).id == pod
    assert [found.id for found in node.pods(id=pod[:12])] == [pod]
    assert [found.id for found in node.pods(label_selector={"app": "b"})] == [other]
    assert node.pods(label_selector={"app": "a", "tier": "y"}) == []
    assert len(node.pods(state=cri.PodSandboxStateValue(state=cri.SANDBOX_READY))) == 2
    assert [found.id for found in node.containers(pod_sandbox_id=other)] == [two]
    assert [found.id for found in node.containers(label_selector={"role": "web"})] == [one]
    created = cri.ContainerStateValue(state=cri.CONTAINER_CREATED)
    assert [found.id for found in node.containers(state=created)] == [two]
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        node.status("")
    with refused(grpc.StatusCode.NOT_FOUND):
        node.status("nobody")
    with refused(grpc.StatusCode.NOT_FOUND):
        node.pod_status("nobody")


def test_what_is_asked_twice_is_done_once(node: Ocirtd) -> None:
    """The same metadata and configuration is the same pod or container; another configuration is refused by its field."""
    config = node.pod_config("web")
    pod = node.run_pod(config)
    assert node.run_pod(config) == pod
    other = cri.PodSandboxConfig.FromString(config.SerializeToString())
    other.labels["a"] = "b"
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        node.run_pod(other)
    assert 'config.labels["a"]' in words[0]
    wanted = node.container_config("sleep", "1000", name="c")
    made = node.create(pod, wanted)
    assert node.create(pod, wanted) == made
    changed = cri.ContainerConfig.FromString(wanted.SerializeToString())
    changed.command[1] = "2000"
    with refused(grpc.StatusCode.ALREADY_EXISTS) as words:
        node.create(pod, changed)
    assert "command" in words[0]
    node.start_container(made)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.start_container(made)
    for _ in range(2):
        node.stop_container(made)
        node.stop_pod(pod)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.create(pod, node.container_config("true"))
    with refused(grpc.StatusCode.ALREADY_EXISTS):
        node.run_pod(config)
    for _ in range(2):
        node.remove_container(made)
        node.remove_pod(pod)
    node.stop_container("nobody")
    node.remove_container("nobody")
    node.stop_pod("nobody")
    node.remove_pod("nobody")
    again = node.run_pod(config)
    assert again != pod


def test_callers_at_the_same_time_share_one_operation(node: Ocirtd) -> None:
    config = node.pod_config()
    with ThreadPoolExecutor(8) as threads:
        pods = set(threads.map(lambda _: node.run_pod(config), range(8)))
        assert len(pods) == 1
        wanted = node.container_config("sleep", "1000")
        made = set(threads.map(lambda _: node.create(next(iter(pods)), wanted), range(8)))
        assert len(made) == 1
        list(threads.map(lambda _: node.remove_pod(next(iter(pods))), range(8)))
    assert node.pods() == node.containers() == []


def test_a_client_that_gives_up_finds_what_it_asked_for(node: Ocirtd) -> None:
    """The deadline passes while the container is made; it is made all the same, and the retry gets it."""
    pod = node.run_pod()
    wanted = node.container_config("sleep", "1000")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        node.runtime.CreateContainer(cri.CreateContainerRequest(pod_sandbox_id=pod, config=wanted), timeout=0.004)
    made = node.create(pod, wanted)
    assert [found.id for found in node.containers()] == [made]


def test_how_a_container_ended_is_told(node: Ocirtd) -> None:
    pod = node.run_pod()
    fine, bad = node.run(pod, "true"), node.run(pod, "sh", "-c", "exit 7")
    status = node.wait(fine)
    assert (status.exit_code, status.reason) == (0, "Completed")
    assert status.finished_at >= status.started_at > 0
    status = node.wait(bad)
    assert (status.exit_code, status.reason) == (7, "Error")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.run(pod, "no-such-program", name="missing")
    assert "no-such-program" in words[0]
    assert [one for one in node.containers() if one.metadata.name == "missing"] == []
    program = node.place / "no-program"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)
    mount = cri.Mount(container_path="/no-program", host_path=str(program), readonly=True)
    broken = node.create(pod, node.container_config("/no-program", mounts=[mount]))
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.start_container(broken)
    assert "exec format error" in words[0]
    status = node.status(broken)
    assert (status.state, status.exit_code, status.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
    assert "exec format error" in status.message
    node.remove_container(broken)


def test_the_grace_of_a_stop(node: Ocirtd) -> None:
    """Its own signal first; SIGKILL when the time is over, or when a second caller has less patience."""
    pod = node.run_pod()
    polite = node.run(pod, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.05; done")
    node.until(lambda: node.exec(polite, "true").exit_code == 0, "it to run")
    time.sleep(0.2)
    node.stop_container(polite, 20)
    assert node.status(polite).exit_code == 5
    stubborn = node.run(pod, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    time.sleep(0.2)
    start = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        patient = threads.submit(node.stop_container, stubborn, 25)
        time.sleep(0.3)
        node.stop_container(stubborn, 1)
        patient.result(10)
    assert 1 <= time.monotonic() - start < 10
    assert node.status(stubborn).exit_code == 137
    signalled = node.run(pod, "sh", "-c", "trap 'exit 6' USR1; while :; do sleep 0.05; done", stop_signal=cri.SIGNAL_SIGUSR1)
    time.sleep(0.2)
    node.stop_container(signalled, 20)
    status = node.status(signalled)
    assert (status.exit_code, status.stop_signal) == (6, cri.SIGNAL_SIGUSR1)


def test_removing_a_pod_removes_what_runs(node: Ocirtd) -> None:
    pod = node.run_pod()
    for _ in range(3):
        node.run(pod, "sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000")
    node.create(pod, node.container_config("sleep", "1"))
    node.remove_pod(pod)
    assert node.pods() == node.containers() == node.left() == []


def test_exec_ends_in_time(node: Ocirtd) -> None:
    """A time-out is DEADLINE_EXCEEDED, and nothing of the command is left."""
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED) as words:
        node.exec(box, "sh", "-c", "sleep 777 & sleep 778", timeout=1)
    assert "timed out" in words[0]
    assert b"77" not in node.exec(box, "ps", "-o", "args").stdout.replace(b"sh -c", b"")
    assert node.exec(box, "head", "-c", "3000000", "/dev/zero").stdout == bytes(3_000_000)
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        node.exec(box)
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        node.exec(box, "no-such-program")
    node.stop_container(box)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.exec(box, "true")


def test_limits_change_and_logs_are_reopened(node: Ocirtd, isolation: Isolation) -> None:
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "while :; do echo line; sleep 0.05; done")
    node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=box, linux=cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20))
    )
    assert node.status(box).resources.linux.memory_limit_in_bytes == 64 << 20
    files = [path for mount in cgroup_mounts() for path in mount.glob(f"**/*{box}*/memory.*") if isolation.token in str(path)]
    limits = [path for path in files if path.name in ("memory.max", "memory.limit_in_bytes")]
    assert [path.read_text() for path in limits] == [f"{64 << 20}\n"]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.runtime.UpdateContainerResources(
            cri.UpdateContainerResourcesRequest(container_id=box, linux=cri.LinuxContainerResources(cpu_shares=1))
        )
    assert "linux.cpu_shares" in words[0]
    log = Path(node.status(box).log_path)
    log.rename(log.with_suffix(".old"))
    node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=box))
    node.until(lambda: log.stat().st_size > 0, "lines in the new log")
    node.stop_container(box)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=box))


def test_events_tell_what_happens(node: Ocirtd) -> None:
    events: list[cri.ContainerEventResponse] = []
    stream = node.runtime.GetContainerEvents(cri.GetEventsRequest())

    def listen() -> None:
        with contextlib.suppress(grpc.RpcError):
            events.extend(stream)

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    pod = node.run_pod()
    box = node.run(pod, "true")
    node.wait(box)
    node.remove_container(box)
    node.remove_pod(pod)
    node.until(lambda: len(events) == 8 or not listener.is_alive(), "all events")
    stream.cancel()
    listener.join()
    kinds = [(one.container_id, one.container_event_type) for one in events]
    assert kinds == [
        *((pod, kind) for kind in (cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT)),
        *((box, kind) for kind in cri.ContainerEventType.values()),
        *((pod, kind) for kind in (cri.CONTAINER_STOPPED_EVENT, cri.CONTAINER_DELETED_EVENT)),
    ]
    assert all(one.pod_sandbox_status.metadata.name for one in events)
    states = [one.pod_sandbox_status.state for one in events]
    assert states == [cri.SANDBOX_READY] * 6 + [cri.SANDBOX_NOTREADY] * 2
    # All containers as they are then; what was removed is not among them.
    found = [[(one.id, one.state) for one in event.containers_statuses] for event in events]
    ended = [(box, cri.CONTAINER_EXITED)]
    assert found == [[], [], [(box, cri.CONTAINER_CREATED)], [(box, cri.CONTAINER_RUNNING)], ended, [], [], []]
    assert events[4].containers_statuses[0].reason == "Completed"
    assert [one.created_at for one in events] == sorted(one.created_at for one in events)


def test_bad_requests_leave_nothing(node: Ocirtd) -> None:
    config = node.pod_config()
    config.metadata.ClearField("name")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.run_pod(config)
    assert "config.metadata.name" in words[0]
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=node.pod_config(), runtime_handler="ocit"))
    assert "did you mean 'ocirt'" in words[0]
    pod = node.run_pod()
    bad = node.container_config("true")
    bad.image.image = "nowhere.example/nothing:1"
    with refused(grpc.StatusCode.NOT_FOUND) as words:
        node.create(pod, bad)
    assert "config.image.image" in words[0]
    bad = node.container_config("true", mounts=[cri.Mount(container_path="relative", host_path="/tmp")])
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        node.create(pod, bad)
    bad = node.container_config("true")
    bad.log_path = "../outside"
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        node.create(pod, bad)
    assert node.containers() == []
    node.remove_pod(pod)
    assert node.left() == []


def test_what_it_is(node: Ocirtd) -> None:
    version = node.runtime.Version(cri.VersionRequest())
    assert (version.version, version.runtime_name, version.runtime_api_version) == ("0.1.0", "ocirt", "v1")
    assert version.runtime_version
    found = node.runtime.Status(cri.StatusRequest(verbose=True))
    assert [one.type for one in found.status.conditions] == ["RuntimeReady", "NetworkReady"]
    assert [one.name for one in found.runtime_handlers] == ["", "ocirt"]
    assert found.features.supplemental_groups_policy
    config = json.loads(found.info["config"])
    assert config["stateDir"] == str(node.place / "v")
    assert config["sources"]["images.sync"] == str(node.config)
    driver = node.runtime.RuntimeConfig(cri.RuntimeConfigRequest()).linux.cgroup_driver
    assert driver == (cri.SYSTEMD if os.environ.get("OCIRT_TEST_MANAGER") == "systemd" else cri.CGROUPFS)
    node.runtime.UpdateRuntimeConfig(cri.UpdateRuntimeConfigRequest())
    with refused(grpc.StatusCode.UNIMPLEMENTED) as words:
        node.runtime.CheckpointPod(cri.CheckpointPodRequest())
    assert "whole pods" in words[0]
