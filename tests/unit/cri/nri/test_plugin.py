"""The library for plugins in Python, against a runtime that the test plays."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ocirt_api import status
from ocirt_api.nri import api_pb2 as nri
from ocirt_api.nri.mux import PLUGIN, RUNTIME
from ocirt_api.ttrpc import RequestReceived, ResponseReceived
from ocirt_cri.nri import plugin as library
from ocirt_cri.nri.calls import PLUGIN_SERVICE
from ocirt_cri.nri.link import Link
from ocirt_cri.nri.plugin import EndedError, Plugin, PluginError, run


class Everything(Plugin):
    """Does a bit of all."""

    failure_policy = nri.FailurePolicy(fail_request=True)

    def __init__(self) -> None:
        self.told: list[Any] = []

    def configure(self, config: str, runtime: str, version: str) -> None:
        self.told.append((config, runtime, version))

    def synchronize(self, pods: list[nri.PodSandbox], containers: list[nri.Container]) -> list[nri.ContainerUpdate]:
        self.told.append(([one.id for one in pods], [one.id for one in containers]))
        return [nri.ContainerUpdate(container_id="c")]

    def run_pod_sandbox(self, pod: nri.PodSandbox) -> None:
        if pod.id == "bad":
            raise ValueError("a bad pod")
        self.told.append(pod.id)

    def update_pod_sandbox(self, pod: nri.PodSandbox, overhead: nri.LinuxResources, resources: nri.LinuxResources) -> None:
        self.told.append((pod.id, overhead.cpu.cpus, resources.cpu.cpus))

    def create_container(
        self, pod: nri.PodSandbox, container: nri.Container
    ) -> tuple[nri.ContainerAdjustment, list[nri.ContainerUpdate]] | None:
        if not container.id:
            return None
        failed = self.update_containers([nri.ContainerUpdate(container_id="other")], [nri.ContainerEviction(container_id="out")])
        self.told.append([one.container_id for one in failed])
        return nri.ContainerAdjustment(args=[pod.id]), [nri.ContainerUpdate(container_id="x")]

    def validate_container_adjustment(self, request: nri.ValidateContainerAdjustmentRequest) -> None:
        if request.adjust.args:
            raise ValueError("no arguments")

    def shutdown(self) -> None:
        self.told.append("over")


class Runtime:
    """The other side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.link = Link(serves=RUNTIME, calls=PLUGIN)
        connection.settimeout(20)

    def next(self) -> Any:
        while True:
            data = self.socket.recv(1 << 16)
            assert data
            if events := self.link.receive(data):
                [event] = events
                return event

    def answer(self, event: RequestReceived, message: Any = None, **failure: Any) -> None:
        payload = b"" if message is None else message.SerializeToString()
        self.socket.sendall(self.link.respond(event.stream, payload, **failure))

    def send(self, method: str, request: Any) -> None:
        self.socket.sendall(self.link.request(PLUGIN_SERVICE, method, request.SerializeToString())[1])

    def call(self, method: str, request: Any, kind: type[Any]) -> Any:
        self.send(method, request)
        event = self.next()
        assert isinstance(event, ResponseReceived)
        assert event.status.code == status.OK, event.status.message
        return kind.FromString(event.payload)

    def failure(self, method: str, request: Any) -> tuple[int, str]:
        self.send(method, request)
        event = self.next()
        assert isinstance(event, ResponseReceived)
        return event.status.code, event.status.message


class Running:
    """A plugin in a thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, plugin: Plugin) -> None:
        ours, theirs = socket.socketpair()
        self.runtime = Runtime(ours)
        self.error: Exception | None = None
        monkeypatch.setenv("NRI_PLUGIN_SOCKET", str(theirs.detach()))
        monkeypatch.setenv("NRI_PLUGIN_NAME", "every")
        monkeypatch.setenv("NRI_PLUGIN_IDX", "33")
        self.thread = threading.Thread(target=self._run, args=(plugin,))
        self.thread.start()

    def _run(self, plugin: Plugin) -> None:
        try:
            run(plugin)
        except Exception as err:  # noqa: BLE001
            self.error = err

    def end(self) -> None:
        self.runtime.socket.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def plugin() -> Everything:
    return Everything()


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, plugin: Everything) -> Iterator[Running]:
    """One that has registered."""
    found = Running(monkeypatch, plugin)
    event = found.runtime.next()
    assert event.request.method == "RegisterPlugin"
    request = nri.RegisterPluginRequest.FromString(event.request.payload)
    assert (request.plugin_name, request.plugin_idx) == ("every", "33")
    found.runtime.answer(event)
    yield found
    found.end()
    assert found.error is None


def test_its_beginning(running: Running, plugin: Everything) -> None:
    runtime = running.runtime
    configured = runtime.call(
        "Configure", nri.ConfigureRequest(config="c", runtime_name="r", runtime_version="v"), nri.ConfigureResponse
    )
    events = (nri.RUN_POD_SANDBOX, nri.UPDATE_POD_SANDBOX, nri.CREATE_CONTAINER, nri.VALIDATE_CONTAINER_ADJUSTMENT)
    assert configured.events == sum(1 << (event - 1) for event in events)
    assert configured.failure_policy.fail_request
    pods = [nri.PodSandbox(id="p1"), nri.PodSandbox(id="p2")]
    first = runtime.call("Synchronize", nri.SynchronizeRequest(pods=pods[:1], more=True), nri.SynchronizeResponse)
    assert first == nri.SynchronizeResponse(more=True)
    rest = nri.SynchronizeRequest(pods=pods[1:], containers=[nri.Container(id="c")])
    assert [one.container_id for one in runtime.call("Synchronize", rest, nri.SynchronizeResponse).update] == ["c"]
    runtime.call("Shutdown", nri.Empty(), nri.Empty)
    assert plugin.told == [("c", "r", "v"), (["p1", "p2"], ["c"]), "over"]


def test_events(running: Running, plugin: Everything, capfd: pytest.CaptureFixture[str]) -> None:
    runtime = running.runtime
    runtime.call("RunPodSandbox", nri.RunPodSandboxRequest(pod=nri.PodSandbox(id="good")), nri.RunPodSandboxResponse)
    change = nri.StateChangeEvent(event=nri.RUN_POD_SANDBOX, pod=nri.PodSandbox(id="by an old way"))
    runtime.call("StateChange", change, nri.Empty)
    update = nri.UpdatePodSandboxRequest(pod=nri.PodSandbox(id="p"))
    update.overhead_linux_resources.cpu.cpus, update.linux_resources.cpu.cpus = "0", "1"
    runtime.call("UpdatePodSandbox", update, nri.UpdatePodSandboxResponse)
    assert plugin.told == ["good", "by an old way", ("p", "0", "1")]
    bad = nri.RunPodSandboxRequest(pod=nri.PodSandbox(id="bad"))
    assert runtime.failure("RunPodSandbox", bad) == (status.UNKNOWN, "a bad pod")
    assert "RunPodSandbox: ValueError: a bad pod" in capfd.readouterr().err
    assert runtime.failure("StopContainer", nri.StopContainerRequest())[0] == status.UNIMPLEMENTED
    assert runtime.failure("Nonsense", nri.Empty())[0] == status.UNIMPLEMENTED
    verdict = runtime.call(
        "ValidateContainerAdjustment",
        nri.ValidateContainerAdjustmentRequest(adjust=nri.ContainerAdjustment(args=["x"])),
        nri.ValidateContainerAdjustmentResponse,
    )
    assert (verdict.reject, verdict.reason) == (True, "no arguments")


def test_it_may_ask_while_it_is_asked(running: Running, plugin: Everything) -> None:
    runtime = running.runtime
    assert runtime.call(
        "CreateContainer", nri.CreateContainerRequest(), nri.CreateContainerResponse
    ) == nri.CreateContainerResponse(adjust=None)
    runtime.send("CreateContainer", nri.CreateContainerRequest(pod=nri.PodSandbox(id="p"), container=nri.Container(id="c")))
    event = runtime.next()
    asked = nri.UpdateContainersRequest.FromString(event.request.payload)
    assert (asked.update[0].container_id, asked.evict[0].container_id) == ("other", "out")
    runtime.answer(event, nri.UpdateContainersResponse(failed=asked.update))
    answer = nri.CreateContainerResponse.FromString(runtime.next().payload)
    assert (list(answer.adjust.args), answer.update[0].container_id, plugin.told) == (["p"], "x", [["other"]])
    runtime.send("CreateContainer", nri.CreateContainerRequest(container=nri.Container(id="c")))
    runtime.answer(runtime.next(), code=status.NOT_FOUND, text="no such container")
    failed = runtime.next()
    assert (failed.status.code, failed.status.message) == (status.UNKNOWN, "no such container")


def test_a_runtime_that_does_not_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Running(monkeypatch, Everything())
    found.runtime.answer(found.runtime.next(), code=status.INVALID_ARGUMENT, text="not you")
    found.thread.join(20)
    assert isinstance(found.error, PluginError)
    assert str(found.error) == "not you"
    found.end()


def test_a_runtime_that_ends_before_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Running(monkeypatch, Everything())
    found.runtime.next()
    found.end()
    assert isinstance(found.error, EndedError)


def test_it_connects_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether the runtime is not there yet, ends before it has answered, or later; not if it does not want the plugin."""
    monkeypatch.setattr(library, "_PAUSE", 0.01)
    path = tmp_path / "s"
    failed: list[Exception] = []

    def body() -> None:
        try:
            run(Everything(), name="again", index="10", path=str(path), reconnect=True)
        except PluginError as err:
            failed.append(err)

    thread = threading.Thread(target=body)
    thread.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(20)
        for answers in ({}, None, {"code": status.INVALID_ARGUMENT, "text": "not you"}):
            connection, _ = listener.accept()
            with connection:
                runtime = Runtime(connection)
                event = runtime.next()
                assert nri.RegisterPluginRequest.FromString(event.request.payload).plugin_name == "again"
                if answers is not None:
                    runtime.answer(event, **answers)
                    assert not answers or runtime.socket.recv(1) == b""
        thread.join(20)
    assert [str(one) for one in failed] == ["not you"]


def test_a_plugin_that_does_not_run() -> None:
    with pytest.raises(PluginError, match="does not run"):
        Everything().update_containers()
    assert "NRI_PLUGIN_SOCKET" not in os.environ
    with pytest.raises(FileNotFoundError):
        run(Everything(), path="/nowhere/nri.sock")
