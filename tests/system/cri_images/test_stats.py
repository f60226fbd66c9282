"""Statistics over gRPC: of real cgroups and network namespaces, whose containers are made up."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from ocirt.cgroups import control, paths
from ocirt.cgroups.layout import detect
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.stats import network
from ocirt_cri.stats.layers import LayerUsage
from ocirt_images.snapshots import Upper
from tests.support.cri_services import MadeUp, MadeUpPod, Source, eventually, refused, serving
from tests.support.isolation import Isolation

pytestmark = pytest.mark.ocirt_only("peers have no such service")

MIB = 1 << 20
# Takes 40 MiB, and the processor until it is told to end.
BURN = "import os; x = bytearray(os.urandom(1) * (40 << 20)); print(flush=True)\nwhile True: pass"

SEND = "import socket; s = socket.socket(type=socket.SOCK_DGRAM)\nfor n in range(20): s.sendto(b'x' * 1000, ('10.231.0.1', 9))"


Cgroup = Callable[[str], dict[str, str]]


@pytest.fixture
def cgroup(isolation: Isolation, request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """Makes cgroups, with the controllers that there are."""
    layout = detect()
    base = f"{isolation.cgroup_parent}/{request.node.name[:40]}"
    made = paths.resolve(base, "", layout, rootless=False)

    def make(name: str) -> dict[str, str]:
        found = paths.resolve(f"{base}/{name}", "", layout, rootless=False)
        control.create(found)
        return found

    yield make
    control.remove({"paths": made, "mode": layout.mode})


@pytest.fixture
def burning(cgroup: Cgroup) -> Iterator[tuple[dict[str, str], int]]:
    """A cgroup in which a process is at work."""
    found = cgroup("burning")
    with subprocess.Popen([sys.executable, "-c", f"import os; os.read(0, 1); {BURN}"], stdin=-1, stdout=-1) as process:
        try:
            control.attach(found, process.pid)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.readline()
            yield found, process.pid
        finally:
            process.kill()


def has_memory(found: Mapping[str, str]) -> bool:
    """cgroup2 beside a version 1 has no controllers."""
    return os.path.exists(f"{found.get('memory') or found['']}/memory.stat")


def test_a_container(burning: tuple[dict[str, str], int], tmp_path: Path) -> None:
    found, pid = burning
    one = MadeUp("c1", labels={"a": "b"}, annotations={"x": "y"}, pid=pid, cgroup=found)

    async def run() -> None:
        async with serving(tmp_path, source=Source([one])) as node:

            async def stats() -> cri.ContainerStats:
                return (await node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id="c1"))).stats

            before = await stats()
            assert before.attributes == cri.ContainerAttributes(
                id="c1", metadata=one.metadata, labels=one.labels, annotations=one.annotations
            )
            assert 0 <= time.time_ns() - before.cpu.timestamp < 10**10
            await asyncio.sleep(1.2)
            now = await stats()
            used = now.cpu.usage_core_nano_seconds.value - before.cpu.usage_core_nano_seconds.value
            assert 10**8 < used < 3 * 10**9
            rate = used * 10**9 // (now.cpu.timestamp - before.cpu.timestamp)
            assert now.cpu.usage_nano_cores.value == pytest.approx(rate, rel=0.2)
            if has_memory(found):
                assert now.memory.timestamp == now.cpu.timestamp
                assert 40 * MIB < now.memory.rss_bytes.value <= now.memory.usage_bytes.value
                assert now.memory.working_set_bytes.value <= now.memory.usage_bytes.value
                assert not now.memory.HasField("available_bytes")
                assert now.memory.page_faults.value > 1000
                assert now.memory.HasField("major_page_faults")
                assert now.swap.HasField("swap_usage_bytes")

    asyncio.run(run())


def test_the_limit_says_what_is_available(cgroup: Cgroup, tmp_path: Path) -> None:
    found = cgroup("limited")
    if not has_memory(found):
        return
    name = "memory/memory.limit_in_bytes" if "memory" in found else "/memory.max"
    controller, _, file = name.partition("/")
    Path(found[controller], file).write_text(str(64 * MIB))

    async def run() -> None:
        async with serving(tmp_path, source=Source([MadeUp("c1", cgroup=found)])) as node:
            (one,) = (await node.runtime.ListContainerStats(cri.ListContainerStatsRequest())).stats
            assert one.memory.available_bytes.value + one.memory.working_set_bytes.value == 64 * MIB

    asyncio.run(run())


def test_filters(cgroup: Cgroup, tmp_path: Path) -> None:
    """Without one all that run; a label has to be there with that value; the beginning of an id will do."""
    containers = [
        MadeUp("aa1", "p1", {"app": "web", "tier": "1"}, cgroup=cgroup("1")),
        MadeUp("aa2", "p1", {"app": "web"}, cgroup=cgroup("2")),
        MadeUp("bb1", "p2", {"app": "db"}, cgroup=cgroup("3")),
        MadeUp("bb2", "p2", {"app": "db"}, is_running=False, cgroup=cgroup("4")),
        MadeUp("cc1", "p2", {"app": "db"}, cgroup={"": "/sys/fs/cgroup/none", "memory": "/sys/fs/cgroup/none"}),
    ]

    async def run() -> None:
        async with serving(tmp_path, source=Source(list(containers))) as node:
            Filter = cri.ContainerStatsFilter
            for wanted, names in (
                (None, ["aa1", "aa2", "bb1"]),
                (Filter(), ["aa1", "aa2", "bb1"]),
                (Filter(id="aa"), ["aa1", "aa2"]),
                (Filter(id="aa2"), ["aa2"]),
                (Filter(pod_sandbox_id="p2"), ["bb1"]),
                (Filter(label_selector={"app": "web"}), ["aa1", "aa2"]),
                (Filter(label_selector={"app": "web", "tier": "1"}), ["aa1"]),
                (Filter(label_selector={"app": "web", "tier": "2"}), []),
                (Filter(id="bb2"), []),
            ):
                found = (await node.runtime.ListContainerStats(cri.ListContainerStatsRequest(filter=wanted))).stats
                assert [one.attributes.id for one in found] == names, wanted
                streamed = node.runtime.StreamContainerStats(cri.StreamContainerStatsRequest(filter=wanted))
                parts = [answer.container_stats async for answer in streamed]
                assert [one.attributes.id for part in parts for one in part] == names
                assert all(parts)

    asyncio.run(run())


def test_what_is_not_there(tmp_path: Path) -> None:
    """A container that has ended says who it was, and what it has written."""

    async def run() -> None:
        source = Source([MadeUp("aa1", is_running=False), MadeUp("aa2", is_running=False)])
        async with serving(tmp_path, source=source) as node:
            ended = (await node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id="aa1"))).stats
            assert ended.attributes.id == "aa1"
            assert not ended.HasField("cpu")
            for identifier, code in (
                ("", grpc.StatusCode.INVALID_ARGUMENT),
                ("aa", grpc.StatusCode.INVALID_ARGUMENT),
                ("c", grpc.StatusCode.NOT_FOUND),
            ):
                with refused(code) as found:
                    await node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=identifier))
                assert found.text.startswith("container_id: ")
            with refused(grpc.StatusCode.NOT_FOUND) as found:
                await node.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id="p"))
            assert found.text.startswith("pod_sandbox_id: ")

    asyncio.run(run())


@pytest.fixture
def namespace() -> Iterator[tuple[str, int]]:
    """A network namespace with an interface that has moved something; its path, and a process in it."""
    with subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 600"], stdout=-1) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            pid = process.pid
            inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
            subprocess.run(["ip", "link", "add", "ocirt-test0", "type", "veth", "peer", "eth0", "netns", str(pid)], check=True)
            subprocess.run(["ip", "address", "add", "10.231.0.1/24", "dev", "ocirt-test0"], check=True)
            subprocess.run(["ip", "link", "set", "ocirt-test0", "up"], check=True)
            subprocess.run([*inside, "ip", "address", "add", "10.231.0.2/24", "dev", "eth0"], check=True)
            subprocess.run([*inside, "ip", "link", "set", "eth0", "up"], check=True)
            subprocess.run([*inside, "ip", "link", "add", "extra0", "type", "veth", "peer", "extra1"], check=True)
            subprocess.run([*inside, sys.executable, "-c", SEND], check=True)
            yield f"/proc/{pid}/ns/net", pid
        finally:
            subprocess.run(["ip", "link", "delete", "ocirt-test0"], check=False)
            process.kill()


def test_a_pod(burning: tuple[dict[str, str], int], namespace: tuple[str, int], cgroup: Cgroup, tmp_path: Path) -> None:
    """Without a cgroup of its own it uses what its containers use."""
    found, _ = burning
    containers = [
        MadeUp("c1", "p1", cgroup=found),
        MadeUp("c2", "p1", cgroup=cgroup("idle")),
        MadeUp("c3", "p1", is_running=False, cgroup=cgroup("ended")),
        MadeUp("c4", "p2", cgroup=cgroup("other")),
    ]
    pods = [
        MadeUpPod("p1", {"app": "web"}, {"x": "y"}, netns=namespace[0]),
        MadeUpPod("p2", netns=f"{tmp_path}/gone"),
        MadeUpPod("p3", is_ready=False),
    ]

    async def run() -> None:
        async with serving(tmp_path, source=Source(list(containers), list(pods))) as node:
            one = (await node.runtime.PodSandboxStats(cri.PodSandboxStatsRequest(pod_sandbox_id="p1"))).stats
            assert one.attributes == cri.PodSandboxAttributes(
                id="p1", metadata=pods[0].metadata, labels={"app": "web"}, annotations={"x": "y"}
            )
            assert [inner.attributes.id for inner in one.linux.containers] == ["c1", "c2"]
            sums = sum(inner.cpu.usage_core_nano_seconds.value for inner in one.linux.containers)
            assert one.linux.cpu.usage_core_nano_seconds.value == sums > 0
            assert one.linux.process.process_count.value == 1
            assert one.linux.cpu.timestamp > 0
            default = one.linux.network.default_interface
            assert default.name == "eth0"
            assert 20_000 < default.tx_bytes.value < 40_000
            assert default.HasField("rx_errors")
            assert sorted(other.name for other in one.linux.network.interfaces) == ["extra0", "extra1"]
            listed = (await node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest())).stats
            assert [pod.attributes.id for pod in listed] == ["p1", "p2"]
            assert not listed[1].linux.HasField("network")
            wanted = cri.PodSandboxStatsFilter(label_selector={"app": "web"})
            chosen = (await node.runtime.ListPodSandboxStats(cri.ListPodSandboxStatsRequest(filter=wanted))).stats
            assert [pod.attributes.id for pod in chosen] == ["p1"]
            streamed = node.runtime.StreamPodSandboxStats(cri.StreamPodSandboxStatsRequest())
            assert [pod.attributes.id async for part in streamed for pod in part.pod_sandbox_stats] == ["p1", "p2"]

    asyncio.run(run())


def test_a_pod_with_a_cgroup_of_its_own(burning: tuple[dict[str, str], int], tmp_path: Path) -> None:
    """Then that counts, also what is in none of its containers. Rates are by their own looks."""
    found, _ = burning
    whole = {controller: os.path.dirname(place) for controller, place in found.items()}
    source = Source([MadeUp("c1", "p1", cgroup=found)], [MadeUpPod("p1", cgroup=whole)])

    async def run() -> None:
        async with serving(tmp_path, source=source) as node:
            request = cri.PodSandboxStatsRequest(pod_sandbox_id="p1")
            await node.runtime.PodSandboxStats(request)
            await asyncio.sleep(1.2)
            linux = (await node.runtime.PodSandboxStats(request)).stats.linux
            assert linux.cpu.usage_core_nano_seconds.value >= linux.containers[0].cpu.usage_core_nano_seconds.value > 0
            assert linux.cpu.usage_nano_cores.value > 10**7
            assert linux.process.process_count.value == 1
            assert not linux.HasField("network")

    asyncio.run(run())


def test_interfaces_by_netlink_and_by_process(namespace: tuple[str, int]) -> None:
    """The same numbers; and the second look needs no other number for the namespace."""
    path, pid = namespace
    links = network.Links()
    for _ in range(3):
        assert {one.name: one for one in links.interfaces(path)} == {one.name: one for one in network.of_process(pid)}
    links.close()


def test_what_containers_have_written(tmp_path: Path) -> None:
    """By a process that takes one percent of a processor, however much there is to walk."""

    async def run() -> None:
        source = Source([MadeUp("c1", is_running=False)])
        async with serving(tmp_path, source=source) as node:
            assert node.layers.pid is None  # nothing to do, no process
            image = node.store.writables.create("ocirtd:test:c1", None)
            (image.path / "file").write_bytes(b"x" * 3 * MIB)
            many = node.store.writables.create("ocirtd:test:c2", None)
            await asyncio.to_thread(fill, many.path)
            await eventually(lambda: node.layers.get("c1") and node.layers.get("c2"), "both are walked", 60)
            (one,) = [(await node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id="c1"))).stats]
            assert one.writable_layer.fs_id.mountpoint == str(node.store.root)
            assert 3 * MIB <= one.writable_layer.used_bytes.value < 3.1 * MIB
            assert one.writable_layer.inodes_used.value == 2
            assert one.writable_layer.timestamp > 0
            (written,) = (await node.image.ImageFsInfo(cri.ImageFsInfoRequest())).container_filesystems
            assert written.inodes_used.value == 2 + 1 + 200 + 200 * 20
            node.store.writables.delete("ocirtd:test:c1")
            await eventually(lambda: node.layers.get("c1") is None, "it is forgotten")
            pid = node.layers.pid
            assert pid is not None
            before = used(pid)
            await asyncio.sleep(5)
            assert used(pid) - before < (0.01 * 5 + 0.1 + 0.05) * 10**9
        assert not os.path.exists(f"/proc/{pid}")  # noqa: ASYNC240

    asyncio.run(run())


def test_a_walker_that_is_killed(tmp_path: Path) -> None:
    """Another one follows; meanwhile the numbers are the last ones."""
    uppers = {"c1": Upper(tmp_path / "c1")}
    (tmp_path / "c1/fs").mkdir(parents=True)

    async def run() -> None:
        async with LayerUsage(lambda: uppers, again=0.5) as layers:
            await eventually(lambda: layers.get("c1"), "it is walked")
            first = layers.pid
            assert first is not None
            assert Path(f"/proc/{first}/oom_score_adj").read_text() == "500\n"  # noqa: ASYNC240
            os.kill(first, signal.SIGKILL)
            await eventually(lambda: layers.pid not in (None, first), "another one")
            assert layers.get("c1") is not None

    asyncio.run(run())


def fill(place: Path) -> None:
    for number in range(200):
        (place / str(number)).mkdir()
        for inner in range(20):
            (place / str(number) / str(inner)).touch()


def used(pid: int) -> int:
    """Nanoseconds of processor time."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
