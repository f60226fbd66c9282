"""The life of a volume, in each of the ways in which it can be kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ocirt_api import status
from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.kernel import mounts
from ocirt_csi.pools.devices import available
from tests.support.csi import MIB, MODES, NODE, Plugin, block, in_child, mounted, refused
from tests.support.isolation import Isolation, mount, umount
from tests.system.csi.conftest import FILES, LIVE, WAYS

SOME = pytest.mark.parametrize("way", LIVE, indirect=True)
ALL = pytest.mark.parametrize("way", WAYS, indirect=True)
WITH_FILES = pytest.mark.parametrize("way", FILES, indirect=True)


def put(place: Path, text: bytes) -> None:
    """Write into a volume, whatever it is."""
    with (place if stat.S_ISBLK(place.stat().st_mode) else place / "file").open(
        "r+b" if place.is_block_device() else "wb"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def got(place: Path, length: int) -> bytes:
    """Read it back."""
    with (place if place.is_block_device() else place / "file").open("rb") as file:
        return file.read(length)


def room(plugin: Plugin, volume: str, place: Path) -> int:
    """Bytes that a user of a volume can still have, or all of a block device."""
    usage = plugin.call("NodeGetVolumeStats", volume_id=volume, volume_path=str(place)).usage[0]
    return int(usage.total if place.is_block_device() else usage.available)


def near(found: int, wanted: int) -> bool:
    """Within two in a hundred."""
    return abs(found - wanted) <= wanted // 50


@ALL
def test_from_creation_to_deletion(plugin: Plugin) -> None:
    """Each call twice: the second finds what the first made. At the end nothing is left."""
    volume = plugin.create("a").volume_id
    assert plugin.create("a").volume_id == volume
    for _ in range(2):
        plugin.call(
            "ControllerPublishVolume", volume_id=volume, node_id=NODE, volume_capability=plugin.capability, readonly=False
        )
    for _ in range(2):
        place = plugin.use(volume)
    put(place, b"hello")
    assert got(place, 5) == b"hello"
    assert near(room(plugin, volume, place), 64 * MIB)
    assert refused(lambda: plugin.call("DeleteVolume", volume_id=volume)) == status.FAILED_PRECONDITION
    listed = plugin.call("ListVolumes").entries
    assert [(one.volume.volume_id, list(one.status.published_node_ids)) for one in listed] == [(volume, [NODE])]
    plugin.restart()
    assert got(place, 5) == b"hello"
    for _ in range(2):
        plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(place))
    assert not place.exists()
    for _ in range(2):
        plugin.call("NodeUnstageVolume", volume_id=volume, staging_target_path=plugin.staging(volume))
    for _ in range(2):
        plugin.call("ControllerUnpublishVolume", volume_id=volume, node_id=NODE)
    place = plugin.use(volume)
    assert got(place, 5) == b"hello"
    plugin.end(volume)
    for _ in range(2):
        plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


@SOME
def test_snapshots_and_what_is_made_of_them(plugin: Plugin) -> None:
    """What was written before a snapshot is in it; copies are volumes of their own, and may be larger."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    put(place, b"before")
    made = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot
    assert made.ready_to_use
    assert plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id == made.snapshot_id
    put(place, b"after!")
    of_snapshot = csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=made.snapshot_id))
    of_volume = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))
    restored = plugin.create("b", 80 * MIB, volume_content_source=of_snapshot)
    cloned = plugin.create("c", volume_content_source=of_volume)
    assert restored.content_source == of_snapshot
    size = lambda: plugin.create("d", 16 * MIB, volume_content_source=of_snapshot)  # noqa: E731
    assert refused(size) == status.OUT_OF_RANGE
    plugin.end(volume)
    plugin.call("DeleteVolume", volume_id=volume)
    for one, text, length in ((restored, b"before", 80), (cloned, b"after!", 64)):
        there = plugin.use(one.volume_id, one.volume_id)
        assert got(there, 6) == text
        put(there, b"theirs")
        assert near(room(plugin, one.volume_id, there), length * MIB)
        plugin.end(one.volume_id, one.volume_id)
        plugin.call("DeleteVolume", volume_id=one.volume_id)
    assert plugin.call("GetSnapshot", snapshot_id=made.snapshot_id).snapshot.source_volume_id == volume
    for _ in range(2):
        plugin.call("DeleteSnapshot", snapshot_id=made.snapshot_id)
    assert plugin.left() == []


@SOME
def test_groups(plugin: Plugin) -> None:
    """Snapshots of several volumes at once; they go together."""
    volumes = [plugin.create(name).volume_id for name in "ab"]
    for one in volumes:
        put(plugin.use(one, one), b"before")
    made = plugin.call("CreateVolumeGroupSnapshot", name="g", source_volume_ids=volumes).group_snapshot
    again = plugin.call("CreateVolumeGroupSnapshot", name="g", source_volume_ids=volumes).group_snapshot
    assert again == made
    assert {one.source_volume_id for one in made.snapshots} == set(volumes)
    wrong = lambda: plugin.call("CreateVolumeGroupSnapshot", name="g", source_volume_ids=volumes[:1])  # noqa: E731
    assert refused(wrong) == status.ALREADY_EXISTS
    ids = [one.snapshot_id for one in made.snapshots]
    assert refused(lambda: plugin.call("DeleteSnapshot", snapshot_id=ids[0])) == status.INVALID_ARGUMENT
    for _ in range(2):
        plugin.call("DeleteVolumeGroupSnapshot", group_snapshot_id=made.group_snapshot_id, snapshot_ids=ids)
    assert plugin.call("ListSnapshots").entries == []
    for one in volumes:
        plugin.end(one, one)
        plugin.call("DeleteVolume", volume_id=one)
    assert plugin.left() == []


@ALL
def test_expansion(plugin: Plugin) -> None:
    """A volume that is in use grows; a smaller size changes nothing."""
    volume = plugin.create("a").volume_id
    put(plugin.use(volume), b"kept")
    larger = csi.CapacityRange(required_bytes=96 * MIB)
    for _ in range(2):
        answer = plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
        assert answer.capacity_bytes == 96 * MIB
    smaller = csi.CapacityRange(required_bytes=MIB)
    assert plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=smaller).capacity_bytes == 96 * MIB
    limited = csi.CapacityRange(limit_bytes=MIB)
    too_small = lambda: plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=limited)  # noqa: E731
    assert refused(too_small) == status.OUT_OF_RANGE
    if answer.node_expansion_required:
        # An ext4 that is mounted grows with CAP_SYS_RESOURCE only; without it, when it is mounted the next time.
        plugin.end(volume)
    place = plugin.use(volume)
    plugin.call("NodeExpandVolume", volume_id=volume, volume_path=str(place), capacity_range=larger)
    assert got(place, 4) == b"kept"
    assert near(room(plugin, volume, place), 96 * MIB)
    if place.is_block_device():
        with place.open("rb") as file:
            assert file.seek(0, os.SEEK_END) == 96 * MIB
    plugin.end(volume)


def test_xfs_grows_while_it_is_used(plugin: Plugin) -> None:
    """And a clone of it is mounted beside it, though both have one identity."""
    plugin.capability = mounted(fs_type="xfs")
    if refused_without_program(plugin):
        pytest.skip("not installed: mkfs.xfs")
    volume = plugin.create("a", 300 * MIB).volume_id
    place = plugin.use(volume)
    put(place, b"kept")
    larger = csi.CapacityRange(required_bytes=500 * MIB)
    plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    plugin.call("NodeExpandVolume", volume_id=volume, volume_path=str(place), capacity_range=larger)
    assert near(room(plugin, volume, place), 500 * MIB)
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))
    clone = plugin.create("b", 500 * MIB, volume_content_source=source).volume_id
    assert got(plugin.use(clone, "clone"), 4) == b"kept"
    plugin.end(clone, "clone")
    plugin.end(volume)


def refused_without_program(plugin: Plugin) -> bool:
    """Whether this machine cannot make an xfs."""
    assert plugin
    return "xfs" not in available()


@WITH_FILES
def test_flags_readers_and_groups(plugin: Plugin) -> None:
    """Flags hold at the target from its first moment; who may only read cannot write; a group owns what is there."""
    volume = plugin.create("a").volume_id
    plugin.stage(volume, mounted(volume_mount_group="1234"))
    capability = mounted(MODES.SINGLE_NODE_MULTI_WRITER, mount_flags=["noexec", "nosuid", "nodev", "noatime"])
    place = plugin.publish(volume, "writer", capability)
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split()[4] == str(place))
    assert {"noexec", "nosuid", "nodev", "noatime", "rw"} <= set(line.split()[5].split(","))
    assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode) & 0o2070) == (1234, 0o2070)
    (place / "file").write_text("x")
    reader = plugin.publish(volume, "reader", mounted(MODES.SINGLE_NODE_MULTI_WRITER), readonly=True)
    assert (reader / "file").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        (reader / "other").write_text("y")
    plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(reader))
    plugin.end(volume, "writer")


@pytest.mark.parametrize("way", ["block", "shared-block"], indirect=True)
def test_who_may_only_read_a_block_device(plugin: Plugin) -> None:
    """It is another device, beside the one that can be written; it goes with its last user."""
    volume = plugin.create("a").volume_id
    writer = plugin.use(volume, "writer")
    put(writer, b"hello")
    reader = plugin.publish(volume, "reader", block(MODES.SINGLE_NODE_MULTI_WRITER), readonly=True)
    assert got(reader, 5) == b"hello"
    with pytest.raises(OSError, match="not permitted|Read-only"):
        put(reader, b"no")
    plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(reader))
    plugin.end(volume, "writer")
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


@WITH_FILES
def test_an_inline_volume(plugin: Plugin) -> None:
    """Made by its publication, of the size that the pod says, and gone with it."""
    context = {"csi.storage.k8s.io/ephemeral": "true", "size": "48Mi", "csi.storage.k8s.io/pod.name": "p"}
    for _ in range(2):
        place = plugin.publish("csi-12ab", volume_context=context, staging_target_path="")
    (place / "file").write_text("x")
    assert near(room(plugin, "csi-12ab", place), 48 * MIB)
    assert plugin.call("ListVolumes").entries == []
    for changed in ({**context, "size": "1Gi"}, {**context, "sise": "1"}):
        wrong = lambda changed=changed: plugin.publish("csi-12ab", volume_context=changed)  # noqa: E731
        assert refused(wrong) in (status.ALREADY_EXISTS, status.INVALID_ARGUMENT)
    for _ in range(2):
        plugin.call("NodeUnpublishVolume", volume_id="csi-12ab", target_path=str(place))
    assert not place.exists()
    assert plugin.left() == []


@ALL
def test_one_writer(plugin: Plugin) -> None:
    """SINGLE_NODE_SINGLE_WRITER has one target; other modes may have several on the node."""
    make = block if plugin.capability.HasField("block") else mounted
    alone, several = make(MODES.SINGLE_NODE_SINGLE_WRITER), make(MODES.SINGLE_NODE_MULTI_WRITER)
    volume = plugin.create("a").volume_id
    plugin.stage(volume)
    plugin.publish(volume, "one", alone)
    for other in (alone, several):
        assert refused(lambda other=other: plugin.publish(volume, "two", other)) == status.FAILED_PRECONDITION  # type: ignore[misc]
    plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=plugin.target("one"))
    for name in ("one", "two"):
        plugin.publish(volume, name, several)
    assert refused(lambda: plugin.publish(volume, "three", alone)) == status.FAILED_PRECONDITION
    assert refused(lambda: plugin.publish(volume, "one", several, readonly=True)) == status.ALREADY_EXISTS
    plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=plugin.target("two"))
    plugin.end(volume, "one")


def test_a_user_can_use_it(plugin: Plugin) -> None:
    """The root of a volume is open to all, as a fresh file system's is; its owner may give it away."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    os.chmod(place, 0o777)

    def work() -> int:
        os.chdir(place)
        os.setresuid(1000, 1000, 1000)
        Path("mine").write_text("x")
        return int(Path("mine").stat().st_uid != 1000)

    assert in_child(work) == 0
    plugin.end(volume)


@pytest.mark.parametrize("way", ["memory"], indirect=True)
def test_copies_of_what_is_in_memory(plugin: Plugin) -> None:
    """Of volumes that are not in use; a reboot ends a volume, which is said."""
    volume = plugin.create("a").volume_id
    put(plugin.use(volume), b"before")
    assert refused(lambda: plugin.call("CreateSnapshot", name="s", source_volume_id=volume)) == status.FAILED_PRECONDITION
    plugin.end(volume)
    snapshot = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    put(plugin.use(volume), b"after!")
    plugin.end(volume)
    source = csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=snapshot))
    clone = plugin.create("b", 80 * MIB, volume_content_source=source).volume_id
    place = plugin.use(clone)
    assert got(place, 6) == b"before"
    assert near(room(plugin, clone, place), 80 * MIB)
    plugin.end(clone)
    umount(f"{plugin.pool.directory}/volumes/{clone}/data", 0)
    health = plugin.call("ControllerGetVolumeHealth", volume_id=clone).volume_health
    assert [one.status for one in health.health_statuses] == [csi.DATA_LOSS]
    assert refused(lambda: plugin.stage(clone)) == status.DATA_LOSS
    for one in (volume, clone):
        plugin.call("DeleteVolume", volume_id=one)
    plugin.call("DeleteSnapshot", snapshot_id=snapshot)
    assert plugin.left() == []


@pytest.mark.parametrize("way", ["image"], indirect=True)
def test_btrfs_in_an_image(plugin: Plugin) -> None:
    """Of its size, larger while it is used, and its clone beside it, whose identity is its own."""
    plugin.capability = mounted(fs_type="btrfs")
    if "btrfs" not in available():
        pytest.skip("not installed: mkfs.btrfs")
    assert refused(lambda: plugin.create("a", 200 * MIB)) == status.OUT_OF_RANGE
    volume = plugin.create("a", 256 * MIB).volume_id
    place = plugin.use(volume)
    put(place, b"kept")
    assert near(room(plugin, volume, place), 256 * MIB)
    larger = csi.CapacityRange(required_bytes=320 * MIB)
    plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    plugin.call("NodeExpandVolume", volume_id=volume, volume_path=str(place), capacity_range=larger)
    assert near(room(plugin, volume, place), 320 * MIB)
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))
    clone = plugin.create("b", 320 * MIB, volume_content_source=source).volume_id
    there = plugin.use(clone, "clone")
    put(there, b"other")
    assert (got(place, 4), got(there, 5)) == (b"kept", b"other")
    plugin.end(clone, "clone")
    plugin.end(volume)
    for one in (volume, clone):
        plugin.call("DeleteVolume", volume_id=one)
    assert plugin.left() == []


@pytest.mark.parametrize("name", ["a b", "a\tb\n", "back\\slash", "num#ber", "ü", "\\040"])
def test_mounts_at_odd_paths(isolation: Isolation, no_leaks: list[Path], tmp_path: Path, name: str) -> None:
    """They are found at their own path alone."""
    assert isolation
    place, other = tmp_path / name, tmp_path / f"{name} other"
    for one in (place, other):
        one.mkdir()
        mount("tmpfs", str(one), "tmpfs", 0, "size=1m")
    try:
        (found,) = mounts.at(str(place))
        assert found.point == str(place)
        assert mounts.at(f"{place}x") == []
    finally:
        for one in (place, other):
            umount(str(one))
