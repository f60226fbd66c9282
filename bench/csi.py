"""Measure local volumes beside the hostpath driver: `build/venv/bin/python bench/csi.py --help`, as root.

It needs `make csi build/venv/ready`, mkfs.btrfs and mkfs.xfs, and the hostpath driver: hostpathplugin on PATH or in --hostpath,
or Go and its module. Without that ours is measured alone.

Each driver has a disk of its own, a file with holes on a loop device below --work, and is asked by the same client (grpcio):

- hostpath: its folders on an ext4
- btrfs: subvolumes; reflink: images with ext4 on an xfs that shares blocks; ext4: images with ext4 on an ext4

What is taken: CreateVolume + NodeStage + NodePublish, and the way back; CreateSnapshot and a clone (CreateVolume) of a volume
with so many bytes in it that nothing can compress; ControllerExpand + NodeExpand while it is used; 200 volumes created and
published; ListVolumes with 5,000; the driver's memory (PSS) at rest; what goes through a volume beside its pool's file system.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "api"), str(ROOT / "csi")]

import grpc  # noqa: E402

from bench.measure import proportional_memory  # noqa: E402
from bench.report import table, verdict  # noqa: E402
from bench.run import machine, write  # noqa: E402
from conformance.goprograms import hostpath as build_hostpath  # noqa: E402
from ocirt_api.csi import api_pb2 as csi  # noqa: E402
from tests.support.isolation import unshare  # noqa: E402

MIB = 1 << 20
SIZE = 64 * MIB
DISK = 40 << 30  # bytes of a disk, all holes
_CHUNK = 4 * MIB
_ROOM = 6  # how often what is copied has room on the disk for that
CLONE_NEW_NS = 0x20000
MAKE = {
    "btrfs": ("mkfs.btrfs", "-q", "-K"),
    "xfs": ("mkfs.xfs", "-q", "-K"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "nodiscard"),
}
# The issue of all this: the largest ratio to the hostpath driver.
COPIES = ("snapshot", "snapshot, on the disk", "clone", "clone, on the disk")
BUDGETS = {(row, name): most for row in COPIES for name, most in (("btrfs", 0.1), ("reflink", 0.1), ("ext4", 1.0))}
# hostpath answers when its clone is in memory: one that is on the disk is judged by when the other's is there.
del BUDGETS["clone", "ext4"]
_PATIENCE = 600.0


@dataclass
class Driver:
    """A driver that runs. fs_type: of its volumes."""

    name: str
    work: Path
    disk: Path
    fs_type: str = ""
    process: subprocess.Popen[bytes] | None = None
    channel: Any = None
    taken: dict[str, list[float]] = field(default_factory=dict)

    def start(self, argv: list[str]) -> None:
        """Start it, and wait until it answers."""
        with (self.work / "log").open("wb") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.channel = grpc.insecure_channel(
            f"unix:{self.work}/csi.sock", options=[("grpc.max_receive_message_length", 64 * MIB)]
        )
        self.call("Probe", csi.ProbeRequest())

    def stop(self) -> None:
        """End it."""
        assert self.process is not None
        self.channel.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)

    def call(self, name: str, request: Any) -> Any:
        """The answer of a call."""
        services = csi.DESCRIPTOR.services_by_name
        service = next(services[one] for one in ("Identity", "Controller", "Node") if name in services[one].methods_by_name)
        path = f"/{service.full_name}/{name}"
        answer = getattr(csi, f"{name}Response")
        call = self.channel.unary_unary(path, type(request).SerializeToString, answer.FromString)
        return call(request, timeout=_PATIENCE, wait_for_ready=True)

    def timed(self, row: str, action: Callable[[], Any]) -> Any:
        """What an action returns; its milliseconds are kept."""
        begin = time.perf_counter()
        found = action()
        self.taken.setdefault(row, []).append((time.perf_counter() - begin) * 1000)
        return found

    def copied(self, row: str, action: Callable[[], Any]) -> Any:
        """The same of a copy, and how long it takes until it would survive a power cut: not all drivers wait for that."""
        begin = time.perf_counter()
        found = self.timed(row, action)
        subprocess.run(["sync", "--file-system", self.disk], check=True)
        self.taken.setdefault(f"{row}, on the disk", []).append((time.perf_counter() - begin) * 1000)
        return found

    @property
    def capability(self) -> csi.VolumeCapability:
        """A file system for one node."""
        mode = csi.VolumeCapability.AccessMode(mode=csi.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
        return csi.VolumeCapability(access_mode=mode, mount=csi.VolumeCapability.MountVolume(fs_type=self.fs_type))

    def create(self, name: str, size: int = SIZE, source: csi.VolumeContentSource | None = None) -> str:
        """A volume's id."""
        request = csi.CreateVolumeRequest(name=name, volume_capabilities=[self.capability])
        request.capacity_range.required_bytes = size
        if source is not None:
            request.volume_content_source.CopyFrom(source)
        return str(self.call("CreateVolume", request).volume.volume_id)

    def publish(self, volume: str) -> Path:
        """Have a volume at a path."""
        staging, target = self.work / "staging" / volume, self.work / "targets" / volume
        for path in (staging, target.parent):
            path.mkdir(parents=True, exist_ok=True)
        words: Any = {"volume_id": volume, "staging_target_path": str(staging), "volume_capability": self.capability}
        self.call("NodeStageVolume", csi.NodeStageVolumeRequest(**words))
        self.call("NodePublishVolume", csi.NodePublishVolumeRequest(**words, target_path=str(target)))
        return target

    def end(self, volume: str) -> None:
        """Undo that."""
        target, staging = str(self.work / "targets" / volume), str(self.work / "staging" / volume)
        self.call("NodeUnpublishVolume", csi.NodeUnpublishVolumeRequest(volume_id=volume, target_path=target))
        self.call("NodeUnstageVolume", csi.NodeUnstageVolumeRequest(volume_id=volume, staging_target_path=staging))

    def delete(self, volume: str) -> None:
        """Take a volume away."""
        self.call("DeleteVolume", csi.DeleteVolumeRequest(volume_id=volume))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="samples of lives and expansions (default 20)")
    parser.add_argument("--copies", type=int, default=3, help="samples of snapshots and clones; 0: none (default 3)")
    parser.add_argument("--mib", type=int, default=1000, help="MiB in the volume that is copied (default 1000)")
    parser.add_argument("--many", type=int, default=200, help="volumes that are published at once (default 200)")
    parser.add_argument("--listed", type=int, default=5000, help="volumes of ListVolumes; 0: none (default 5000)")
    parser.add_argument("--throughput", type=int, default=512, help="MiB through each kind of volume; 0: none (default 512)")
    parser.add_argument("--only", default="hostpath,btrfs,reflink,ext4", help="which drivers (default: all)")
    parser.add_argument("--hostpath", type=Path, help="the hostpath driver's program")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the disks are made (default /var/tmp)")
    parser.add_argument("--write", action="store_true", help="write the tables to bench/RESULTS.md (the section csi)")
    return parser.parse_args()


@contextmanager
def disk(work: Path, kind: str, written: int) -> Iterator[Path]:
    """A mounted file system in a file, of so many bytes, or if 0 of a large one with holes.

    To fill a hole takes several times as long as to write where there are blocks: copies are not to be told apart by whose
    file system takes fresh ones.
    """
    image, point = work / "disk", work / "mnt"
    with image.open("wb") as file:
        for _ in range(written // _CHUNK):
            file.write(bytes(_CHUNK))
        os.fsync(file.fileno())
        file.truncate(written or DISK)
    subprocess.run([*MAKE[kind], image], check=True, stdout=subprocess.DEVNULL)
    point.mkdir()
    subprocess.run(["mount", "-o", "loop,nodiscard", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        image.unlink()


@contextmanager
def started(name: str, work: Path, hostpath: Path | None, written: int = 0) -> Iterator[Driver]:
    """A driver by its name, on a disk of its own; see there."""
    kind = {"hostpath": "ext4", "btrfs": "btrfs", "reflink": "xfs", "ext4": "ext4"}[name]
    work.mkdir()
    with disk(work, kind, written) as point:
        made = Driver(name, work, point, "" if name in ("btrfs", "hostpath") else "ext4")
        endpoint = ["--endpoint", f"unix://{work}/csi.sock"]
        if name == "hostpath":
            argv = [str(hostpath), *endpoint, "--nodeid", "n", "--statedir", str(point / "data")]
            (point / "data").mkdir()
        else:
            argv = [str(ROOT / "build" / "ocirt-csi"), *endpoint, "--node-id", "n", "--state", str(point / "state")]
            argv += ["--pool", f"{point}/pool,over=1", "--log-level", "error"]
        made.start(argv)
        try:
            yield made
        finally:
            made.stop()
            _unmount_below(work)


def _unmount_below(work: Path) -> None:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for one in reversed([one for one in points if one.startswith(f"{work}/") and one != f"{work}/mnt"]):
        subprocess.run(["umount", one], check=False)


def lives(drivers: list[Driver], number: int) -> None:
    """Volumes from creation to deletion, and expansions. The first two rounds are not counted."""
    for turn in range(-2, number):
        at = turn % len(drivers)
        for one in drivers[at:] + drivers[:at]:
            if turn == 0:
                one.taken.clear()
            volume = one.timed("create + publish", partial(_published, one, f"life-{turn}"))
            one.timed("expand", partial(_expand, one, volume))
            one.timed("end + delete", partial(_gone, one, volume))


def _published(driver: Driver, name: str) -> str:
    volume = driver.create(name)
    driver.publish(volume)
    return volume


def _gone(driver: Driver, volume: str) -> None:
    driver.end(volume)
    driver.delete(volume)


def _expand(driver: Driver, volume: str) -> None:
    request = csi.ControllerExpandVolumeRequest(volume_id=volume, capacity_range=csi.CapacityRange(required_bytes=2 * SIZE))
    request.volume_capability.CopyFrom(driver.capability)
    if not driver.call("ControllerExpandVolume", request).node_expansion_required:
        return
    path = driver.work / "targets" / volume
    expand = csi.NodeExpandVolumeRequest(volume_id=volume, volume_path=str(path), volume_capability=driver.capability)
    expand.capacity_range.required_bytes = 2 * SIZE
    expand.staging_target_path = str(driver.work / "staging" / volume)
    try:
        driver.call("NodeExpandVolume", expand)
    except grpc.RpcError as err:
        if err.code() != grpc.StatusCode.FAILED_PRECONDITION:  # an ext4, without CAP_SYS_RESOURCE
            raise


def copies(driver: Driver, mib: int, number: int) -> None:
    """Snapshots and clones of a volume with so much in it, which is in use."""
    volume = driver.create("full", mib * MIB * 5 // 4)
    path = driver.publish(volume)
    with (path / "file").open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))
    for turn in range(number):
        subprocess.run(["sync", "--file-system", driver.disk], check=True)
        request = csi.CreateSnapshotRequest(name=f"snapshot-{turn}", source_volume_id=volume)
        made = driver.copied("snapshot", partial(driver.call, "CreateSnapshot", request)).snapshot.snapshot_id
        driver.call("DeleteSnapshot", csi.DeleteSnapshotRequest(snapshot_id=made))
        cloned = driver.copied("clone", partial(driver.create, f"clone-{turn}", mib * MIB * 5 // 4, source))
        driver.delete(cloned)
    driver.end(volume)
    driver.delete(volume)


def crowd(driver: Driver, number: int) -> None:
    """So many volumes at once, of the smallest size that all of them can have."""
    row = f"{number} volumes created and published"
    made = driver.timed(row, lambda: [_published(driver, f"many-{one}") for one in range(number)])
    for volume in made:
        driver.end(volume)
        driver.delete(volume)


def lists(driver: Driver, number: int) -> None:
    """ListVolumes with so many volumes: all of them in one answer."""
    for one in range(number):
        driver.create(f"listed-{one}", MIB)
    for _ in range(10):
        answer = driver.timed(f"ListVolumes with {number}", lambda: driver.call("ListVolumes", csi.ListVolumesRequest()))
        assert len(answer.entries) == number


def through(driver: Driver, mib: int) -> dict[str, float]:
    """MiB a second of one large file, written and made durable, then read from the disk: of the pool's disk, and of a volume."""
    volume = driver.create("through", (mib + 64) * MIB)
    found = {}
    for where, folder in (("disk", driver.disk), ("volume", driver.publish(volume))):
        for verb, value in zip(("write", "read"), _moved(folder / "through", mib), strict=True):
            found[f"{verb} {where}"] = value
    driver.end(volume)
    driver.delete(volume)
    return found


def _moved(path: Path, mib: int) -> tuple[float, float]:
    """The best of three."""
    piece = os.urandom(MIB)
    best = [0.0, 0.0]
    for _ in range(3):
        begin = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(mib):
                file.write(piece)
            os.fsync(file.fileno())
        best[0] = max(best[0], mib / (time.perf_counter() - begin))
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            begin = time.perf_counter()
            while file.read(MIB):
                pass
        best[1] = max(best[1], mib / (time.perf_counter() - begin))
        path.unlink()
    return best[0], best[1]


def report(drivers: list[Driver], speeds: dict[str, dict[str, float]], memory: dict[str, float]) -> str:
    """All figures, and each ratio with its budget."""
    rows: list[list[str]] = []
    ratios: list[list[str]] = []
    peer = next((one for one in drivers if one.name == "hostpath"), None)
    for row in dict.fromkeys(row for one in drivers for row in one.taken):
        for one in drivers:
            values = one.taken.get(row)
            if not values:
                continue
            rows.append(
                [row, one.name, str(len(values)), *(f"{value:.1f}" for value in (min(values), statistics.median(values)))]
            )
            if peer is not None and one is not peer and peer.taken.get(row):
                ratio = statistics.median(values) / statistics.median(peer.taken[row])
                budget = BUDGETS.get((row, one.name))
                judged = verdict(ratio, budget) if budget is not None else ["", ""]
                ratios.append([row, one.name, f"{ratio:.3f}", *judged])
    parts = [table(["ms", "driver", "n", "min", "median"], rows)]
    if ratios:
        parts.append(table(["", "driver", "to hostpath", "budget", ""], ratios))
    if speeds:
        lines = []
        for name, found in speeds.items():
            lines.append([name])
            for verb in ("write", "read"):
                bare, ours = found[f"{verb} disk"], found[f"{verb} volume"]
                lines[-1] += [f"{bare:.0f}", f"{ours:.0f}", f"{ours / bare:.2f}"]
        head = ["MiB a second", "write: disk", "volume", "ratio", "read: disk", "volume", "ratio"]
        parts.append(table(head, lines))
    parts.append(table(["at rest", "MiB (PSS)"], [[name, f"{value:.1f}"] for name, value in memory.items()]))
    return "\n\n".join(parts)


def main() -> int:
    """Measure, print."""
    options = arguments()
    if os.geteuid():
        sys.exit("bench/csi.py needs root")
    names = options.only.split(",")
    hostpath: Path | None = options.hostpath
    if "hostpath" in names and hostpath is None:
        hostpath = build_hostpath()
        if hostpath is None:
            print("the hostpath driver cannot be had here: ours alone", file=sys.stderr)
            names.remove("hostpath")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))  # with all that was started
    unshare(CLONE_NEW_NS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["modprobe", "-q", "-a", "loop", "btrfs", "xfs"], check=False)
    work = Path(tempfile.mkdtemp(prefix="csi-", dir=options.work))
    speeds: dict[str, dict[str, float]] = {}
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work)
        drivers = [stack.enter_context(started(name, work / name, hostpath)) for name in names]
        time.sleep(2)
        for one in drivers:
            assert one.process is not None
            memory[one.name] = proportional_memory(one.process.pid)
        lives(drivers, options.rounds)
        for one in drivers:
            if options.copies:
                with started(one.name, work / f"{one.name}-written", hostpath, options.mib * MIB * _ROOM) as other:
                    other.taken = one.taken
                    copies(other, options.mib, options.copies)
            if options.many:
                crowd(one, options.many)
            if options.throughput:
                speeds[one.name] = through(one, options.throughput)
            if options.listed and one.name in ("hostpath", "btrfs"):
                lists(one, options.listed)
        text = (
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {options.rounds} rounds, {options.mib} MiB in what is copied"
        )
        text = f"## csi\n\n{text}\n\n{report(drivers, speeds, memory)}\n"
    print(text)
    if options.write:
        print(f"written: {write('csi', text)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
