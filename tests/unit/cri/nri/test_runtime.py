"""Plugins of other libraries, and unruly ones, at a daemon whose kernel is made up."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.nri import api_pb2 as nri
from ocirt_api.nri.mux import PLUGIN, RUNTIME
from ocirt_api.ttrpc import RequestReceived, ResponseReceived
from ocirt_cri.nri.calls import METHODS, RUNTIME_SERVICE
from ocirt_cri.nri.link import Link
from ocirt_cri.nri.runtime import Nri
from tests.support.cri_services import refused
from tests.unit.cri.daemon.fakes import Daemon, serving

Answer = Callable[[str, bytes], Any]


@pytest.fixture
def place() -> Iterator[Path]:
    """Of a short path: sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="o") as found:
        yield Path(found) / "d"


def run(place: Path, test: Callable[[Daemon], Awaitable[None]]) -> None:
    """A test with a daemon that has NRI."""

    async def main() -> None:
        async with serving(place) as daemon:
            node = daemon.node
            values = {**node.config.values, "nri.socket": str(place / "n"), "nri.plugins": str(place / "plugins")}
            values |= {"nri.registration_timeout": 1, "nri.request_timeout": 1}
            node.config = replace(node.config, values=values)
            async with Nri(node, daemon.containers) as found:
                node.nri = found
                await found.begin()
                async with asyncio.timeout(30):
                    await test(daemon)

    asyncio.run(main())


class Foreign:
    """A plugin by hand. answer: of a method and its request's bytes, a message, or (code, text) of a failure; told: all calls."""

    def __init__(self, place: Path, answer: Answer | None = None) -> None:
        self.place = place
        self.link = Link(serves=PLUGIN, calls=RUNTIME)
        self.told: list[tuple[str, bytes]] = []
        self.answers: asyncio.Queue[ResponseReceived] = asyncio.Queue()
        self.there = asyncio.Event()
        self.gone = asyncio.Event()
        self._answer = answer or (lambda _method, _payload: None)
        self._task: asyncio.Task[None] | None = None
        self.writer: asyncio.StreamWriter

    async def __aenter__(self) -> Foreign:
        reader, self.writer = await asyncio.open_unix_connection(str(self.place / "n"))
        self._task = asyncio.create_task(self._serve(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        assert self._task is not None
        await self._task

    async def _serve(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            for event in self.link.receive(data):
                if isinstance(event, RequestReceived):
                    self._respond(event)
                elif isinstance(event, ResponseReceived):
                    self.answers.put_nowait(event)
        self.gone.set()

    def _respond(self, event: RequestReceived) -> None:
        method = event.request.method
        self.told.append((method, event.request.payload))
        found = self._answer(method, event.request.payload)
        if isinstance(found, tuple):
            self.writer.write(self.link.respond(event.stream, code=found[0], text=found[1]))
        else:
            self.writer.write(self.link.respond(event.stream, b"" if found is None else found.SerializeToString()))
        if method == "Synchronize":
            self.there.set()

    async def ask(self, method: str, request: Any) -> ResponseReceived:
        self.writer.write(self.link.request(RUNTIME_SERVICE, method, request.SerializeToString())[1])
        return await self.answers.get()

    async def register(self, name: str = "foreign", index: str = "20") -> ResponseReceived:
        return await self.ask("RegisterPlugin", nri.RegisterPluginRequest(plugin_name=name, plugin_idx=index))

    async def join(self) -> None:
        assert (await self.register()).status.code == status.OK
        await self.there.wait()
        await asyncio.sleep(0.05)  # until the runtime has heard the answer

    async def until(self, method: str, times: int) -> None:
        """Wait until it was called so often."""
        for _ in range(1000):
            if self.methods().count(method) >= times:
                break
            await asyncio.sleep(0.01)
        assert self.methods().count(method) == times

    def methods(self) -> list[str]:
        return [method for method, _ in self.told]


def test_a_plugin_of_before_the_methods_of_events(place: Path) -> None:
    """It is told by StateChange, once it has said that it does not know better."""
    wanted = [event for event in METHODS if event not in (nri.UPDATE_POD_SANDBOX, nri.VALIDATE_CONTAINER_ADJUSTMENT)]
    known = ("Configure", "Synchronize", "Shutdown", "StateChange", "CreateContainer", "UpdateContainer", "StopContainer")

    def answer(method: str, _: bytes) -> Any:
        if method == "Configure":
            return nri.ConfigureResponse(events=sum(1 << (event - 1) for event in wanted))
        return None if method in known else (status.UNIMPLEMENTED, "what?")

    async def test(daemon: Daemon) -> None:
        async with Foreign(place, answer) as plugin:
            await plugin.join()
            for name in ("one", "two"):
                pod = await daemon.run_pod(daemon.pod_config(name))
                box = await daemon.create(pod)
                await daemon.start(box)
                await daemon.calls.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod))
            changes = [nri.StateChangeEvent.FromString(payload) for method, payload in plugin.told if method == "StateChange"]
            lives = [nri.Event.Name(change.event) for change in changes]
            assert lives == 2 * [
                "RUN_POD_SANDBOX",
                "POST_CREATE_CONTAINER",
                "START_CONTAINER",
                "POST_START_CONTAINER",
                "STOP_POD_SANDBOX",
                "REMOVE_CONTAINER",
                "REMOVE_POD_SANDBOX",
            ]
            assert (changes[1].pod.name, changes[1].container.name) == ("one", "c")
            assert plugin.methods().count("RunPodSandbox") == 1
            assert plugin.methods().count("StopContainer") == 2

    run(place, test)


def test_pods_whose_limits_change(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        refuses: list[bool] = []

        def answer(method: str, _: bytes) -> Any:
            return (status.UNKNOWN, "too much") if method in ("UpdatePodSandbox", "PostUpdatePodSandbox") and refuses else None

        async with Foreign(place, answer) as plugin:
            await plugin.join()
            sandbox = daemon.node.pod(await daemon.run_pod())
            hooks, limits = daemon.node.nri, cri.LinuxContainerResources(cpu_shares=5)
            await hooks.update_pod(sandbox, cri.LinuxContainerResources(), limits)
            await hooks.updated_pod(sandbox)
            assert plugin.methods()[-2:] == ["UpdatePodSandbox", "PostUpdatePodSandbox"]
            request = nri.UpdatePodSandboxRequest.FromString(plugin.told[-2][1])
            assert (request.pod.id, request.linux_resources.cpu.shares.value) == (sandbox.id, 5)
            refuses.append(True)
            with pytest.raises(Exception, match="too much"):
                await hooks.update_pod(sandbox, limits, limits)
            await hooks.updated_pod(sandbox)  # it has happened: that is only logged

    run(place, test)


def test_containers_that_make_room(place: Path) -> None:
    """What is evicted has ended before the new container is there."""

    async def test(daemon: Daemon) -> None:
        evicted: list[str] = []

        def answer(method: str, _: bytes) -> Any:
            if method == "CreateContainer":
                return nri.CreateContainerResponse(
                    evict=[nri.ContainerEviction(container_id=one, reason="room") for one in evicted]
                )
            return None

        async with Foreign(place, answer) as plugin:
            await plugin.join()
            pod = await daemon.run_pod()
            first = await daemon.create(pod, daemon.container_config("first"))
            await daemon.start(first)
            evicted += [first, "nobody"]
            await daemon.create(pod, daemon.container_config("second"))
            assert (await daemon.status(first)).state == cri.CONTAINER_EXITED
            second = await daemon.create(pod, daemon.container_config("third"))
            await daemon.start(second)
            gone = nri.UpdateContainersRequest(evict=[nri.ContainerEviction(container_id=second)])
            assert (await plugin.ask("UpdateContainers", gone)).status.code == status.OK
            assert (await daemon.until_ended(second)).state == cri.CONTAINER_EXITED
            await plugin.until("StopContainer", 2)

    run(place, test)


@pytest.mark.parametrize(("name", "index"), [("", "10"), ("a/b", "10"), ("good", "1"), ("good", "ten"), ("x" * 3, "-1")])
def test_names_that_are_none(place: Path, name: str, index: str) -> None:
    async def test(_: Daemon) -> None:
        async with Foreign(place) as plugin:
            answer = await plugin.register(name, index)
            assert answer.status.code == status.INVALID_ARGUMENT
            assert (await plugin.register()).status.code == status.OK  # it may try again
            await plugin.there.wait()

    run(place, test)


def test_who_is_not_taken_in(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """None of them keeps others, or pods, from anything."""

    async def test(daemon: Daemon) -> None:
        def nonsense(method: str, _: bytes) -> Any:
            return nri.ConfigureResponse(events=1 << 20) if method == "Configure" else None

        def fails(method: str, _: bytes) -> Any:
            return (status.UNKNOWN, "cannot") if method == "Synchronize" else None

        async with (
            Foreign(place) as silent,
            Foreign(place, nonsense) as strange,
            Foreign(place, fails) as failing,
            Foreign(place) as loud,
        ):
            early = await strange.ask("UpdateContainers", nri.UpdateContainersRequest())
            assert early.status.code == status.FAILED_PRECONDITION
            assert (await strange.ask("Nothing", nri.Empty())).status.code == status.UNIMPLEMENTED
            assert (await strange.ask("RegisterPlugin", _Bytes(b"\xff"))).status.code == status.INVALID_ARGUMENT
            loud.writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
            await strange.register()
            await failing.register("failing")
            for one in (silent, strange, failing, loud):
                await one.gone.wait()
            await daemon.create(await daemon.run_pod())
        said = caplog.text
        for words in (
            "did not register within 1 s",
            "wants events that there are not",
            "failed to answer Synchronize",
            "does not speak",
        ):
            assert words in said

    run(place, test)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


def test_a_plugin_whose_answer_is_no_message(place: Path) -> None:
    """It is dropped, and the container is made without it."""

    async def test(daemon: Daemon) -> None:
        def answer(method: str, _: bytes) -> Any:
            return _Bytes(b"\x0a\xff") if method == "CreateContainer" else None

        async with Foreign(place, answer) as plugin:
            await plugin.join()
            await daemon.create(await daemon.run_pod())
            await plugin.gone.wait()

    run(place, test)


def test_the_end_of_one_that_is_asked(place: Path) -> None:
    """What it was asked about goes on without it; unless it wanted otherwise."""

    async def test(daemon: Daemon) -> None:
        for number, policy in enumerate((None, nri.FailurePolicy(fail_request=True))):
            plugin = Foreign(place)

            def answer(method: str, _: bytes, policy: Any = policy, plugin: Foreign = plugin) -> Any:
                if method == "RunPodSandbox":
                    plugin.writer.close()
                return nri.ConfigureResponse(failure_policy=policy) if method == "Configure" else None

            plugin._answer = answer
            async with plugin:
                await plugin.join()
                if policy is None:
                    await daemon.run_pod(daemon.pod_config(f"pod{number}"))
                else:
                    with refused(grpc.StatusCode.UNAVAILABLE):
                        await daemon.run_pod(daemon.pod_config(f"pod{number}"))
                    await daemon.run_pod(daemon.pod_config(f"pod{number}"))

    run(place, test)


def test_a_container_whose_document_is_gone(place: Path) -> None:
    """As after an ocirtd that did not keep it: plugins see what is known anyway."""

    async def test(daemon: Daemon) -> None:
        boxes = []
        pod = await daemon.run_pod()
        for name, text in (("gone", None), ("broken", "{")):
            box = await daemon.create(pod, daemon.container_config(name))
            await daemon.start(box)
            file = Path(daemon.node.container_directory(box)) / "config.json"
            file.unlink() if text is None else file.write_text(text)
            boxes.append(box)
        async with Foreign(place) as plugin:
            await plugin.join()
            told = nri.SynchronizeRequest.FromString(dict(plugin.told)["Synchronize"])
            assert sorted(one.id for one in told.containers) == sorted(boxes)
            assert {one.name for one in told.containers} == {"gone", "broken"}
            assert {tuple(one.args) for one in told.containers} == {("sleep", "1000")}
            assert {one.state for one in told.containers} == {nri.CONTAINER_RUNNING}

    run(place, test)


def test_a_container_that_is_too_large_for_a_message(place: Path) -> None:
    """It is not made, and says why; the plugin, whose fault it is not, is asked about the next one."""

    async def test(daemon: Daemon) -> None:
        async with Foreign(place) as plugin:
            await plugin.join()
            texts = {"a": "x" * 1_000_000}
            pod = await daemon.run_pod(daemon.pod_config(annotations=texts))
            envs = [cri.KeyValue(key=f"k{number}", value=b"x" * 100_000) for number in range(20)]
            large = daemon.container_config("large", envs=envs, annotations=texts, labels=texts)
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as said:
                await daemon.create(pod, large)
            assert "CreateContainer" in said.text
            await daemon.create(pod, daemon.container_config("small"))
            assert plugin.methods().count("CreateContainer") == 1
            assert not plugin.gone.is_set()

    run(place, test)


def test_an_update_of_a_container_that_is_busy(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As one that is being written down: what another container waits for goes on without the update, and so do others."""

    async def test(daemon: Daemon) -> None:
        busy: list[str] = []

        def answer(method: str, _: bytes) -> Any:
            if method == "CreateContainer":
                return nri.CreateContainerResponse(
                    update=[nri.ContainerUpdate(container_id=one, ignore_failure=True) for one in busy]
                )
            return None

        async with Foreign(place, answer) as plugin:
            await plugin.join()
            pod = await daemon.run_pod()
            busy.append(await daemon.create(pod, daemon.container_config("busy")))
            async with daemon.node.all_containers[busy[0]].lock:
                await daemon.create(pod, daemon.container_config("other"))
            assert "Update" not in daemon.zygote.shims[busy[0]].calls
            assert busy[0] in caplog.text
            await daemon.create(pod, daemon.container_config("third"))
            assert "Update" in daemon.zygote.shims[busy[0]].calls

    run(place, test)


def test_a_container_that_is_evicted_from_within_a_method(place: Path) -> None:
    """The plugin has its answer before the container has ended: that it has, is told under the lock of the method's own call."""

    async def test(daemon: Daemon) -> None:
        first: list[str] = []
        asked: list[asyncio.Task[ResponseReceived]] = []

        class Evicting(Foreign):
            def _respond(self, event: RequestReceived) -> None:
                if event.request.method == "CreateContainer" and first and not asked:
                    asked.append(asyncio.create_task(self._evict(event)))
                else:
                    super()._respond(event)

            async def _evict(self, event: RequestReceived) -> ResponseReceived:
                gone = nri.UpdateContainersRequest(evict=[nri.ContainerEviction(container_id=first[0])])
                found = await self.ask("UpdateContainers", gone)
                super()._respond(event)
                return found

        async with Evicting(place) as plugin:
            await plugin.join()
            pod = await daemon.run_pod()
            first.append(await daemon.create(pod, daemon.container_config("first")))
            await daemon.start(first[0])
            await daemon.create(pod, daemon.container_config("second"))
            assert (await asked[0]).status.code == status.OK
            assert (await daemon.until_ended(first[0])).state == cri.CONTAINER_EXITED
            assert not plugin.gone.is_set()

    run(place, test)
