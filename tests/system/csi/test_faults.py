"""What goes wrong around the driver, and what callers get wrong: each is said, nothing is followed, nothing is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ocirt_api import status
from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.driver import STATE
from ocirt_csi.errors import Error
from ocirt_csi.kernel import btrfs, filesystems, loops
from ocirt_csi.pools.pool import MARKER, PoolSettings
from tests.support.csi import MIB, MODES, NODE, Plugin, block, mounted, refused
from tests.support.isolation import mount, umount
from tests.system.csi.conftest import FILES, LIVE

ALL = pytest.mark.parametrize("way", LIVE, indirect=True)
WITH_FILES = pytest.mark.parametrize("way", FILES, indirect=True)
BAD_NAMES = ["", "a\0b", "a\nb", "x" * 129, "\ud7ff" * 100, "\u202e", "x" * (1 << 20)]
BAD_PATHS = ["", "relative", "/", "//", "/a/../b", "/a\0b", "/" + "x" * 5000]


@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_names_and_ids_that_are_none(plugin: Plugin, name: str) -> None:
    """Refused wherever they stand, before anything is made."""
    calls: list[tuple[str, dict[str, Any]]] = [
        ("CreateVolume", {"name": name, "volume_capabilities": [plugin.capability]}),
        ("DeleteVolume", {"volume_id": name}),
        ("CreateSnapshot", {"name": name, "source_volume_id": "x"}),
        ("CreateSnapshot", {"name": "x", "source_volume_id": name}),
        ("DeleteSnapshot", {"snapshot_id": name}),
        ("CreateVolumeGroupSnapshot", {"name": name, "source_volume_ids": ["x"]}),
        ("ControllerPublishVolume", {"volume_id": name, "node_id": NODE, "volume_capability": plugin.capability}),
        ("NodeStageVolume", {"volume_id": name, "staging_target_path": "/x", "volume_capability": plugin.capability}),
        ("NodePublishVolume", {"volume_id": name, "target_path": "/x", "volume_capability": plugin.capability}),
        ("NodeUnpublishVolume", {"volume_id": name, "target_path": "/x"}),
        ("NodeExpandVolume", {"volume_id": name, "volume_path": "/x"}),
        ("GetMetadataAllocated", {"snapshot_id": name}),
    ]
    for call, fields in calls:
        assert refused(lambda call=call, fields=fields: plugin.call(call, **fields)) == status.INVALID_ARGUMENT, call  # type: ignore[misc]
    assert plugin.left() == []


@pytest.mark.parametrize("name", ["../../etc", "a/b", ".", "..", "-rf", "%s", "'; DROP TABLE objects", "vol-é", "x" * 128])
def test_names_that_look_like_something(plugin: Plugin, name: str) -> None:
    """They are names, and nothing else: no path is made of them."""
    before = sorted(Path(plugin.pool.directory).parent.rglob("*"))
    volume = plugin.create(name)
    assert plugin.create(name).volume_id == volume.volume_id
    plugin.call("CreateSnapshot", name=name, source_volume_id=volume.volume_id)
    context = {"csi.storage.k8s.io/ephemeral": "true", "size": "24Mi"}
    place = plugin.publish(name, volume_context=context, staging_target_path="")
    plugin.call("NodeUnpublishVolume", volume_id=name, target_path=str(place))
    plugin.call("DeleteVolume", volume_id=volume.volume_id)
    for one in plugin.call("ListSnapshots").entries:
        plugin.call("DeleteSnapshot", snapshot_id=one.snapshot.snapshot_id)
    assert sorted(Path(plugin.pool.directory).parent.rglob("*")) == before


@pytest.mark.parametrize("path", BAD_PATHS, ids=range(len(BAD_PATHS)))
def test_paths_that_are_none(plugin: Plugin, path: str) -> None:
    volume = plugin.create("a").volume_id
    wanted = {"volume_id": volume, "volume_capability": plugin.capability}
    assert refused(lambda: plugin.call("NodeStageVolume", staging_target_path=path, **wanted)) == status.INVALID_ARGUMENT
    plugin.stage(volume)
    assert refused(lambda: plugin.publish(volume, staging_target_path=path)) == status.INVALID_ARGUMENT
    staging = plugin.staging(volume)
    target = lambda: plugin.call("NodePublishVolume", target_path=path, staging_target_path=staging, **wanted)  # noqa: E731
    assert refused(target) == status.INVALID_ARGUMENT
    assert refused(lambda: plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=path)) == status.INVALID_ARGUMENT
    plugin.call("NodeUnstageVolume", volume_id=volume, staging_target_path=staging)


CREATIONS: list[tuple[dict[str, Any], int]] = [
    ({"parameters": {"clas": "x"}}, status.INVALID_ARGUMENT),
    ({"parameters": {"class": "nowhere"}}, status.INVALID_ARGUMENT),
    ({"parameters": {"class": "../.."}}, status.INVALID_ARGUMENT),
    ({"parameters": {"x": "y" * 5000}}, status.INVALID_ARGUMENT),
    ({"mutable_parameters": {"compression": "gold"}}, status.INVALID_ARGUMENT),
    ({"mutable_parameters": {"readBps": "1"}}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": []}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [csi.VolumeCapability()]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(MODES.MULTI_NODE_MULTI_WRITER)]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(), block()]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(mount_flags=["loop=/dev/sda"])]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(fs_type="ext4", mount_flags=["data=ordered,ro"])]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(volume_mount_group="wheel")]}, status.INVALID_ARGUMENT),
    ({"volume_capabilities": [mounted(volume_mount_group="99999999999")]}, status.INVALID_ARGUMENT),
    (
        {"volume_content_source": csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id="x"))},
        status.NOT_FOUND,
    ),
    (
        {
            "accessibility_requirements": csi.TopologyRequirement(
                requisite=[csi.Topology(segments={"local.csi.ocirt/node": "other"})]
            )
        },
        status.RESOURCE_EXHAUSTED,
    ),
]


@pytest.mark.parametrize(("fields", "code"), CREATIONS, ids=range(len(CREATIONS)))
def test_volumes_that_cannot_be_had(plugin: Plugin, fields: dict[str, Any], code: int) -> None:
    assert refused(lambda: plugin.create("a", **fields)) == code
    assert plugin.left() == []


@ALL
def test_one_name_for_two_volumes(plugin: Plugin) -> None:
    """The second is told which field differs."""
    volume = plugin.create("a").volume_id
    other = plugin.create("b").volume_id
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=other))
    kind = mounted() if plugin.capability.HasField("block") else block()
    wrong: list[tuple[int, dict[str, Any], str]] = [
        (100 * MIB, {}, "capacity_range"),
        (64 * MIB, {"volume_content_source": source}, "volume_content_source"),
        (64 * MIB, {"volume_capabilities": [kind]}, "volume_capabilities"),
        (64 * MIB, {"parameters": {"class": "default"}}, "parameters"),
    ]
    for size, fields, field in wrong:
        with pytest.raises(Error, match=field) as caught:
            plugin.create("a", size, **fields)
        assert caught.value.code == "exists"
    plugin.call("CreateSnapshot", name="s", source_volume_id=volume)
    assert refused(lambda: plugin.call("CreateSnapshot", name="s", source_volume_id=other)) == status.ALREADY_EXISTS


@ALL
def test_targets_that_somebody_prepared(plugin: Plugin, tmp_path: Path) -> None:
    """A link is not followed, a file or a folder with something in it is not taken, a mount of somebody else's stays."""
    volume = plugin.create("a").volume_id
    plugin.stage(volume)
    victim = tmp_path / "victim"
    victim.mkdir()
    target = Path(plugin.target("pod"))
    target.symlink_to(victim)
    assert refused(lambda: plugin.publish(volume)) == status.INVALID_ARGUMENT
    assert not os.path.ismount(victim)
    plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(target))
    assert not os.path.lexists(target)
    assert victim.is_dir()
    if plugin.capability.HasField("block"):
        target.mkdir()
        assert refused(lambda: plugin.publish(volume)) == status.INVALID_ARGUMENT
        target.rmdir()
    else:
        target.write_text("mine")
        assert refused(lambda: plugin.publish(volume)) == status.INVALID_ARGUMENT
        unpublish = lambda: plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(target))  # noqa: E731
        assert refused(unpublish) == status.FAILED_PRECONDITION
        target.unlink()
        target.mkdir()
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    mount("tmpfs", str(target), "tmpfs", 0)
    assert refused(lambda: plugin.publish(volume)) == status.FAILED_PRECONDITION
    unpublish = lambda: plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(target))  # noqa: E731
    assert refused(unpublish) == status.FAILED_PRECONDITION
    umount(str(target))
    target.rmdir()
    place = plugin.publish(volume)
    mount("tmpfs", str(place), "tmpfs", 0) if place.is_dir() else mount("/dev/null", str(place), "", 0x1000)
    unpublish = lambda: plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(place))  # noqa: E731
    assert refused(unpublish) == status.FAILED_PRECONDITION
    umount(str(place))
    missing = lambda: plugin.call(  # noqa: E731
        "NodePublishVolume",
        volume_id=volume,
        target_path=str(tmp_path / "no" / "such"),
        staging_target_path=plugin.staging(volume),
        volume_capability=plugin.capability,
    )
    assert refused(missing) == status.NOT_FOUND
    plugin.end(volume)


@WITH_FILES
def test_mounts_that_somebody_took_away(plugin: Plugin) -> None:
    """The next attempt makes them again, health says so meanwhile, and the end is the same."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    (place / "file").write_text("x")
    umount(str(place), 0)
    umount(plugin.staging(volume), 0)
    health = plugin.call("NodeGetVolumeHealth", volume_id=volume, volume_publish_path=str(place)).volume_health
    assert [one.reason for one in health.health_statuses] == ["MountLost"]
    assert refused(lambda: plugin.publish(volume)) == status.FAILED_PRECONDITION
    plugin.use(volume)
    assert (place / "file").read_text() == "x"
    umount(str(place), 0)
    umount(plugin.staging(volume), 0)
    plugin.end(volume)
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


def test_publishing_what_is_not_staged(plugin: Plugin) -> None:
    volume = plugin.create("a").volume_id
    assert refused(lambda: plugin.publish(volume)) == status.FAILED_PRECONDITION
    other = plugin.create("b").volume_id
    staging = plugin.stage(other)
    assert refused(lambda: plugin.publish(volume, staging_target_path=staging)) == status.FAILED_PRECONDITION
    plugin.stage(volume)
    elsewhere = lambda: plugin.call(  # noqa: E731
        "NodeStageVolume", volume_id=volume, staging_target_path=plugin.staging("else"), volume_capability=plugin.capability
    )
    assert refused(elsewhere) == status.FAILED_PRECONDITION
    plugin.publish(volume)
    unstage = lambda: plugin.call("NodeUnstageVolume", volume_id=volume, staging_target_path=plugin.staging(volume))  # noqa: E731
    assert refused(unstage) == status.FAILED_PRECONDITION
    plugin.end(volume)
    plugin.call("NodeUnstageVolume", volume_id=other, staging_target_path=staging)


@ALL
def test_a_busy_target(plugin: Plugin) -> None:
    """Who has a file open is not cut off; once it is closed the next attempt succeeds."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    file = (place if place.is_block_device() else place / "file").open("w+b")
    with file:
        unpublish = lambda: plugin.call("NodeUnpublishVolume", volume_id=volume, target_path=str(place))  # noqa: E731
        assert refused(unpublish) == status.FAILED_PRECONDITION
    plugin.end(volume)


@ALL
def test_data_that_somebody_deleted(plugin: Plugin) -> None:
    """Health says so, by name; deletion still ends in nothing."""
    volume = plugin.create("a").volume_id
    assert plugin.parts is not None
    data = Path(plugin.pool.directory) / "volumes" / volume / "data"
    healthy = plugin.call("ControllerGetVolumeHealth", volume_id=volume).volume_health
    assert list(healthy.health_statuses) == []
    if data.is_dir():
        subprocess.run(["btrfs", "-q", "subvolume", "delete", data], check=True, stdout=subprocess.DEVNULL)
    else:
        data.unlink()
    health = plugin.call("ControllerListVolumeHealth").entries[0]
    assert [one.status for one in health.health_statuses] == [csi.DATA_LOSS]
    assert refused(lambda: plugin.stage(volume)) == status.UNKNOWN
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


@pytest.mark.parametrize("way", ["image", "shared-image"], indirect=True)
def test_a_file_system_that_somebody_else_holds_still(plugin: Plugin) -> None:
    """Nobody knows until when: no copy is made, and it stays as still as it was."""
    volume = plugin.create("a").volume_id
    staging = plugin.stage(volume)
    snapshot: Callable[[], object] = lambda: plugin.call("CreateSnapshot", name="s", source_volume_id=volume)  # noqa: E731
    filesystems.freeze(staging)
    try:
        assert refused(snapshot) == status.FAILED_PRECONDITION
        with pytest.raises(Error, match="holds its file system still"):
            filesystems.freeze(staging)
    finally:
        filesystems.thaw(staging)
    snapshot()
    plugin.end(volume)


def test_subvolumes_that_a_user_makes(plugin: Plugin) -> None:
    """They are told of, since no limit is theirs, and go with the volume, however deep they are."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    outside = plugin.create("b").volume_id
    for path in (place / "first", place / "folder" / "second", place / "first" / "third", place / "first" / "third" / "fourth"):
        path.parent.mkdir(exist_ok=True)
        btrfs.create(str(path.parent), path.name)
        (path / "file").write_text("x")
    (place / "first" / "link").symlink_to(Path(plugin.pool.directory) / "volumes" / outside)
    found = plugin.call("ControllerGetVolumeHealth", volume_id=volume).volume_health.health_statuses
    assert [(one.status, one.message.endswith(": 4")) for one in found] == [(csi.DEGRADED, True)]
    plugin.end(volume)
    plugin.call("DeleteVolume", volume_id=volume)
    assert [one for one in plugin.left() if volume in one] == []
    assert not plugin.call("ControllerGetVolumeHealth", volume_id=outside).volume_health.health_statuses
    plugin.call("DeleteVolume", volume_id=outside)
    assert plugin.left() == []


def test_a_pool_that_is_not_there(plugin: Plugin) -> None:
    """UNAVAILABLE with its path, and the same driver goes on once it is there again; nothing was made in its place."""
    volume = plugin.create("a").volume_id
    root = Path(plugin.pool.directory)
    away = root.with_name("away")
    root.rename(away)
    root.mkdir()
    for call in (lambda: plugin.create("b"), lambda: plugin.call("DeleteVolume", volume_id=volume), lambda: plugin.call("Probe")):
        assert refused(call) == status.UNAVAILABLE
    health = plugin.call("ControllerGetVolumeHealth", volume_id=volume).volume_health
    assert [one.status for one in health.health_statuses] == [csi.INACCESSIBLE]
    assert [one.status for one in plugin.call("NodeGetStorageHealth").backend_health] == [csi.STORAGE_UNREACHABLE]
    assert list(root.iterdir()) == []
    root.rmdir()
    away.rename(root)
    assert plugin.call("Probe").ready.value
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


def test_a_start_without_its_pool(plugin: Plugin) -> None:
    """A pool that is not mounted yet is not made anew in its place, as long as volumes are in it."""
    volume = plugin.create("a").volume_id
    plugin.stop()
    root = Path(plugin.pool.directory)
    away = root.with_name("away")
    root.rename(away)
    assert refused(plugin.start) == status.UNAVAILABLE
    assert not root.exists()
    away.rename(root)
    plugin.start()
    plugin.call("DeleteVolume", volume_id=volume)
    plugin.stop()
    root.rename(away)
    plugin.start()
    assert root.is_dir()
    away.joinpath(MARKER).unlink()
    away.joinpath("volumes").rmdir()
    away.joinpath("snapshots").rmdir()
    away.rmdir()


def test_a_pool_whose_parent_is_missing(plugin: Plugin, tmp_path: Path) -> None:
    """A file system that is not mounted is not replaced by a folder, and the other pool goes on. It comes back by itself."""
    plugin.stop()
    other = tmp_path / "not" / "mounted"
    plugin.pools = (PoolSettings(str(other), "other", "loop"),)
    plugin.start()
    wanted: dict[str, Any] = {"parameters": {"class": "other"}, "volume_capabilities": [block()]}
    assert refused(lambda: plugin.create("b", **wanted)) == status.UNAVAILABLE
    assert not other.parent.exists()
    assert plugin.call("Probe").ready.value
    assert [one.status for one in plugin.call("NodeGetStorageHealth").backend_health] == [csi.STORAGE_UNREACHABLE]
    plugin.call("DeleteVolume", volume_id=plugin.create("a").volume_id)
    other.parent.mkdir()
    plugin.call("DeleteVolume", volume_id=plugin.create("b", MIB, **wanted).volume_id)
    assert plugin.left() == []


def test_state_that_is_damaged(plugin: Plugin) -> None:
    """It is said, with what to do about it; nothing in the pool is touched."""
    volume = plugin.create("a").volume_id
    plugin.stop()
    state = Path(plugin.settings.state) / STATE
    state.write_bytes(b"not a database at all" * 1000)
    with pytest.raises(Error, match="fsck"):
        plugin.start()
    state.unlink()
    (Path(plugin.pool.directory) / MARKER).write_text("{")
    with pytest.raises(Error) as caught:
        plugin.start()
    assert caught.value.code == "corrupt"
    assert (Path(plugin.pool.directory) / "volumes" / volume / "data").is_dir()


def test_a_second_driver(plugin: Plugin) -> None:
    with pytest.raises(Error, match=str(os.getpid())):
        Plugin(plugin.work, plugin.pool, plugin.capability).start()


def test_a_reboot(plugin: Plugin) -> None:
    """Mounts are gone with the machine's life before, so nothing of them keeps a volume from being deleted."""
    volume = plugin.create("a").volume_id
    place = plugin.use(volume)
    umount(str(place), 0)
    umount(plugin.staging(volume), 0)
    assert plugin.parts is not None
    plugin.parts.driver.store.set_meta("boot", "another")
    plugin.restart()
    plugin.call("DeleteVolume", volume_id=volume)
    assert plugin.left() == []


@ALL
def test_a_hundred_at_once(plugin: Plugin) -> None:
    """A hundred calls for ten volumes: one volume for each name, and ABORTED for who came too early."""

    def make(number: int) -> str:
        while True:
            try:
                return plugin.create(f"volume {number % 10}", 16 * MIB).volume_id
            except Error as err:
                assert err.code == "unavailable", err

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(make, range(100)))
    assert len(set(ids)) == 10
    assert {one.volume.volume_id for one in plugin.call("ListVolumes").entries} == set(ids)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda one: plugin.call("DeleteVolume", volume_id=one), set(ids)))
    assert plugin.left() == []


@pytest.mark.parametrize("way", ["block"], indirect=True)
def test_no_loop_device_left(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    """RESOURCE_EXHAUSTED, and the next attempt succeeds."""
    volume = plugin.create("a").volume_id

    def free() -> str:
        raise Error("exhausted", "no loop device could be had")

    with monkeypatch.context() as patch:
        patch.setattr(loops, "_free", free)
        assert refused(lambda: plugin.stage(volume)) == status.RESOURCE_EXHAUSTED
    plugin.use(volume)
    plugin.end(volume)


def test_limits_of_a_node(plugin: Plugin) -> None:
    """As many volumes as it was told, and no more; the controller knows this node alone."""
    plugin.stop()
    plugin.most = 1
    plugin.start()
    wanted = {"node_id": NODE, "volume_capability": plugin.capability}
    volumes = [plugin.create(name).volume_id for name in "ab"]
    plugin.call("ControllerPublishVolume", volume_id=volumes[0], **wanted)
    second: Callable[[], object] = lambda: plugin.call("ControllerPublishVolume", volume_id=volumes[1], **wanted)  # noqa: E731
    assert refused(second) == status.RESOURCE_EXHAUSTED
    other = {**wanted, "readonly": True}
    assert refused(lambda: plugin.call("ControllerPublishVolume", volume_id=volumes[0], **other)) == status.ALREADY_EXISTS
    stranger = {**wanted, "node_id": "other"}
    assert refused(lambda: plugin.call("ControllerPublishVolume", volume_id=volumes[0], **stranger)) == status.NOT_FOUND
    assert refused(lambda: plugin.call("DeleteVolume", volume_id=volumes[0])) == status.FAILED_PRECONDITION
    plugin.call("ControllerUnpublishVolume", volume_id=volumes[0])
    plugin.call("ControllerPublishVolume", volume_id=volumes[1], **wanted)


def test_that_nothing_of_grpc_is_needed() -> None:
    """What a command does itself, without a driver that runs, loads no gRPC: that takes a moment at each start."""
    code = (
        "import sys, ocirt_csi.parts, ocirt_csi.cli.change; print(sorted(one for one in sys.modules if one.startswith('grpc')))"
    )
    places = os.pathsep.join(one for one in sys.path if one)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": places}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
