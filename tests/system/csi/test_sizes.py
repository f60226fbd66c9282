"""How much a volume holds: as much as it says, for whoever writes and however. A pool never promises what it does not have."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt_api import status
from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.pools.pool import PoolSettings
from tests.support.csi import MIB, Plugin, in_child, mounted, refused
from tests.system.csi.conftest import FILES

SIZE = 100 * MIB
PIECE = os.urandom(MIB)  # nothing that could be compressed
FULL = (errno.ENOSPC, errno.EDQUOT)
WITH_FILES = pytest.mark.parametrize("way", FILES, indirect=True)


def fill(path: Path, most: int = 4 * SIZE) -> int:
    """Write until there is no more room; the bytes that went to the disk."""
    done = 0
    with path.open("wb", buffering=0) as file:
        try:
            while done < most:
                done += file.write(PIECE)
                os.fdatasync(file.fileno())
        except OSError as err:
            assert err.errno in FULL, err
    return done


def by_writing(place: Path) -> int:
    return fill(place / "file")


def by_a_user(place: Path) -> int:
    place.chmod(0o777)

    def work() -> int:
        os.chdir(place)
        os.setresuid(1000, 1000, 1000)
        return fill(Path("file")) // MIB  # fits into an exit status

    return in_child(work) * MIB


def by_allocation(place: Path) -> int:
    done = 0
    with (place / "file").open("wb") as file:
        try:
            while True:
                os.posix_fallocate(file.fileno(), done, MIB)
                done += MIB
        except OSError as err:
            assert err.errno in FULL, err
    return done


def by_filling_holes(place: Path) -> int:
    with (place / "file").open("wb", buffering=0) as file:
        file.truncate(4 * SIZE)
        done = 0
        try:
            while done < 4 * SIZE:
                written = os.pwrite(file.fileno(), PIECE, done)
                os.fdatasync(file.fileno())
                done += written
        except OSError as err:
            assert err.errno in FULL, err
    return done


def by_a_mapping(place: Path) -> int:
    """A page that there is no room for ends the process, or is refused when it goes to the disk."""

    def work() -> int:
        with (place / "file").open("w+b") as file:
            file.truncate(4 * SIZE)
            with mmap.mmap(file.fileno(), 4 * SIZE) as pages:
                for start in range(0, 4 * SIZE, MIB):
                    pages[start : start + MIB] = PIECE
                    pages.flush(start, MIB)
                    (place.parent / "count").write_text(str(start + MIB))
        return 0

    assert in_child(work) != 0
    return int((place.parent / "count").read_text())


def by_many_files(place: Path) -> int:
    done = 0
    try:
        while True:
            with (place / f"file-{done}").open("wb", buffering=0) as file:
                file.write(PIECE)
                os.fsync(file.fileno())
            done += 1
    except OSError as err:
        assert err.errno in FULL, err
    return done * MIB


@pytest.mark.parametrize(
    "how", [by_writing, by_a_user, by_allocation, by_filling_holes, by_a_mapping, by_many_files], ids=lambda how: how.__name__
)
@pytest.mark.parametrize("way", [*FILES, "memory"], indirect=True)
def test_a_volume_holds_its_size(plugin: Plugin, how: Callable[[Path], int]) -> None:
    """Two in a hundred more or less, and as much again once it was emptied."""
    volume = plugin.create("a", SIZE).volume_id
    place = plugin.use(volume)
    assert abs(how(place) - SIZE) <= SIZE // 50
    plugin.end(volume)


@WITH_FILES
def test_snapshots_and_clones_hold_it_too(plugin: Plugin) -> None:
    """A volume whose blocks a snapshot shares can be written over as a whole; a clone has its size for itself."""
    volume = plugin.create("a", SIZE).volume_id
    place = plugin.use(volume)
    fill(place / "file", SIZE * 9 // 10)
    plugin.call("CreateSnapshot", name="s", source_volume_id=volume)
    with (place / "file").open("r+b", buffering=0) as file:
        for _ in range(SIZE * 9 // 10 // MIB):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))
    clone = plugin.use(plugin.create("b", 2 * SIZE, volume_content_source=source).volume_id, "clone")
    assert abs(fill(clone / "more") + SIZE * 9 // 10 - 2 * SIZE) <= SIZE // 25
    (place / "file").unlink()
    assert abs(fill(place / "other") - SIZE) <= SIZE // 50


def test_a_subvolume_grows_while_it_is_full(plugin: Plugin) -> None:
    volume = plugin.create("a", SIZE).volume_id
    place = plugin.use(volume)
    done = fill(place / "file")
    larger = csi.CapacityRange(required_bytes=SIZE + 50 * MIB)
    assert not plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger).node_expansion_required
    assert abs(done + fill(place / "more") - SIZE - 50 * MIB) <= SIZE // 50
    plugin.end(volume)


@WITH_FILES
def test_a_pool_promises_what_it_has(plugin: Plugin) -> None:
    """GetCapacity is what can be made, and no more; what is refused leaves nothing."""
    wanted = {"volume_capabilities": [plugin.capability]}
    free = plugin.call("GetCapacity", **wanted).available_capacity
    assert free > 10 * SIZE
    first = plugin.create("a", free // 2)
    assert abs(plugin.call("GetCapacity", **wanted).available_capacity - free // 2) < free // 20
    before = plugin.left()
    for name in ("b", "b"):
        assert refused(lambda name=name: plugin.create(name, free * 2 // 3)) == status.RESOURCE_EXHAUSTED  # type: ignore[misc]
    assert plugin.left() == before
    larger = csi.CapacityRange(required_bytes=free + SIZE)
    grow = lambda: plugin.call("ControllerExpandVolume", volume_id=first.volume_id, capacity_range=larger)  # noqa: E731
    assert refused(grow) == status.RESOURCE_EXHAUSTED
    rest = plugin.call("GetCapacity", **wanted).available_capacity
    plugin.create("c", rest)
    assert plugin.call("GetCapacity", **wanted).available_capacity < SIZE // 10
    for one in plugin.call("ListVolumes").entries:
        plugin.call("DeleteVolume", volume_id=one.volume.volume_id)
    assert abs(plugin.call("GetCapacity", **wanted).available_capacity - free) < free // 20
    plugin.create("d", free * 9 // 10)


def test_a_snapshot_needs_room_for_what_is_written_over(plugin: Plugin) -> None:
    free = plugin.call("GetCapacity", volume_capabilities=[plugin.capability]).available_capacity
    volume = plugin.create("a", free * 9 // 10).volume_id
    place = plugin.use(volume)
    fill(place / "file", SIZE * 4)
    assert refused(lambda: plugin.call("CreateSnapshot", name="s", source_volume_id=volume)) == status.RESOURCE_EXHAUSTED
    assert plugin.call("ListSnapshots").entries == []
    (place / "file").unlink()
    plugin.call("CreateSnapshot", name="s", source_volume_id=volume)


@WITH_FILES
def test_a_copy_takes_what_it_takes(plugin: Plugin, way: str) -> None:
    """Where blocks are shared, both may come to need all of theirs; a copy that has its own needs no more than its size."""
    free = plugin.call("GetCapacity", volume_capabilities=[plugin.capability]).available_capacity
    volume = plugin.create("a", free * 45 // 100).volume_id
    fill(plugin.use(volume) / "file", 4 * SIZE)
    source = csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=volume))

    def clone() -> object:
        return plugin.create("b", free * 45 // 100, volume_content_source=source)

    if way == "image":
        clone()
    else:
        assert refused(clone) == status.RESOURCE_EXHAUSTED


@WITH_FILES
def test_a_pool_that_may_promise_more_than_it_has(plugin: Plugin) -> None:
    """By the factor that was named, and no further."""
    free = plugin.call("GetCapacity", volume_capabilities=[plugin.capability]).available_capacity
    plugin.stop()
    plugin.pool = PoolSettings(plugin.pool.directory, over=3.0)
    plugin.start()
    plugin.create("a", free * 2)
    assert refused(lambda: plugin.create("b", free * 2)) == status.RESOURCE_EXHAUSTED
    place = plugin.use(plugin.create("c", SIZE).volume_id)
    assert abs(fill(place / "file") - SIZE) <= SIZE // 50


def test_sizes_that_cannot_be_had(plugin: Plugin) -> None:
    """Each is refused by its code, and nothing is left."""

    def make(required: int, limit: int = 0, capability: csi.VolumeCapability | None = None) -> Callable[[], object]:
        given = csi.CapacityRange(required_bytes=required, limit_bytes=limit)
        kinds = [capability or plugin.capability]
        return lambda: plugin.call("CreateVolume", name="a", capacity_range=given, volume_capabilities=kinds)

    assert refused(make(-1)) == status.INVALID_ARGUMENT
    assert refused(make(2, 1)) == status.OUT_OF_RANGE
    assert refused(make(1, 1000)) == status.OUT_OF_RANGE
    assert refused(make((1 << 63) - 1)) == status.RESOURCE_EXHAUSTED
    assert refused(make(MIB, capability=mounted(fs_type="ext4"))) == status.OUT_OF_RANGE
    assert refused(make(MIB, capability=mounted(fs_type="ntfs"))) == status.INVALID_ARGUMENT
    assert plugin.left() == []
