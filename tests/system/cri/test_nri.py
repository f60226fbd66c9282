"""Plugins of NRI as processes beside ocirtd: what they are told and when, and what a kill makes of it."""

from __future__ import annotations

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.nricalls import Make, held, later
from tests.support.ocirtd import PATIENCE, Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")


# -- events --


def test_a_plugin_is_told_what_it_asked_for(node: Ocirtd, plugin: Make) -> None:
    one = plugin(events=["StopContainer", "RunPodSandbox"])
    box = node.run(node.run_pod(), "sleep", "1000")
    node.remove_container(box)
    assert one.methods() == ["Configure", "Synchronize", "RunPodSandbox", "StopContainer"]


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
