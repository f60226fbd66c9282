"""Plugins of NRI as processes beside ocirtd: what they are told and when, and what a kill makes of it."""

from __future__ import annotations

import concurrent.futures
import time

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from tests.support.nricalls import Make, held, later
from tests.support.ocirtd import PATIENCE, Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


# -- events --


def test_a_life_in_order(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod(node.pod_config("web", labels={"app": "x"}, annotations={"a": "b"}))
    box = node.run(pod, "sleep", "1000", name="main", labels={"l": "1"}, annotations={"k": "v"})
    node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=box, linux=cri.LinuxContainerResources(cpu_shares=512)), timeout=PATIENCE
    )
    node.stop_container(box)
    node.stop_pod(pod)
    node.stop_pod(pod)
    node.remove_container(box)
    node.remove_pod(pod)
    assert one.methods() == [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "StopPodSandbox",
        "RemoveContainer",
        "RemovePodSandbox",
    ]
    configured = one.events(method="Configure")[0]
    assert (configured["runtime"], configured["config"]) == ("ocirt", "")
    run = one.pod("RunPodSandbox")
    assert (run.id, run.name, run.namespace) == (pod, "web", "default")
    assert (dict(run.labels), dict(run.annotations)) == ({"app": "x"}, {"a": "b"})
    assert run.linux.cgroup_parent == node.cgroup_parent
    created = one.container("CreateContainer")
    assert (created.id, created.pod_sandbox_id, created.name, created.state) == (box, pod, "main", nri.CONTAINER_UNKNOWN)
    assert (list(created.args), created.labels["l"], created.annotations["k"]) == (["sleep", "1000"], "1", "v")
    assert "PATH=/bin" in created.env
    assert "/proc" in [mount.destination for mount in created.mounts]
    assert created.linux.cgroups_path.endswith(box)
    assert created.image.config_digest == node.image
    assert one.container("PostCreateContainer").state == nri.CONTAINER_CREATED
    started = one.container("PostStartContainer")
    assert started.state == nri.CONTAINER_RUNNING
    assert started.pid
    assert started.started_at
    assert one.container("PostUpdateContainer").linux.resources.cpu.shares.value == 512
    stopped = one.container("StopContainer")
    assert (stopped.state, stopped.exit_code, stopped.pid) == (nri.CONTAINER_STOPPED, 137, 0)
    assert one.container("RemoveContainer").name == "main"


def test_a_program_that_ends_by_itself_has_stopped(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "exit 3")
    one.until(lambda: one.events(method="StopContainer"), "the end to be told")
    assert one.container("StopContainer").exit_code == 3
    node.stop_container(box)
    node.remove_container(box)
    methods = one.methods(container=box)
    assert methods[-2:] == ["StopContainer", "RemoveContainer"]
    assert methods.count("StopContainer") == 1


def test_a_plugin_is_told_what_it_asked_for(node: Ocirtd, plugin: Make) -> None:
    one = plugin(events=["StopContainer", "RunPodSandbox"])
    box = node.run(node.run_pod(), "sleep", "1000")
    node.remove_container(box)
    assert one.methods() == ["Configure", "Synchronize", "RunPodSandbox", "StopContainer"]


def test_a_pod_is_in_no_list_while_its_hook_runs(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    config = node.pod_config()
    with held(one, "RunPodSandbox", lambda: node.run_pod(config)) as running:
        [event] = one.events(method="RunPodSandbox")
        assert node.pods() == []
        with refused(grpc.StatusCode.NOT_FOUND):
            node.pod_status(event["pod"])
        with refused(grpc.StatusCode.NOT_FOUND):
            node.create(event["pod"], node.container_config("true"))
    assert running.result(PATIENCE) == event["pod"]
    assert node.pod_status(event["pod"]).state == cri.SANDBOX_READY


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


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer"])
def test_a_hook_that_fails_leaves_nothing_and_a_retry_works(node: Ocirtd, plugin: Make, method: str) -> None:
    one = plugin()
    other = plugin("60")
    pod = "" if method == "RunPodSandbox" else node.run_pod()
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
    kind = "Container" if pod else "PodSandbox"
    failed = one.events(method=method)[-1]["container" if pod else "pod"]
    told = one.methods(**{"container" if pod else "pod": failed})
    assert told[-2:] == [f"Stop{kind}", f"Remove{kind}"]
    assert call() != failed


def test_a_start_that_a_plugin_refuses(node: Ocirtd, plugin: Make) -> None:
    one = plugin(StartContainer={"fail": "no start"})
    pod = node.run_pod()
    box = node.create(pod, node.container_config("sleep", "1000"))
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.start_container(box)
    assert "no start" in words[0]
    status = node.status(box)
    assert (status.state, status.reason, status.exit_code) == (cri.CONTAINER_EXITED, "StartError", 128)
    assert one.methods(container=box)[-2:] == ["StartContainer", "StopContainer"]


def test_a_pod_stops_after_its_containers_and_is_there_meanwhile(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    boxes = [node.run(pod, "sleep", "1000") for _ in range(3)]
    with held(one, "StopPodSandbox", lambda: node.stop_pod(pod)) as stopping:
        assert [node.status(box).state for box in boxes] == [cri.CONTAINER_EXITED] * 3
        assert node.pod_status(pod).id == pod
        assert one.methods()[-4:] == ["StopContainer"] * 3 + ["StopPodSandbox"]
    stopping.result(PATIENCE)
    node.stop_pod(pod)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.create(pod, node.container_config("true"))
    assert one.methods().count("StopPodSandbox") == 1
    assert one.methods().count("CreateContainer") == 3


def test_what_happened_cannot_be_refused(node: Ocirtd, plugin: Make) -> None:
    """Errors of what only tells are logged."""
    telling = (
        "PostCreateContainer",
        "PostStartContainer",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    )
    plugin(**{method: {"fail": f"no {method}"} for method in telling})
    pod = node.run_pod()
    node.run(pod, "sleep", "1000")
    node.remove_pod(pod)
    for method in telling:
        assert f"no {method}" in node.log.read_text()


# -- plugins that come late, and that go --


def test_a_late_plugin_learns_what_there_is(node: Ocirtd, plugin: Make) -> None:
    pods = [node.run_pod() for _ in range(2)]
    running = node.run(pods[0], "sleep", "1000")
    created = node.create(pods[1], node.container_config("true"))
    ended = node.run(pods[1], "true")
    node.wait(ended)
    one = plugin()
    [found] = one.events(method="Synchronize")
    assert sorted(found["pods"]) == sorted(pods)
    assert sorted(found["containers"]) == sorted([running, created])
    node.remove_container(ended)
    node.remove_container(running)
    assert one.methods()[2:] == ["StopContainer", "RemoveContainer"]


def test_nothing_is_missed_around_a_late_plugin(node: Ocirtd, plugin: Make) -> None:
    """Made before, while and after it is synchronised: each container is in the list, or is told of, exactly once."""
    pod = node.run_pod()
    late = plugin("10", start=False, Synchronize={"wait": str(node.place / "go")})
    before = [node.create(pod, node.container_config("true")) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        made = [pool.submit(node.create, pod, node.container_config("true")) for _ in range(6)]
        late.start()
        late.until((node.place / "go.reached").exists, "Synchronize")
        made += [pool.submit(node.create, pod, node.container_config("true")) for _ in range(6)]
        time.sleep(0.3)
        (node.place / "go").touch()
        everything = before + [one.result(PATIENCE) for one in made]
    everything.append(node.create(pod, node.container_config("true")))
    synchronised = late.events(method="Synchronize")[0]["containers"]
    told = [event["container"] for event in late.events(method="CreateContainer")]
    assert sorted(synchronised + told) == sorted(everything)


def test_a_container_that_is_being_made_is_in_the_list_of_a_late_plugin(node: Ocirtd, plugin: Make) -> None:
    """Others were asked about it already: the late one does not see its creation, and so has to find it in the list."""
    pod = node.run_pod()
    for index in range(8):
        creating = later(lambda: node.create(pod, node.container_config("true")))
        late = plugin(f"{20 + index}")
        made = creating.result(PATIENCE)
        assert [
            made in late.events(method="Synchronize")[0]["containers"],
            "CreateContainer" in late.methods(container=made),
        ].count(True) == 1
        late.end()
        node.remove_container(made)


def test_a_plugin_that_does_not_answer_is_dropped(node: Ocirtd, plugin: Make) -> None:
    one = plugin(CreateContainer={"sleep": 4})
    other = plugin("60")
    pod = node.run_pod()
    node.create(pod, node.container_config("true"))
    assert "NRI plugin 50-test0: CreateContainer: no answer within 2 s; it is asked no more" in node.log.read_text()
    second = node.create(pod, node.container_config("true"))
    assert one.methods().count("CreateContainer") == 1
    assert second in [event["container"] for event in other.events(method="CreateContainer")]
    assert one.process is not None
    assert one.process.wait(PATIENCE) == 0  # its connection has ended, and that is all


@pytest.mark.parametrize("policy", [{"fail_request": True}, {"keep_connected": True}])
def test_a_plugin_says_what_its_silence_means(node: Ocirtd, plugin: Make, policy: dict[str, bool]) -> None:
    one = plugin(policy=policy, CreateContainer={"sleep": 2.5})
    pod = node.run_pod()
    if "fail_request" in policy:
        with refused(grpc.StatusCode.UNAVAILABLE):
            node.create(pod, node.container_config("true"))
    else:
        node.create(pod, node.container_config("true"))
    one.order()
    node.create(pod, node.container_config("true"))
    assert one.methods().count("CreateContainer") == (2 if "keep_connected" in policy else 1)


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer"])
def test_a_plugin_that_dies_while_it_is_asked(node: Ocirtd, plugin: Make, method: str) -> None:
    one = plugin(**{method: {"exit": 7}})
    other = plugin("60")
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    node.remove_pod(pod)
    assert one.process is not None
    assert one.process.wait(PATIENCE) == 7
    assert one.methods()[-1] == method
    assert other.methods(container=box).count("CreateContainer") == 1
    assert other.methods()[-1] == "RemovePodSandbox"
    assert "NRI plugin 50-test0 is gone" in node.log.read_text()


def test_plugins_come_back_after_ocirtd_was_killed(node: Ocirtd, plugin: Make) -> None:
    """And what they see of containers is what they saw before."""
    one = plugin(CreateContainer={"adjust": {"env": [{"key": "NEW", "value": "1"}]}})
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    before = one.container("PostStartContainer")
    node.kill()
    assert one.process is not None
    assert one.process.wait(PATIENCE) == 0
    node.start()
    again = plugin("51")
    [found] = again.events(method="Synchronize")
    assert (found["pods"], found["containers"]) == ([pod], [box])
    node.stop_container(box)
    after = again.container("StopContainer")
    for name in ("args", "env", "mounts", "hooks", "annotations", "rlimits", "user", "image"):
        assert getattr(after, name) == getattr(before, name), name
    assert "NEW=1" in after.env
    assert (after.linux.cgroups_path, after.linux.namespaces) == (before.linux.cgroups_path, before.linux.namespaces)
    node.remove_pod(pod)
    assert again.methods()[2:] == ["StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox"]


def test_a_plugin_that_connects_again_by_itself(node: Ocirtd, plugin: Make) -> None:
    """It was started before ocirtd, and outlives it twice."""
    one = plugin(start=False)
    node.stop()
    one.start(reconnect=True)
    for how in ("kill", "stop"):
        node.start()
        one.until(lambda: one.is_there() and one.methods()[-1] == "Synchronize", "it to connect")
        box = node.run(node.run_pod(), "sleep", "1000")
        assert one.methods(container=box) == ["CreateContainer", "PostCreateContainer", "StartContainer", "PostStartContainer"]
        getattr(node, how)()
    node.start()


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox"])
def test_ocirtd_is_killed_while_a_plugin_is_asked(node: Ocirtd, plugin: Make, method: str) -> None:
    """The next one has undone, or does again, what was half done."""
    one = plugin()
    config, wanted = node.pod_config(), node.container_config("sleep", "1000")

    def everything() -> str:
        pod = node.run_pod(config)
        box = node.create(pod, wanted)
        if node.status(box).state == cri.CONTAINER_CREATED:
            node.start_container(box)
        node.stop_pod(pod)
        return pod

    with held(one, method, everything) as running:
        node.kill()
    with pytest.raises(grpc.RpcError):
        running.result(PATIENCE)
    node.start()
    if method == "StopPodSandbox":
        [found] = node.pods()
        assert found.state == cri.SANDBOX_NOTREADY
        node.remove_pod(found.id)
    else:
        node.remove_pod(everything())
    assert node.left() == []


# -- the socket --


def test_the_socket(node: Ocirtd) -> None:
    assert node.nri.stat().st_mode & 0o777 == 0o600
    node.kill()
    node.start()  # over what the killed one has left
    assert node.nri.exists()
    node.stop()
    assert not node.nri.exists()
    node.start()


def test_another_runtime_keeps_its_socket(node: Ocirtd) -> None:
    import socket  # noqa: PLC0415

    node.stop()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(node.nri))
        other.listen()
        node.start()
        assert f"another runtime listens at {node.nri}" in node.log.read_text()
        node.run_pod()
        node.clear()
    node.nri.unlink()
    node.start()
