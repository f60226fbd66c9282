"""A driver of volumes for tests, in their own process and without gRPC, and pools on disks of the tests' own."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.driver import Settings
from ocirt_csi.errors import Error, status_of
from ocirt_csi.kernel import loops
from ocirt_csi.kernel.projects import are_enforced
from ocirt_csi.parts import Parts
from ocirt_csi.pools.pool import MARKER, PoolSettings

T = TypeVar("T")

MIB = 1 << 20
NODE = "node-1"
MODES = csi.VolumeCapability.AccessMode
_LOOPS = 64  # devices that tests find; the names in /dev would count as left behind
_ADD, _REMOVE = 0x4C80, 0x4C81  # LOOP_CTL_ADD, LOOP_CTL_REMOVE
DISKS = {
    "btrfs": ("mkfs.btrfs", "-q"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard"),
    "ext4-projects": ("mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "nodiscard,quotatype=prjquota"),
    "xfs-projects": ("mkfs.xfs", "-q", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}


def add_loops() -> list[int]:
    """Make loop devices; those that were not there."""
    made = []
    with open("/dev/loop-control", "rb") as control:
        for number in range(_LOOPS):
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(control, _ADD, number)
                made.append(number)
    return made


def remove_loops(numbers: list[int]) -> None:
    """Take them away again, but for those that somebody has by now."""
    with open("/dev/loop-control", "rb") as control:
        for number in numbers:
            with contextlib.suppress(OSError):
                fcntl.ioctl(control, _REMOVE, number)


@contextlib.contextmanager
def disk(work: Path, kind: str, size: int = 2 << 30) -> Iterator[Path]:
    """A mounted file system in a file. Skips the test where it cannot be made or mounted."""
    words = DISKS[kind]
    if shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        pytest.skip(f"not installed: {words[0]}")
    image, point = work / f"{kind}.disk", work / kind
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*words, image], check=True, stdout=subprocess.DEVNULL)
    point.mkdir()
    options = "loop,prjquota" if kind.endswith("-projects") else "loop"
    done = subprocess.run(["mount", "-o", options, image, point], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here (this kernel may have no project quotas): {done.stderr.strip()}")
    if options != "loop" and not are_enforced(str(point)):
        subprocess.run(["umount", point], check=True)
        pytest.skip(f"this kernel has no project quotas for {kind}")
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        image.unlink()


def mounted(mode: int = MODES.SINGLE_NODE_WRITER, **words: Any) -> csi.VolumeCapability:
    """A capability with a file system."""
    return csi.VolumeCapability(access_mode=MODES(mode=mode), mount=csi.VolumeCapability.MountVolume(**words))  # type: ignore[arg-type]


def block(mode: int = MODES.SINGLE_NODE_WRITER) -> csi.VolumeCapability:
    """A capability with a block device."""
    return csi.VolumeCapability(access_mode=MODES(mode=mode), block=csi.VolumeCapability.BlockVolume())  # type: ignore[arg-type]


@dataclass
class Plugin:
    """A driver on one pool. capability: how its volumes are used; work: a folder for its state, staging paths and targets."""

    work: Path
    pool: PoolSettings
    capability: csi.VolumeCapability
    parts: Parts | None = None
    most: int = 0
    pools: tuple[PoolSettings, ...] = field(default=())
    identity: str = "none"  # of the pool

    @property
    def settings(self) -> Settings:
        """What it is started with."""
        return Settings(NODE, (self.pool, *self.pools), state=str(self.work / "state"), most=self.most, version="1")

    def start(self) -> Parts:
        """Start it. The folders above staging paths and targets are a CO's."""
        for name in ("staging", "pods"):
            (self.work / name).mkdir(exist_ok=True)
        self.parts = Parts(self.settings, serves=True)
        with contextlib.suppress(OSError, ValueError):  # a test may have damaged it
            self.identity = json.loads((Path(self.pool.directory) / MARKER).read_text())["id"]
        return self.parts

    def devices(self) -> dict[str, str]:
        """The pool's loop devices, by their marks. Another session of tests may have pools of its own."""
        return loops.all_marked(f"ocirt-csi:{self.identity}:")

    def stop(self) -> None:
        """End it."""
        if self.parts is not None:
            self.parts.close()
            self.parts = None

    def restart(self) -> None:
        """End it and start it again."""
        self.stop()
        self.start()

    def request(self, name: str, /, **fields: Any) -> Any:
        """The request of a call."""
        return getattr(csi, f"{name}Request")(**fields)

    def call(self, name: str, /, **fields: Any) -> Any:
        """The answer of a call; of one with many answers, all of them. Raises Error."""
        assert self.parts is not None
        method = next(getattr(one, name) for one in self.parts.services if hasattr(one, name))
        found = method(self.request(name, **fields))
        return list(found) if hasattr(found, "__next__") else found

    def create(self, name: str, size: int = 64 * MIB, **fields: Any) -> csi.Volume:
        """Make a volume."""
        fields.setdefault("volume_capabilities", [self.capability])
        found: csi.Volume = self.call(
            "CreateVolume", name=name, capacity_range=csi.CapacityRange(required_bytes=size), **fields
        ).volume
        return found

    def staging(self, volume: str) -> str:
        """A staging path, which is made."""
        path = self.work / "staging" / volume
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def target(self, name: str) -> str:
        """A target, whose parent is made."""
        path = self.work / "pods" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def stage(self, volume: str, capability: csi.VolumeCapability | None = None) -> str:
        """Stage a volume at its staging path."""
        path = self.staging(volume)
        wanted = capability or self.capability
        self.call("NodeStageVolume", volume_id=volume, staging_target_path=path, volume_capability=wanted)
        return path

    def publish(self, volume: str, name: str = "pod", capability: csi.VolumeCapability | None = None, **fields: Any) -> Path:
        """Publish a staged volume at a target."""
        path = self.target(name)
        fields.setdefault("staging_target_path", self.staging(volume))
        self.call(
            "NodePublishVolume", volume_id=volume, target_path=path, volume_capability=capability or self.capability, **fields
        )
        return Path(path)

    def use(self, volume: str, name: str = "pod") -> Path:
        """Stage and publish it."""
        self.stage(volume)
        return self.publish(volume, name)

    def end(self, volume: str, name: str = "pod") -> None:
        """Undo `use`."""
        self.call("NodeUnpublishVolume", volume_id=volume, target_path=self.target(name))
        self.call("NodeUnstageVolume", volume_id=volume, staging_target_path=self.staging(volume))

    def left(self) -> list[str]:
        """What is left: folders in the pool, loop devices, rows."""
        assert self.parts is not None
        found = [str(path) for folder in ("volumes", "snapshots") for path in (Path(self.pool.directory) / folder).iterdir()]
        found += self.devices()
        rows = self.parts.driver.store._objects.values()
        return found + [key for row in rows for key in row]


def refused(call: Callable[[], Any]) -> int:
    """The status with which a call is refused."""
    try:
        call()
    except (Error, OSError) as err:
        return status_of(err)
    pytest.fail("it was not refused")


def in_child(work: Callable[[], int]) -> int:
    """What a function returns that a child runs: its exit status, or the negative number of the signal that ended it."""
    pid = os.fork()
    if not pid:
        status = 99
        faulthandler.disable()  # a signal may be what the test is after
        try:
            status = work()
        except BaseException as err:  # noqa: BLE001  (nothing of pytest may run in the child)
            sys.stderr.write(f"{type(err).__name__}: {err}\n")
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
