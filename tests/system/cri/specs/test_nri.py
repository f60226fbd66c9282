"""Plugins of NRI: what they are told and when, and what is seen of a pod or container while one of them has not answered."""

from __future__ import annotations

import concurrent.futures
import time
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from tests.support.nricalls import Make, held
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.specs import spec

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

IN_ORDER = "should receive CreateContainer, StartContainer, StopContainer, and RemoveContainer "
RUN = "NRI RunPodSandbox contract should "
STOP = "NRI StopPodSandbox contract should "
CREATE = "NRI CreateContainer contract should "
LATE = "NRI plugin synchronization should "


# -- events --


@spec(
    "NRI pod sandbox lifecycle should receive RunPodSandbox, StopPodSandbox, and RemovePodSandbox in strict order "
    "with correct metadata"
)
def test_the_life_of_a_pod(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    config = node.pod_config("web", labels={"app": "x"}, annotations={"a": "b"})
    pod = node.run_pod(config)
    node.stop_pod(pod)
    node.remove_pod(pod)
    assert one.methods() == ["Configure", "Synchronize", "RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    configured = one.events(method="Configure")[0]
    assert (configured["runtime"], configured["config"]) == ("ocirt", "")
    for method in ("RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"):
        told = one.pod(method)
        assert (told.id, told.name, told.namespace, told.uid) == (pod, "web", "default", config.metadata.uid)
        assert (dict(told.labels), dict(told.annotations)) == ({"app": "x"}, {"a": "b"})
    assert one.pod("RunPodSandbox").linux.cgroup_parent == node.cgroup_parent


@spec(f"NRI container lifecycle {IN_ORDER}in strict order with correct metadata")
def test_the_life_of_a_container(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000", name="main", labels={"l": "1"}, annotations={"k": "v"})
    node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=box, linux=cri.LinuxContainerResources(cpu_shares=512)), timeout=PATIENCE
    )
    image = node.status(box).image_id
    node.stop_container(box)
    node.remove_container(box)
    assert one.methods(container=box) == [
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
    ]
    for method in one.methods(container=box):
        told = one.container(method)
        assert (told.id, told.pod_sandbox_id, told.name) == (box, pod, "main")
    created = one.container("CreateContainer")
    assert created.state == nri.CONTAINER_UNKNOWN
    assert (list(created.args), created.labels["l"], created.annotations["k"]) == (["sleep", "1000"], "1", "v")
    assert any(one.startswith("PATH=") for one in created.env)
    assert "/proc" in [mount.destination for mount in created.mounts]
    assert created.linux.cgroups_path.endswith(box)
    assert created.image.config_digest == image
    assert one.container("PostCreateContainer").state == nri.CONTAINER_CREATED
    started = one.container("PostStartContainer")
    assert started.state == nri.CONTAINER_RUNNING
    assert started.pid
    assert started.started_at
    assert one.container("PostUpdateContainer").linux.resources.cpu.shares.value == 512
    stopped = one.container("StopContainer")
    assert (stopped.state, stopped.exit_code, stopped.pid) == (nri.CONTAINER_STOPPED, 137, 0)


@spec(f"NRI container lifecycle (failed container) {IN_ORDER}for a container that exits with a non-zero code")
def test_a_program_that_ends_by_itself_has_stopped(node: Ocirtd, plugin: Make) -> None:
    """Once, and before anybody stops or removes it."""
    one = plugin()
    box = node.run(node.run_pod(), "sh", "-c", "exit 1", name="failing")
    assert node.wait(box).exit_code == 1
    one.until(lambda: one.events(method="StopContainer"), "the end to be told")
    assert one.container("StopContainer").exit_code == 1
    node.stop_container(box)
    node.remove_container(box)
    told = [method for method in one.methods(container=box) if not method.startswith("Post")]
    assert told == ["CreateContainer", "StartContainer", "StopContainer", "RemoveContainer"]
    assert {one.container(method).name for method in told} == {"failing"}


# -- while a plugin has not answered, and when it says no --


@spec(RUN + "not expose sandbox while RunPodSandbox hook is in progress")
def test_a_pod_is_in_no_list_while_its_hook_runs(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    config = node.pod_config()
    with held(one, "RunPodSandbox", lambda: node.run_pod(config)) as running:
        [event] = one.events(method="RunPodSandbox")
        assert node.pods() == []
        with refused(grpc.StatusCode.NOT_FOUND):
            node.pod_status(event["pod"])
    assert running.result(PATIENCE) == event["pod"]
    assert node.pod_status(event["pod"]).state == cri.SANDBOX_READY


@spec(RUN + "not start workload containers until RunPodSandbox hook completes")
def test_no_container_while_the_pods_hook_runs(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    config = node.pod_config()
    with held(one, "RunPodSandbox", lambda: node.run_pod(config)) as running:
        [event] = one.events(method="RunPodSandbox")
        with refused(grpc.StatusCode.NOT_FOUND):
            node.create(event["pod"], node.container_config("true"))
    box = node.run(running.result(PATIENCE), "sleep", "1000")
    assert node.status(box).state == cri.CONTAINER_RUNNING


def fails_once(node: Ocirtd, plugin: Make, method: str, pod: str = "") -> str:
    """The first plugin fails a pod, or a container of a pod; what the retry makes."""
    one = plugin()
    other = plugin("60")
    config, wanted = node.pod_config(), node.container_config("sleep", "1000")
    left = node.left()
    one.order(**{method: {"fail": "not today", "once": True}})

    def call() -> str:
        return node.create(pod, wanted) if pod else node.run_pod(config)

    with refused(grpc.StatusCode.UNKNOWN) as words:
        call()
    assert "not today" in words[0]
    assert "NRI plugin 50-test0" in words[0]
    assert method not in other.methods()[2:] or pod == ""
    assert node.left() == left
    assert (node.containers(), len(node.pods())) == ([], 1 if pod else 0)
    kind, key = ("Container", "container") if pod else ("PodSandbox", "pod")
    failed = one.events(method=method)[-1][key]
    told = one.methods(**{key: failed})
    assert told[-2:] == [f"Stop{kind}", f"Remove{kind}"]
    assert "StartContainer" not in told
    made = call()
    assert made != failed
    return made


@spec(RUN + "fail RunPodSandbox and clean up when the NRI hook errors, then allow retry")
def test_a_pod_that_a_plugin_refuses(node: Ocirtd, plugin: Make) -> None:
    assert node.pod_status(fails_once(node, plugin, "RunPodSandbox")).state == cri.SANDBOX_READY


@spec(CREATE + "not expose container while CreateContainer hook is in progress")
def test_a_container_is_in_no_list_while_its_hook_runs(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    with held(one, "CreateContainer", lambda: node.create(pod, node.container_config("true"))) as creating:
        [event] = one.events(method="CreateContainer")
        assert node.containers() == []
        with refused(grpc.StatusCode.NOT_FOUND):
            node.status(event["container"])
    assert creating.result(PATIENCE) == event["container"]
    assert node.status(event["container"]).state == cri.CONTAINER_CREATED


@spec(CREATE + "fail CreateContainer when the NRI hook errors, leak nothing, and allow retry")
def test_a_container_that_a_plugin_refuses(node: Ocirtd, plugin: Make) -> None:
    box = fails_once(node, plugin, "CreateContainer", node.run_pod())
    node.start_container(box)
    node.stop_container(box)
    node.remove_container(box)
    assert node.containers() == []


# -- the end of a pod --


@spec(STOP + "stop all workload containers and keep sandbox accessible while StopPodSandbox hook is in progress")
def test_a_pod_stops_after_its_containers_and_is_there_meanwhile(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    boxes = [node.run(pod, "sleep", "1000") for _ in range(3)]
    with held(one, "StopPodSandbox", lambda: node.stop_pod(pod)) as stopping:
        assert sorted(found.id for found in node.containers(pod_sandbox_id=pod)) == sorted(boxes)
        assert [node.status(box).state for box in boxes] == [cri.CONTAINER_EXITED] * 3
        assert node.pod_status(pod).id == pod
        assert one.methods()[-4:] == ["StopContainer"] * 3 + ["StopPodSandbox"]
    stopping.result(PATIENCE)
    node.remove_pod(pod)


@spec(STOP + "handle StopPodSandbox idempotently and never reuse sandbox")
def test_a_pod_stops_once(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    node.stop_pod(pod)
    node.stop_pod(pod)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.create(pod, node.container_config("true"))
    node.remove_pod(pod)  # what is told is told in order: nothing came before this
    assert one.methods(pod=pod) == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]


# -- plugins that come late --


@spec(LATE + "synchronize a newly connected plugin with existing pods and containers")
def test_a_late_plugin_learns_what_there_is(node: Ocirtd, plugin: Make) -> None:
    plugin()
    pods = [node.run_pod() for _ in range(2)]
    running = node.run(pods[0], "sleep", "1000")
    created = node.create(pods[1], node.container_config("true"))
    ended = node.run(pods[1], "true")
    node.wait(ended)
    late = plugin("60")
    [found] = late.events(method="Synchronize")
    assert sorted(found["pods"]) == sorted(pods)
    assert sorted(found["containers"]) == sorted([running, created])
    after = node.create(pods[0], node.container_config("true"))
    node.remove_container(running)
    assert late.methods(container=after) == ["CreateContainer", "PostCreateContainer"]
    assert late.methods(container=running) == ["StopContainer", "RemoveContainer"]


def learns_of_all(node: Ocirtd, plugin: Make, go: Path, *, before: int, during: int, after: int) -> None:
    """A late plugin takes its time to synchronise: each container is in its list, or is told of, exactly once."""
    plugin()
    pod = node.run_pod()
    late = plugin("10", start=False, Synchronize={"wait": str(go)})
    everything = [node.run(pod, "sleep", "1000") for _ in range(before)]
    with concurrent.futures.ThreadPoolExecutor(2 * during) as pool:
        made = [pool.submit(node.run, pod, "sleep", "1000") for _ in range(during)]
        late.start()
        late.until(Path(f"{go}.reached").exists, "Synchronize")
        made += [pool.submit(node.run, pod, "sleep", "1000") for _ in range(during)]
        time.sleep(0.3)
        go.touch()
        everything += [one.result(PATIENCE) for one in made]
    everything += [node.run(pod, "sleep", "1000") for _ in range(after)]
    synchronised = late.events(method="Synchronize")[0]["containers"]
    told = [event["container"] for event in late.events(method="CreateContainer")]
    assert sorted(synchronised + told) == sorted(everything)


@spec(LATE + "receive a callback for container created during the Synchronize call")
def test_a_container_while_a_plugin_joins(node: Ocirtd, plugin: Make, tmp_path: Path) -> None:
    learns_of_all(node, plugin, tmp_path / "go", before=1, during=1, after=0)


@spec(LATE + "receive information about all containers without the race condition during initialization")
def test_nothing_is_missed_around_a_late_plugin(node: Ocirtd, plugin: Make, tmp_path: Path) -> None:
    learns_of_all(node, plugin, tmp_path / "go", before=2, during=5, after=2)
