"""Pods and containers over gRPC, where the kernel's part is made up: order, joins, failures, events."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from ocirt.errors import Error
from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from tests.support.cri_services import refused
from tests.unit.cri.daemon.fakes import Daemon, serving

Test = Callable[[Daemon], Awaitable[None]]


@pytest.fixture
def place() -> Iterator[Path]:
    """Of a short path: sockets lie there."""
    with tempfile.TemporaryDirectory(prefix="o") as found:
        yield Path(found) / "d"


def run(place: Path, test: Test) -> None:
    async def main() -> None:
        async with serving(place) as daemon:
            await test(daemon)

    asyncio.run(main())


def left(daemon: Daemon) -> list[str]:
    """Rows, roots and files that are there."""
    node = daemon.node
    rows = [one.id for one in node.store.sandboxes()] + [one.id for one in node.store.containers()]
    files = [path for name in ("v/pods", "v/volumes", "r/containers") for path in (daemon.place / name).glob("*")]
    return rows + [str(path) for path in files] + list(node.roots.uppers()) + list(daemon.networks.pods)


def test_a_life(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        pod = await daemon.run_pod()
        found = await daemon.calls.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod))
        assert (found.status.network.ip, found.status.network.additional_ips[0].ip) == ("10.0.0.2", "fd00::1")
        made = await daemon.create(pod)
        shim = daemon.zygote.shims[made]
        assert shim.created is not None
        assert shim.created.root is not None
        assert shim.created.root.volatile
        assert shim.created.log_path == f"{daemon.place}/logs/pod/c.log"
        await daemon.start(made)
        answer = await daemon.calls.ExecSync(cri.ExecSyncRequest(container_id=made, cmd=["echo", "x"]))
        assert answer.stdout == b"echo x"
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            await daemon.calls.ExecSync(cri.ExecSyncRequest(container_id=made, cmd=["sleep"], timeout=3))
        shim.end(137, oom=True)
        assert (await daemon.until_ended(made)).reason == "OOMKilled"
        await daemon.calls.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod))
        assert shim.calls[-1] == "Delete"
        assert left(daemon) == []

    run(place, test)


def test_a_retry_joins_what_its_first_attempt_began(place: Path) -> None:
    """The network hangs past the client's deadline; the operation goes on, and the retry waits for it."""

    async def test(daemon: Daemon) -> None:
        daemon.networks.gate = asyncio.Event()
        with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
            await daemon.run_pod(seconds=0.2)
        retries = [asyncio.create_task(daemon.run_pod()) for _ in range(3)]
        await asyncio.sleep(0.1)
        other = daemon.pod_config(hostname="other")
        with refused(grpc.StatusCode.ALREADY_EXISTS) as said:
            await daemon.run_pod(other)
        assert "config.hostname" in said.text
        daemon.networks.gate.set()
        assert len(set(await asyncio.gather(*retries))) == 1
        assert daemon.networks.asked == 1

    run(place, test)


def test_what_fails_leaves_nothing_and_may_be_tried_again(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        daemon.networks.failure = Error("exhausted", "no address is left", subject="10.0.0.0/8")
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED) as said:
            await daemon.run_pod()
        assert "no address is left" in said.text
        assert left(daemon) == []
        daemon.networks.failure = None
        pod = await daemon.run_pod()
        before = left(daemon)
        daemon.zygote.prepare = [("Create", (status.INVALID_ARGUMENT, "/process/args/0: nope"))]
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
            await daemon.create(pod)
        assert said.text == "/process/args/0: nope"
        assert left(daemon) == before
        daemon.zygote.prepare = []
        await daemon.create(pod)

    run(place, test)


def test_a_pod_that_stops_while_a_container_is_made(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        pod = await daemon.run_pod()
        daemon.zygote.slow = {"Create": 0.3}
        creating = asyncio.create_task(daemon.create(pod))
        await asyncio.sleep(0.1)
        await daemon.calls.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod))
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            await creating
        assert daemon.node.store.containers() == []

    run(place, test)


def test_a_start_that_fails(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        pod = await daemon.run_pod()
        daemon.zygote.prepare = [("Start", (status.UNKNOWN, "exec format error"))]
        made = await daemon.create(pod)
        with refused(grpc.StatusCode.UNKNOWN):
            await daemon.start(made)
        found = await daemon.status(made)
        assert (found.state, found.exit_code, found.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
        with refused(grpc.StatusCode.FAILED_PRECONDITION):
            await daemon.start(made)

    run(place, test)


def test_a_shim_that_dies(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        pod = await daemon.run_pod()
        made = await daemon.create(pod)
        await daemon.start(made)
        daemon.zygote.shims[made].die()
        found = await daemon.until_ended(made)
        assert (found.exit_code, found.reason) == (255, "Unknown")
        await daemon.calls.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod))
        assert left(daemon) == []

    run(place, test)


def test_a_shim_that_answers_with_an_error_is_not_dead(place: Path) -> None:
    """It is asked again, and its container goes on."""

    async def test(daemon: Daemon) -> None:
        pod = await daemon.run_pod()
        daemon.zygote.prepare = [("Wait", (status.INTERNAL, "a bug"))]
        made = await daemon.create(pod)
        shim = daemon.zygote.shims[made]
        await daemon.start(made)
        await asyncio.sleep(0.5)
        assert shim.calls.count("Wait") > 1
        assert (await daemon.status(made)).state == cri.CONTAINER_RUNNING
        shim.fail.clear()
        shim.end(3)
        assert (await daemon.until_ended(made)).exit_code == 3

    run(place, test)


def test_rows_are_found_again(place: Path) -> None:
    """A pod is as it was; containers whose shims are gone are lost; what was half made is gone."""

    async def first(daemon: Daemon) -> None:
        pod = await daemon.run_pod(daemon.pod_config("kept", labels={"a": "b"}))
        made = await daemon.create(pod)
        daemon.node.all_containers[made].stop_signal = 10
        await daemon.node.store.put(daemon.node.all_containers[made])
        half = await daemon.run_pod(daemon.pod_config("half"))
        daemon.node.sandboxes[half].phase = "removing"
        await daemon.node.store.put(daemon.node.sandboxes[half])

    async def second(daemon: Daemon) -> None:
        (pod,) = (await daemon.calls.ListPodSandbox(cri.ListPodSandboxRequest())).items
        assert (pod.metadata.name, dict(pod.labels), pod.state) == ("kept", {"a": "b"}, cri.SANDBOX_READY)
        (container,) = (await daemon.calls.ListContainers(cri.ListContainersRequest())).containers
        assert (await daemon.status(container.id)).reason == "Unknown"
        assert daemon.node.all_containers[container.id].stop_signal == 10
        assert [one.config.metadata.name for one in daemon.node.store.sandboxes()] == ["kept"]

    run(place, first)
    run(place, second)


def test_lists_are_quick(place: Path) -> None:
    """500 pods: answered from memory."""

    async def test(daemon: Daemon) -> None:
        for number in range(500):
            await daemon.run_pod(daemon.pod_config(f"pod{number}"))
        start = asyncio.get_running_loop().time()
        for _ in range(5):
            found = await daemon.calls.ListPodSandbox(cri.ListPodSandboxRequest())
        assert len(found.items) == 500
        assert (asyncio.get_running_loop().time() - start) / 5 < 0.5  # 20 ms alone; this machine may be busy

    run(place, test)


def test_events_reach_who_listens(place: Path) -> None:
    async def test(daemon: Daemon) -> None:
        stream = daemon.calls.GetContainerEvents(cri.GetEventsRequest())
        reading = asyncio.create_task(_first(stream, 4))
        await asyncio.sleep(0.2)
        pod = await daemon.run_pod()
        made = await daemon.create(pod)
        await daemon.start(made)
        kinds = [(one.container_id, one.container_event_type) for one in await asyncio.wait_for(reading, 20)]
        created, started = cri.CONTAINER_CREATED_EVENT, cri.CONTAINER_STARTED_EVENT
        assert kinds == [(pod, created), (pod, started), (made, created), (made, started)]

    async def _first(stream: object, count: int) -> list[cri.ContainerEventResponse]:
        found: list[cri.ContainerEventResponse] = []
        async for event in stream:  # type: ignore[attr-defined]
            found.append(event)
            if len(found) == count:
                break
        return found

    run(place, test)
