"""Plugins of NRI as processes beside ocirtd: what they are told and when, what they change, and what a kill makes of it."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from tests.support.build import ROOT
from tests.support.nriplugin import NriPlugin
from tests.support.ocirtd import PATIENCE, Ocirtd, refused

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")
Make = Callable[..., NriPlugin]


@pytest.fixture
def plugin(node: Ocirtd) -> Iterator[Make]:
    """Make plugins that have joined: `plugin("10")`, `plugin(name=…, start=False)`."""
    made: list[NriPlugin] = []

    def make(index: str = "50", name: str = "", *, start: bool = True, **orders: Any) -> NriPlugin:
        found = NriPlugin(node.place / f"plugin{len(made)}", node.nri, name or f"test{len(made)}", index)
        made.append(found)
        found.order(**orders)
        if start:
            there = f"NRI plugin {index}-{found.name} is there"
            before = node.log.read_text().count(there)
            found.start()
            node.until(lambda: node.log.read_text().count(there) > before, "the plugin to join")
        return found

    yield make
    for one in made:
        one.end()


def later(call: Callable[[], Any]) -> concurrent.futures.Future[Any]:
    """Its result, out of a thread of its own."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def body() -> None:
        try:
            future.set_result(call())
        except Exception as err:  # noqa: BLE001
            future.set_exception(err)

    threading.Thread(target=body, daemon=True).start()
    return future


@contextlib.contextmanager
def held(one: NriPlugin, method: str, call: Callable[[], Any]) -> Iterator[concurrent.futures.Future[Any]]:
    """The block runs while the plugin does not answer to a method, which `call` leads to."""
    gate = one.place / f"gate-{time.monotonic_ns()}"
    one.order(**{method: {"wait": str(gate)}})
    future = later(call)
    try:
        one.until(lambda: Path(f"{gate}.reached").exists() or future.done(), f"{method} to be asked")
        assert not future.done(), future.result()
        yield future
    finally:
        one.order()
        gate.touch()


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


# -- changes --


def test_adjustments(node: Ocirtd, plugin: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    adjust = {
        "annotations": {"nri": "yes"},
        "env": [{"key": "ADDED", "value": "1"}, {"key": "-TAKEN"}, {"key": "CHANGED", "value": "2"}],
        "mounts": [{"destination": "/mnt", "type": "bind", "source": str(tmp_path), "options": ["bind", "ro"]}],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": "77", "hard": "88"}],
        "linux": {
            "oomScoreAdj": {"value": "321"},
            "resources": {"memory": {"limit": {"value": str(64 << 20)}}, "cpu": {"shares": {"value": "300"}}},
            "devices": [{"path": "/dev/nri", "type": "c", "major": "1", "minor": "3", "fileMode": {"value": 0o666}}],
        },
        "hooks": {
            "createRuntime": [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", f"echo $MARK > {tmp_path}/hooked; cat > {tmp_path}/state"],
                    "env": ["MARK=x"],
                }
            ]
        },
    }
    plugin(CreateContainer={"adjust": adjust})
    pod = node.run_pod()
    envs = [cri.KeyValue(key="TAKEN", value=b"0"), cri.KeyValue(key="CHANGED", value=b"0")]
    script = (
        "env; cat /mnt/file; touch /mnt/x; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; echo z > /dev/nri && echo device"
    )
    box = node.run(pod, "sh", "-c", f"{script}; sleep 1000", envs=envs)
    node.until(lambda: ("stdout", "F", "device") in node.logged(box), "all that it says")
    said = [text for _, _, text in node.logged(box)]
    assert {"ADDED=1", "CHANGED=2", "from the host", "77", "88", "321"} <= set(said)
    assert not any(text.startswith("TAKEN") for text in said)
    assert any("Read-only file system" in text for text in said)
    assert (tmp_path / "hooked").read_text() == "x\n"
    bundle = Path(json.loads((tmp_path / "state").read_text())["bundle"])
    assert "ADDED=1" in json.loads((bundle / "config.json").read_text())["process"]["env"]
    limits = node.status(box).resources.linux
    assert (limits.memory_limit_in_bytes, limits.cpu_shares) == (64 << 20, 300)
    cgroup = next(line for line in node.exec(box, "cat", "/proc/self/cgroup").stdout.decode().splitlines() if ":memory:" in line)
    assert box in cgroup or cgroup.endswith(":/")
    assert node.exec(box, "sh", "-c", "echo $ADDED$TAKEN").stdout == b"1\n"


def test_plugins_are_asked_in_the_order_of_their_index(node: Ocirtd, plugin: Make) -> None:
    """Each sees what those before have changed; a second may take a thing away and set it anew."""
    last = plugin("90", CreateContainer={"adjust": {"env": [{"key": "-WORD"}, {"key": "WORD", "value": "last"}]}})
    first = plugin("10", CreateContainer={"adjust": {"env": [{"key": "WORD", "value": "first"}]}})
    pod = node.run_pod()
    box = node.run(pod, "sh", "-c", "echo $WORD")
    node.wait(box)
    assert "WORD=first" not in first.container("CreateContainer").env
    assert "WORD=first" in last.container("CreateContainer").env
    assert node.logged(box) == [("stdout", "F", "last")]
    assert "WORD=last" in first.container("StartContainer").env


def test_two_plugins_that_want_the_same(node: Ocirtd, plugin: Make) -> None:
    for index in ("10", "20"):
        plugin(index, CreateContainer={"adjust": {"env": [{"key": "WORD", "value": index}]}})
    pod = node.run_pod()
    left = node.left()
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        node.create(pod, node.container_config("true"))
    assert "plugins '20-test1' and '10-test0' both tried to set Env WORD" in words[0]
    assert (node.left(), node.containers()) == (left, [])


def test_an_adjustment_that_cannot_be_made(node: Ocirtd, plugin: Make) -> None:
    one = plugin(CreateContainer={"adjust": {"mounts": [{"destination": "relative", "type": "bind", "source": "/tmp"}]}})
    pod = node.run_pod()
    left = node.left()
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as words:
        node.create(pod, node.container_config("true"))
    assert "NRI adjustment: mounts: 'relative' is not an absolute path" in words[0]
    assert node.left() == left
    one.order(CreateContainer={"adjust": {"linux": {"namespaces": [{"type": "network", "path": "/proc/nothing"}]}}})
    with pytest.raises(grpc.RpcError, match="/linux/namespaces"):
        node.create(pod, node.container_config("true"))
    assert node.left() == left


def test_a_validating_plugin_rejects(node: Ocirtd, plugin: Make) -> None:
    plugin(
        "10", CreateContainer={"adjust": {"env": [{"key": "WORD", "value": "x"}], "hooks": {"poststop": [{"path": "/bin/true"}]}}}
    )
    judge = plugin("05", events=["ValidateContainerAdjustment"], ValidateContainerAdjustment={"fail": "no words"})
    pod = node.run_pod()
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.create(pod, node.container_config("true"))
    assert "no words" in words[0]
    assert node.containers() == []
    [event] = judge.events(method="ValidateContainerAdjustment")
    request = nri.ValidateContainerAdjustmentRequest.FromString(base64.b64decode(event["request"]))
    assert [(one.index, one.name) for one in request.plugins] == [("05", "test1"), ("10", "test0")]
    assert [(one.key, one.value) for one in request.adjust.env] == [("WORD", "x")]
    owners = request.owners.owners[request.container.id]
    assert owners.compound[6].owners["WORD"] == "10-test0"
    assert owners.simple[3] == "10-test0"
    judge.order()
    node.create(pod, node.container_config("true"))


def shares(node: Ocirtd, box: str) -> int:
    """CPU shares that are in force."""
    return int(node.status(box).resources.linux.cpu_shares)


def change(identifier: str, value: int, **more: Any) -> dict[str, Any]:
    """An update of a container's CPU shares."""
    return {"containerId": identifier, "linux": {"resources": {"cpu": {"shares": {"value": str(value)}}}}, **more}


def test_updates_of_other_containers(node: Ocirtd, plugin: Make) -> None:
    one = plugin()
    pod = node.run_pod()
    first, second = (node.run(pod, "sleep", "1000") for _ in range(2))
    one.order(CreateContainer={"update": [change(first, 111), change("nobody", 5), change("nobody2", 5, ignoreFailure=True)]})
    third = node.run(pod, "sleep", "1000")
    assert (shares(node, first), shares(node, second)) == (111, 1024)
    log = node.log.read_text()
    assert "container nobody: an NRI plugin's update failed" in log
    assert "nobody2" not in log
    # In the place of what the request wants, and beside it.
    one.order(UpdateContainer={"update": [change(first, 222), change(second, 333)]})
    wanted = cri.LinuxContainerResources(cpu_shares=444, cpu_quota=50000)
    node.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=first, linux=wanted), timeout=PATIENCE)
    assert (shares(node, first), shares(node, second)) == (222, 333)
    assert node.status(first).resources.linux.cpu_quota == 50000
    one.order(StopContainer={"update": [change(first, 555)]})
    node.stop_container(third)
    assert shares(node, first) == 555
    # Unasked, in the middle of an answer.
    one.order(StartContainer={"unsolicited": [change(second, 666), change("nobody", 7)]})
    node.run(pod, "sleep", "1000")
    assert shares(node, second) == 666
    assert one.events(method="failed")[-1]["containers"] == ["nobody"]


def test_the_kernel_has_the_limits(node: Ocirtd, plugin: Make) -> None:
    """Of an adjustment, of a change by a plugin, and of a plugin that synchronises."""
    one = plugin(CreateContainer={"adjust": {"linux": {"resources": {"memory": {"limit": {"value": str(32 << 20)}}}}}})
    pod = node.run_pod()
    box = node.run(pod, "sleep", "1000")
    one.end()

    def limit() -> int:
        for name in ("memory/memory.limit_in_bytes", "memory.max"):
            found = node.exec(box, "cat", f"/sys/fs/cgroup/{name}")
            if found.exit_code == 0:
                return int(found.stdout)
        raise AssertionError("no memory cgroup is to be seen")

    assert limit() == 32 << 20
    given = {"memory": {"limit": {"value": str(48 << 20)}}}
    plugin("60", Synchronize={"update": [{"containerId": box, "linux": {"resources": given}}]})
    assert limit() == 48 << 20


# -- plugins that ocirtd starts --


def example() -> str:
    """The plugin of docs/nri.md, which users copy."""
    text = (ROOT / "docs/nri.md").read_text()
    return text.partition("```python\n")[2].partition("```")[0]


_CONFIGURED = """\
from ocirt_cri.nri.plugin import Container, ContainerAdjustment, Plugin, PodSandbox, run


class Greeting(Plugin):
    def configure(self, config: str, runtime: str, version: str) -> None:
        self.words = config.strip()

    def create_container(self, pod: PodSandbox, container: Container) -> ContainerAdjustment:
        adjust = ContainerAdjustment()
        adjust.env.add(key="GREETING", value=f"{self.words} from {pod.name}")
        return adjust


run(Greeting())
"""


def configure(node: Ocirtd, *scripts: Path, **more: int) -> None:
    """Start the daemon anew, with scripts as plugins."""
    node.stop()
    text = node.config.read_text() + f"python = {[str(one) for one in scripts]}\n"
    node.config.write_text(text + "".join(f"{key} = {value}\n" for key, value in more.items()))
    node.start()


def children(pid: int, word: str) -> list[int]:
    """The children of a process whose command line has a word."""
    found = [one for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    return [int(one) for one in found if word.encode() in _command(one)]


def _command(pid: str) -> bytes:
    """What a process was executed as; nothing of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def is_over(pid: int) -> bool:
    """Whether a process runs no more; whoever it was left to may not have seen that yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_plugins_in_python_by_configuration(node: Ocirtd) -> None:
    """They are there before the first container, and end with the daemon, however it ends."""
    script = node.place / "10-greeting.py"
    script.write_text(_CONFIGURED)
    (node.place / "nri.conf.d").mkdir()
    (node.place / "nri.conf.d/greeting.conf").write_text("good day\n")
    configure(node, script, node.place / "20-missing.py", node.place / "unnamed.py")
    for _ in range(2):
        pod = node.run_pod(node.pod_config("world"))
        box = node.run(pod, "sh", "-c", "echo $GREETING")
        node.wait(box)
        assert node.logged(box) == [("stdout", "F", "good day from world")]
        node.remove_pod(pod)
        assert node.process is not None
        [plugin] = children(node.process.pid, "10-greeting.py")
        node.kill()
        node.until(lambda pid=plugin: is_over(pid), "the plugin to end")  # type: ignore[misc]
        node.start()
    log = node.log.read_text()
    assert "20-missing.py: there is no such file" in log
    assert "'unnamed' is no name of a plugin" in log
    assert node.process is not None
    [plugin] = children(node.process.pid, "10-greeting.py")
    node.stop()
    assert is_over(plugin)
    node.start()


def test_the_example(node: Ocirtd) -> None:
    """Ten lines, and one of configuration."""
    assert len([line for line in example().splitlines() if line]) <= 10
    (node.place / "10-greeting.py").write_text(example())
    configure(node, node.place / "10-greeting.py")
    box = node.run(node.run_pod(node.pod_config("you")), "sh", "-c", "echo $GREETING")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", "hello from you")]


def test_a_plugin_of_ours_that_dies_or_never_registers(node: Ocirtd) -> None:
    good, deaf = node.place / "10-greeting.py", node.place / "20-deaf.py"
    good.write_text(example())
    deaf.write_text("import time\ntime.sleep(1000)\n")
    configure(node, good, deaf, registration_timeout=1)
    log = node.log.read_text()
    assert "NRI plugin 20-deaf: did not register within 1 s" in log
    assert node.process is not None
    [plugin] = children(node.process.pid, "10-greeting.py")
    os.kill(plugin, signal.SIGKILL)
    node.until(lambda: "NRI plugin 10-greeting is gone" in node.log.read_text(), "its end to be noticed")
    box = node.run(node.run_pod(), "sh", "-c", "echo $GREETING.")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", ".")]
    node.until(lambda: not Path(f"/proc/{plugin}").exists(), "it to be reaped")
    node.until(lambda: not children(node.process.pid, "20-deaf.py"), "the deaf one to be ended")  # type: ignore[union-attr]


def test_programs_of_a_directory(node: Ocirtd) -> None:
    """As other runtimes start them: by their name, with a socket that is there already."""
    import sys  # noqa: PLC0415

    place = node.place / "nri.d"
    place.mkdir()
    (place / "30-program").write_text(f"#!{sys.executable}\nimport sys\nsys.path[:] = {sys.path}\n{example()}")
    (place / "30-program").chmod(0o755)
    (place / "README").write_text("not a program\n")
    node.stop()
    node.start()
    assert "NRI plugin 30-program is there" in node.log.read_text()
    box = node.run(node.run_pod(node.pod_config("you")), "sh", "-c", "echo $GREETING")
    node.wait(box)
    assert node.logged(box) == [("stdout", "F", "hello from you")]


def test_a_plugin_that_is_required(node: Ocirtd, plugin: Make) -> None:
    """No container is made without it, also not after a restart; pods are."""
    node.config.write_text(node.config.read_text() + 'required = ["limits"]\n')
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    node.until(lambda: 'nri.required: ["limits"], was []' in node.log.read_text(), "the change in the log")
    pod = node.run_pod()
    wanted = node.container_config("sleep", "1000")

    def is_refused() -> None:
        with refused(grpc.StatusCode.UNAVAILABLE) as words:
            node.create(pod, wanted)
        assert "no NRI plugin limits is connected" in words[0]
        assert node.containers() == []

    is_refused()
    other = plugin("10", "other")
    is_refused()
    assert "CreateContainer" not in other.methods()
    plugin("20", "limits")
    box = node.create(pod, wanted)
    node.remove_container(box)
    node.kill()
    node.start()
    is_refused()
    plugin("20", "limits")
    node.create(pod, wanted)


def test_without_nri(node: Ocirtd) -> None:
    node.stop()
    node.config.write_text(node.config.read_text() + "enabled = false\n")
    node.start()
    assert not node.nri.exists()
    made = node.run(node.run_pod(), "sleep", "1000")
    assert node.status(made).state == cri.CONTAINER_RUNNING


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
