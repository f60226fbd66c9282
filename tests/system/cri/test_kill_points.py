"""SIGKILL of ocirtd at its Nth change, in each call that makes or ends something: the retry succeeds, and nothing is left.

OCIRT_TEST_ALL_KILLS=1 tries every point, OCIRT_TEST_POINTS=N at most N of a call; else a few, evenly spread.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.images import Image
from tests.support.kills import EVERY, chosen
from tests.support.ocirtd import PATIENCE, Ocirtd, Wrapped
from tests.support.registry import LocalRegistry

pytestmark = [pytest.mark.ocirt_only("the daemon is ocirt's own"), pytest.mark.timeout(1800 if EVERY else 300)]

OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)
FEW = int(os.environ.get("OCIRT_TEST_POINTS", "6"))


class Counted(Wrapped):
    """A daemon that kills itself at a counted point."""

    module = "tests.support.killpoints"

    def arm(self, method: str, number: int) -> None:
        """Count from the next call of this method on, and die at this number (0: at none)."""
        (self.place / "arm").write_text(f"{method} {number}")

    def disarm(self) -> None:
        """Count no more."""
        (self.place / "arm").unlink(missing_ok=True)

    def killed(self, call: Callable[[], object]) -> bool:
        """Whether the call ended with the daemon, of which another is started."""
        assert self.process is not None
        try:
            call()
        except grpc.RpcError as err:
            assert err.code() == grpc.StatusCode.UNAVAILABLE, err
        else:
            self.disarm()
            return False
        assert self.process.wait(PATIENCE) == -signal.SIGKILL, self.log.read_text()
        self.disarm()
        self.disconnect()
        self.process = None
        self.start()
        return True


@dataclass
class Life:
    """One pod on its way: what each call of its life does, and what has to be so after its retry."""

    node: Ocirtd
    config: cri.PodSandboxConfig
    wanted: cri.ContainerConfig
    pod: str = ""
    box: str = ""
    done: list[str] = field(default_factory=list)

    def RunPodSandbox(self) -> None:
        self.pod = self.node.run_pod(self.config)
        assert [one.id for one in self.node.pods()] == [self.pod]
        assert self.node.pod_status(self.pod).state == cri.SANDBOX_READY

    def CreateContainer(self) -> None:
        self.box = self.node.create(self.pod, self.wanted)
        assert [one.id for one in self.node.containers()] == [self.box]

    def StartContainer(self) -> None:
        # A start is not to be repeated: who asks again is told that it runs.
        if self.node.status(self.box).state == cri.CONTAINER_CREATED:
            self.node.start_container(self.box)
        assert self.node.exec(self.box, "true").exit_code == 0

    def StopPodSandbox(self) -> None:
        self.node.stop_pod(self.pod)
        assert self.node.pod_status(self.pod).state == cri.SANDBOX_NOTREADY
        assert self.node.status(self.box).exit_code == 137

    def RemovePodSandbox(self) -> None:
        self.node.remove_pod(self.pod)
        assert self.node.pods() == self.node.containers() == []
        assert self.node.left() == []
        assert list(Path("/run/netns").iterdir()) == []
        assert list(Path("/var/lib/cni/networks").glob("*/10.*")) == []


CALLS = ("RunPodSandbox", "CreateContainer", "StartContainer", "StopPodSandbox", "RemovePodSandbox")


@pytest.fixture
def counted(networked: Counted) -> Iterator[Counted]:
    yield networked
    networked.disarm()


def _first(life: Life, name: str) -> None:
    """The call as a client makes it for the first time."""
    node = life.node
    if name == "RunPodSandbox":
        life.pod = node.run_pod(life.config)
    elif name == "CreateContainer":
        life.box = node.create(life.pod, life.wanted)
    elif name == "StartContainer":
        node.start_container(life.box)
    elif name == "StopPodSandbox":
        node.stop_pod(life.pod)
    else:
        node.remove_pod(life.pod)


def _live(node: Counted, victim: str, number: int) -> bool:
    """One pod's life, in which one call dies at a point. Whether it did."""
    life = Life(node, node.pod_config("pod", options=OWN), node.container_config("sleep", "1000"))
    killed = False
    for name in CALLS:
        if name == victim:
            node.arm(name, number)
            killed = node.killed(lambda name=name: _first(life, name))  # type: ignore[misc]
        getattr(life, name)()
    return killed


@pytest.mark.parametrize("networked", [Counted], indirect=True)
@pytest.mark.parametrize("victim", CALLS)
def test_each_change_of_a_call(counted: Counted, victim: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # the first makes folders that stay
        assert not _live(counted, victim, 0)
    names = (counted.place / "points").read_text().splitlines()
    points = list(enumerate(names, 1))
    tried = chosen(points, FEW)
    missed = [number for number, _ in tried if not _live(counted, victim, number)]
    with capsys.disabled():
        print(f"\n{victim}: killed at {len(tried) - len(missed)} of {len(points)} points", end=" ")
    # Threads run side by side, so the last points of one life may not be reached in another. Nor may those of a shim that was
    # made for whoever comes next.
    spare = sum(name.startswith("zygote shim") for name in names)
    assert len(missed) <= spare + max(1, len(tried) // 10), [names[number - 1] for number in missed]


@pytest.mark.parametrize("networked", [Counted], indirect=True)
def test_each_change_of_a_pull(counted: Counted, busybox: Image, capsys: pytest.CaptureFixture[str]) -> None:
    node = counted
    with LocalRegistry() as registry:
        registry.add("other", busybox, "1")
        registry.add("other", busybox, "2")
        names: list[str] = []
        tried: list[tuple[int, str]] = [(0, "")]
        missed = 0
        while tried:
            number, _ = tried.pop(0)
            for image in node.images.ListImages(cri.ListImagesRequest()).images:
                node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=image.id)), timeout=PATIENCE)
            node.arm("PullImage", number)
            if not node.killed(lambda: node.pull(registry, "other", "1")):
                missed += 1
            if not names:
                names = (node.place / "points").read_text().splitlines()
                tried = chosen(list(enumerate(names, 1)), FEW)
                count, missed = len(tried), 0
            made = node.pull(registry, "other", "1")
            assert [one.id for one in node.images.ListImages(cri.ListImagesRequest()).images] == [made]
            pod = node.run_pod()
            assert node.wait(node.run(pod, "true")).exit_code == 0
            node.remove_pod(pod)
            assert node.left() == []
    with capsys.disabled():
        print(f"\nPullImage: killed at {count - missed} of {len(names)} points", end=" ")
    assert missed <= max(1, count // 4)  # how often progress is told depends on the time
