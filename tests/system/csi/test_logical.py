"""Volumes of LVM, thin and thick, where the kernel has a device mapper."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_api import status
from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.errors import Error
from ocirt_csi.kernel import lvm
from ocirt_csi.model import Snapshot, Volume
from ocirt_csi.pools.pool import PoolSettings
from tests.support.csi import MIB, Plugin, block, mounted, refused
from tests.support.kills import chosen
from tests.system.csi import test_kills as kills

GROUP, THIN = "ocirt-test", "thin-pool"
SIZE = 64 * MIB
POINTS = 4  # at which each call is killed


@pytest.fixture(scope="module")
def group(devices: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A volume group with a thin pool, on a disk in a file."""
    subprocess.run(["modprobe", "-q", "-a", "dm-mod", "dm-thin-pool"], check=False)
    if why_not := lvm.is_there():
        pytest.skip(why_not)
    image = tmp_path_factory.mktemp("lvm") / "disk"
    with image.open("wb") as file:
        file.truncate(2 << 30)
    disk = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        lvm.run(["vgcreate", "--yes", "--quiet", GROUP, disk])
        try:
            size = ["--size", "600m", "--poolmetadatasize", "8m"]
            lvm.run(["lvcreate", "--yes", "--quiet", "--type", "thin-pool", *size, "--name", THIN, GROUP])
            yield GROUP
        finally:
            lvm.run(["vgremove", "--yes", "--quiet", "--force", GROUP])
    finally:
        subprocess.run(["losetup", "--detach", disk], check=True)
        for folder in ("/dev/mapper", f"/dev/{GROUP}"):
            assert not [one for one in Path(folder).glob("*") if one.name != "control"]


@pytest.fixture(params=["thin", "thick"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which of the two; a test says if it means one."""
    return str(request.param)


@pytest.fixture(params=["files", "block"])
def capability(request: pytest.FixtureRequest) -> csi.VolumeCapability:
    """How volumes are used."""
    return {"files": mounted(), "block": block(), "btrfs": mounted(fs_type="btrfs"), "xfs": mounted(fs_type="xfs")}[request.param]


@pytest.fixture
def plugin(group: str, kind: str, capability: csi.VolumeCapability, tmp_path: Path) -> Iterator[Plugin]:
    """A driver on it."""
    settings = PoolSettings(str(tmp_path / "pool"), group=group, thin=THIN if kind == "thin" else "")
    made = Plugin(tmp_path, settings, capability)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([one for one in points if one.startswith(str(tmp_path))]):
            subprocess.run(["umount", point], check=True)
        for device in made.devices().values():
            subprocess.run(["losetup", "--detach", device], check=True)
        for one in logical():
            lvm.remove(GROUP, one)


def logical() -> list[str]:
    """The group's volumes but for the pool."""
    return [one.name for one in lvm.volumes(GROUP) if one.name != THIN]


def put(place: Path, text: bytes) -> None:
    with (place if place.is_block_device() else place / "file").open("r+b" if place.is_block_device() else "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def got(place: Path, length: int) -> bytes:
    with (place if place.is_block_device() else place / "file").open("rb") as file:
        return file.read(length)


def fill(place: Path) -> int:
    """Bytes that can be written."""
    done = 0
    path = place if place.is_block_device() else place / "fill"
    try:
        with path.open("r+b" if place.is_block_device() else "wb", buffering=0) as file:
            while done < 4 * SIZE:
                done += file.write(b"x" * MIB)
                if not done % (16 * MIB):
                    os.fsync(file.fileno())
    except OSError as err:
        assert err.errno == errno.ENOSPC, err
    return done


def of_volume(volume: str) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))


def of_snapshot(snapshot: str) -> csi.VolumeContentSource:
    return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=snapshot))


def test_a_life(plugin: Plugin) -> None:
    """As large as it says, larger when it was expanded while it is used, and nothing left at the end."""
    volume = plugin.create("a", SIZE).volume_id
    assert plugin.create("a", SIZE).volume_id == volume
    place = plugin.use(volume)
    put(place, b"hello")
    larger = csi.CapacityRange(required_bytes=96 * MIB)
    plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    plugin.call("NodeExpandVolume", volume_id=volume, volume_path=str(place), capacity_range=larger)
    plugin.restart()
    assert got(place, 5) == b"hello"
    filled = fill(place)
    assert abs(filled - 96 * MIB) <= max(2 * MIB, 4 * MIB if place.is_block_device() else 0)
    assert refused(lambda: plugin.call("DeleteVolume", volume_id=volume)) == status.FAILED_PRECONDITION
    plugin.end(volume)
    assert lvm.device(GROUP, volume) is None
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []
    assert logical() == []


@pytest.mark.parametrize("kind", ["thin"], indirect=True)
def test_snapshots_and_clones(plugin: Plugin) -> None:
    """Of a volume that is in use, at once; all are volumes of their own."""
    volume = plugin.create("a", SIZE).volume_id
    place = plugin.use(volume)
    put(place, b"before")
    snapshot = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    put(place, b"after!")
    restored = plugin.create("b", 80 * MIB, volume_content_source=of_snapshot(snapshot)).volume_id
    cloned = plugin.create("c", SIZE, volume_content_source=of_volume(volume)).volume_id
    group = plugin.call("CreateVolumeGroupSnapshot", name="g", source_volume_ids=[volume, restored]).group_snapshot
    plugin.end(volume)
    plugin.call("DeleteVolume", volume_id=volume)
    for one, text in ((restored, b"before"), (cloned, b"after!")):
        there = plugin.use(one, one)
        assert got(there, 6) == text
        put(there, b"theirs")
        plugin.end(one, one)
    if plugin.capability.HasField("block"):
        answer = plugin.call("GetMetadataAllocated", snapshot_id=snapshot)
        assert answer[0].block_metadata[0].byte_offset == 0
        later = next(one.snapshot_id for one in group.snapshots if one.source_volume_id == volume)
        (page,) = plugin.call("GetMetadataDelta", base_snapshot_id=snapshot, target_snapshot_id=later)
        assert [one.byte_offset for one in page.block_metadata] == [0]
    for one in (restored, cloned):
        plugin.call("DeleteVolume", volume_id=one)
    plugin.call("DeleteSnapshot", snapshot_id=snapshot)
    plugin.call("DeleteVolumeGroupSnapshot", group_snapshot_id=group.group_snapshot_id)
    assert plugin.left() == []
    assert logical() == []


@pytest.mark.parametrize("kind", ["thick"], indirect=True)
def test_thick_volumes(plugin: Plugin) -> None:
    """No snapshots, and that is no secret; a clone is a copy; nobody reads what was there before."""
    names = {one.rpc.type for one in plugin.call("ControllerGetCapabilities").capabilities}
    assert csi.ControllerServiceCapability.RPC.CREATE_DELETE_SNAPSHOT not in names
    assert csi.ControllerServiceCapability.RPC.CLONE_VOLUME in names
    volume = plugin.create("a", SIZE).volume_id
    place = plugin.use(volume)
    put(place, b"secret" * 100)

    def clone() -> csi.Volume:
        return plugin.create("b", 80 * MIB, volume_content_source=of_volume(volume))

    assert refused(clone) == status.FAILED_PRECONDITION
    snapshot = lambda: plugin.call("CreateSnapshot", name="s", source_volume_id=volume)  # noqa: E731
    assert refused(snapshot) in (status.UNIMPLEMENTED, status.FAILED_PRECONDITION)
    plugin.end(volume)
    assert refused(snapshot) == status.UNIMPLEMENTED
    copied = clone().volume_id
    plugin.call("DeleteVolume", volume_id=volume)
    assert got(plugin.use(copied), 6) == b"secret"
    plugin.end(copied)
    plugin.call("DeleteVolume", volume_id=copied)
    if plugin.capability.HasField("block"):
        fresh = plugin.create("c", 2 * SIZE).volume_id
        there = plugin.use(fresh)
        assert got(there, 2 * SIZE) == bytes(2 * SIZE)
        plugin.end(fresh)
        plugin.call("DeleteVolume", volume_id=fresh)
    assert logical() == []


@pytest.mark.parametrize("capability", ["block"], indirect=True)
def test_promises(plugin: Plugin, kind: str) -> None:
    """Both figures are told; a pool that may promise twice what it has does."""
    total = plugin.call("GetCapacity", volume_capabilities=[block()]).available_capacity
    first = plugin.create("a", total * 3 // 4).volume_id
    with pytest.raises(Error, match=r"\d+ bytes are needed, and \d+ can be promised") as caught:
        plugin.create("b", total // 2)
    assert caught.value.code == "exhausted"
    grow = csi.CapacityRange(required_bytes=total * 3 // 2)
    assert (
        refused(lambda: plugin.call("ControllerExpandVolume", volume_id=first, capacity_range=grow)) == status.RESOURCE_EXHAUSTED
    )
    left = plugin.call("GetCapacity", volume_capabilities=[block()]).available_capacity
    assert abs(left - total // 4) <= 8 * MIB
    plugin.create("c", left)
    assert plugin.call("GetCapacity", volume_capabilities=[block()]).available_capacity == 0
    if kind == "thin":
        plugin.stop()
        plugin.pool = PoolSettings(plugin.pool.directory, group=GROUP, thin=THIN, over=2.0)
        plugin.start()
        plugin.create("d", total // 2)


@pytest.mark.parametrize("kind", ["thin"], indirect=True)
@pytest.mark.parametrize("capability", ["files"], indirect=True)
def test_a_state_that_was_lost(plugin: Plugin) -> None:
    """With the folder of notes: the volumes' tags say what they are. What is half made is freed, what is not ours stays."""
    volume = plugin.create("a", SIZE).volume_id
    put(plugin.use(volume), b"kept")
    plugin.end(volume)
    snapshot = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    assert plugin.parts is not None
    before = plugin.parts.driver.store.things()
    identity = plugin.parts.driver.pools["default"].id
    plugin.stop()
    half, stranger = "vol-" + "0" * 24, "vol-" + "1" * 24
    lvm.create(GROUP, half, SIZE, ["ocirt-csi", f"ocirt-csi.pool={identity}"], pool=THIN, active=False)
    lvm.create(GROUP, stranger, SIZE, [], pool=THIN, active=False)
    shutil.rmtree(plugin.pool.directory)
    shutil.rmtree(plugin.work / "state")
    pool = f"{plugin.pool.directory},vg={GROUP},thin={THIN}"
    command = Path(__file__).parents[3] / "build" / "ocirt-csi"
    words = [str(command), "--state", str(plugin.work / "state"), "--pool", pool]
    doctor = subprocess.run([*words, "doctor"], capture_output=True, text=True, check=False)
    assert f"logical volumes of the group {GROUP}, thin in its pool {THIN}" in doctor.stdout
    done = subprocess.run([*words, "fsck"], capture_output=True, text=True, check=False)
    assert done.stdout.count("adopted") == 2, done.stdout + done.stderr
    subprocess.run([*words, "gc"], capture_output=True, check=True)
    assert sorted(logical()) == sorted([volume, snapshot, stranger])
    plugin.start()
    assert [(one.id, one.name, one.size) for one in plugin.parts.driver.store.things()] == [
        (one.id, one.name, one.size) for one in before
    ]
    assert got(plugin.use(volume), 4) == b"kept"
    plugin.end(volume)


@pytest.mark.parametrize("kind", ["thin"], indirect=True)
@pytest.mark.parametrize("capability", ["btrfs"], indirect=True)
def test_a_clone_with_btrfs(plugin: Plugin) -> None:
    """It is mounted beside what it was made of, with an identity of its own: the kernel would take the two for one."""
    volume = plugin.create("a", 256 * MIB).volume_id
    place = plugin.use(volume)
    put(place, b"kept")
    clone = plugin.create("b", 256 * MIB, volume_content_source=of_volume(volume)).volume_id
    there = plugin.use(clone, "clone")
    assert got(there, 4) == b"kept"
    put(there, b"other")
    assert got(place, 4) == b"kept"
    plugin.end(clone, "clone")
    plugin.end(volume)


STEPS = (kills.create, kills.snapshot, kills.clone, kills.expand, kills.stage, kills.publish, kills.unstage, kills.delete)


@pytest.mark.parametrize("kind", ["thin"], indirect=True)
@pytest.mark.parametrize("capability", ["files"], indirect=True)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_killed_at_each_change(plugin: Plugin, step: kills.Step) -> None:
    """As of the other back ends: the next attempt gets what was asked for, and nothing is left."""
    plugin.stop()

    def prepared() -> None:
        plugin.start()
        for before in kills.STEPS[step]:
            before(plugin)
        plugin.stop()

    def undone() -> None:
        kills.take_away_all(plugin)
        assert plugin.left() == []
        assert logical() == []
        plugin.stop()

    prepared()
    number = kills.counted(plugin, step, 0)
    plugin.start()
    undone()
    for point in chosen(list(range(1, number + 1)), POINTS):
        prepared()
        if kills.counted(plugin, step, point) and point < number - 2:
            pytest.fail(f"{step.__name__} has not so many changes any more: {point}")
        plugin.start()
        kills.sound(plugin)
        assert plugin.parts is not None
        kept = {one.place for one in plugin.parts.driver.store.things() if isinstance(one, Volume | Snapshot)}
        assert set(logical()) == kept
        step(plugin)
        kills.sound(plugin)
        undone()
    plugin.start()
