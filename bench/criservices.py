"""Measure ocirtd's images and statistics alone: `python bench/criservices.py [--images N] [--containers N]`, as root.

The services of both, over gRPC on a unix socket, in this process. Containers are made up: a cgroup each, with a process that
sleeps. Pods have no cgroup of their own, so that each is the sum of its container. Images have no layers: a list is a list.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / name) for name in ("api", "images", "cni", "cri"))]

from bench.measure import proportional_memory  # noqa: E402
from bench.run import machine  # noqa: E402
from ocirt.cgroups import control, paths  # noqa: E402
from ocirt.cgroups.layout import detect  # noqa: E402
from ocirt_api.cri import api_pb2 as cri  # noqa: E402
from ocirt_images import platforms  # noqa: E402
from tests.support import images  # noqa: E402
from tests.support.cri_services import MadeUp, MadeUpPod, Node, Source, eventually, put_image, serving  # noqa: E402
from tests.support.registry import LocalRegistry  # noqa: E402

ROUNDS = 50
Call = Callable[[], Awaitable[object]]
LABELS = {f"io.kubernetes.{name}": "a value of some length" for name in ("pod.name", "pod.namespace", "pod.uid", "container")}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500, help="in the store (default 500)")
    parser.add_argument("--containers", type=int, default=150, help="that run (default 150)")
    parser.add_argument("--place", type=Path, default=Path("/var/tmp"), help="where the store is made (default /var/tmp)")
    return parser.parse_args()


def row(what: str, samples: list[float]) -> None:
    """One line, in milliseconds."""
    found = sorted(sample * 1000 for sample in samples)
    p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
    print(f"{what:58} min {found[0]:7.2f}  median {median(found):7.2f}  p99 {p99:7.2f} ms", flush=True)


async def timed(call: Call, rounds: int = ROUNDS) -> list[float]:
    """Seconds that it takes, each time."""
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        await call()
        found.append(time.perf_counter() - before)
    return found


@contextmanager
def containers(count: int) -> Iterator[list[MadeUp]]:
    """So many, whose processes sleep."""
    layout = detect()
    base = f"/ocirt-bench-{os.getpid()}"
    found: list[MadeUp] = []
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            cgroup = paths.resolve(f"{base}/{number}", "", layout, rootless=False)
            control.create(cgroup)
            processes.append(subprocess.Popen(["sleep", "3600"]))
            control.attach(cgroup, processes[-1].pid)
            found.append(MadeUp(f"{number:064x}", f"pod-{number}", LABELS, LABELS, pid=processes[-1].pid, cgroup=cgroup))
        yield found
    finally:
        for process in processes:
            process.kill()
            process.wait()
        control.remove({"paths": paths.resolve(base, "", layout, rootless=False), "mode": layout.mode})


async def lists(node: Node, count: int) -> None:
    """Images from memory, and what of memory a change of the store costs."""
    for number in range(count):
        put_image(node.store, f"registry.example/team/app-{number}:v1.{number}", number)
    row(f"ListImages, {count}, the first time", await timed(node.list, 1))
    row(f"ListImages, {count}", await timed(node.list))
    row("ImageStatus by name", await timed(lambda: node.status(f"registry.example/team/app-{count // 2}:v1.{count // 2}")))

    async def after_a_change() -> None:
        put_image(node.store, "registry.example/changing:1", time.monotonic_ns())
        await node.list()

    row("an image is named (in this process) + ListImages", await timed(after_a_change))


async def statistics(node: Node, count: int) -> None:
    """Of all containers, and of their pods."""
    everything = cri.ListContainerStatsRequest()
    assert len((await node.runtime.ListContainerStats(everything)).stats) == count
    row(f"ListContainerStats, {count}", await timed(lambda: node.runtime.ListContainerStats(everything)))
    one = cri.ContainerStatsRequest(container_id=node.source.all_containers[0].id)
    row("ContainerStats", await timed(lambda: node.runtime.ContainerStats(one)))
    pods = cri.ListPodSandboxStatsRequest()
    row(f"ListPodSandboxStats, {count} of one container", await timed(lambda: node.runtime.ListPodSandboxStats(pods)))


async def pulls(node: Node, registry: LocalRegistry) -> None:
    """What the process that pulls costs, and the roots of containers."""
    here = {"os": "linux", "architecture": platforms.host().architecture}
    registry.add("app", images.image([images.random_layer(1, 50_000)], platform=here), "1")
    name = f"{registry.address}/app:1"
    row("PullImage of 50 KB, the process is to be started", await timed(lambda: node.pull(name), 1))

    async def again() -> None:
        await node.remove(name)
        await node.pull(name)

    row("RemoveImage + PullImage, the process is there", await timed(again, 10))
    row("PullImage of what is here", await timed(lambda: node.pull(name), 20))
    image = await node.images.catalog.get(name)
    numbers = iter(range(1000))
    row("the root of a container: made", await timed(lambda: node.roots.create(f"c{next(numbers)}", image)))
    await eventually(lambda: node.layers.get("c0"), "the walker has begun", 60)
    for what, pid in (("that pulls", node.images.worker_pid), ("that walks", node.layers.pid)):
        assert pid is not None
        print(f"{'the process ' + what:58} {proportional_memory(pid):.1f} MiB (PSS)", flush=True)
    numbers = iter(range(1000))
    row("                         removed", await timed(lambda: node.roots.remove(f"c{next(numbers)}")))


async def run(options: argparse.Namespace, place: Path) -> None:
    """All of it."""
    with containers(options.containers) as made, LocalRegistry() as registry:
        pods = [MadeUpPod(one.pod_id, LABELS) for one in made]
        async with serving(place, sync=True, source=Source(list(made), list(pods))) as node:
            await lists(node, options.images)
            await statistics(node, options.containers)
            await pulls(node, registry)


def main() -> None:
    """Print the table."""
    options = arguments()
    print(machine())
    os.environ["OCIRT_CERTS_D"] = "/nonexistent"
    with tempfile.TemporaryDirectory(dir=options.place) as directory:
        asyncio.run(run(options, Path(directory) / "store"))


if __name__ == "__main__":
    main()
