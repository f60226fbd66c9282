"""A power cut: what was answered is there after it, and what was not leaves nothing.

What the disk of state and pool has at that moment is kept, and everything else is forgotten: a copy of its file is mounted in
its place, and the driver started as after a reboot.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import parts
from ocirt_csi.model import Snapshot, Volume
from ocirt_csi.pools.pool import Pool, PoolSettings
from tests.support.csi import MIB, Plugin, block, disk, mounted
from tests.system.csi.test_lives import got, put

WAYS = {
    "subvolume": ("btrfs", mounted()),
    "image": ("ext4", mounted()),
    "image-xfs": ("xfs", mounted()),
    "shared-image": ("btrfs", mounted(fs_type="ext4")),
    "block": ("ext4", block()),
    "shared-block": ("btrfs", block()),
}
Cut = Callable[[], None]
TEXT = b"what is to be kept" * 1000


@pytest.fixture(params=WAYS)
def plugin(request: pytest.FixtureRequest, devices: None, no_leaks: list[Path], tmp_path: Path) -> Iterator[Plugin]:
    """A driver whose state and pool are on one disk."""
    kind, capability = WAYS[request.param]
    with disk(tmp_path, kind) as point:
        (point / "work").mkdir()
        made = Plugin(point / "work", PoolSettings(str(point / "pool")), capability)
        subprocess.run(["sync", "--file-system", point], check=True)
        made.start()
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture
def cut(plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cut:
    """Cut the power, and start again."""
    point = Path(plugin.pool.directory).parent
    image = tmp_path / f"{point.name}.disk"

    def work() -> None:
        kept = image.with_suffix(".cut")
        subprocess.run(["cp", "--sparse=always", image, kept], check=True)
        plugin.stop()
        subprocess.run(["umount", point], check=True)
        kept.rename(image)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
        monkeypatch.setattr(parts, "boot", lambda: f"the one with {image.stat().st_ino}")
        plugin.start()

    return work


def sound(plugin: Plugin) -> None:
    """Nothing is half done, the pool holds what the state knows, and notes say the same."""
    assert plugin.parts is not None
    driver = plugin.parts.driver
    pool = Path(plugin.pool.directory)
    assert {one.place for one in driver.store.all(Volume)} == {path.name for path in (pool / "volumes").iterdir()}
    assert {one.place for one in driver.store.all(Snapshot)} == {path.name for path in (pool / "snapshots").iterdir()}
    notes = {Path(one.place).name: one.thing for one in driver.pools["default"].notes()}
    for one in driver.store.things():
        owner = driver.pool_of(one)
        assert one.phase == "ready"
        assert notes[one.place] == one
        assert owner.back_end(one).damage(owner.place(one), one) == ""


def written(plugin: Plugin) -> str:
    """A volume with something in it."""
    volume = plugin.create("a").volume_id
    put(plugin.use(volume), TEXT)
    plugin.end(volume)
    return volume


def clone_of(kind: str, identifier: str) -> csi.VolumeContentSource:
    if kind == "snapshot":
        return csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=identifier))
    return csi.VolumeContentSource(volume=csi.VolumeContentSource.VolumeSource(volume_id=identifier))


def test_a_volume(plugin: Plugin, cut: Cut) -> None:
    """It can be used, after one cut and another: the first start has nothing to do but to believe its note."""
    volume = plugin.create("a").volume_id
    for _ in range(2):
        cut()
        sound(plugin)
    assert plugin.create("a").volume_id == volume
    place = plugin.use(volume)
    put(place, TEXT)
    assert got(place, len(TEXT)) == TEXT
    plugin.end(volume)


@pytest.mark.parametrize("kind", ["snapshot", "volume"])
def test_copies(plugin: Plugin, cut: Cut, kind: str) -> None:
    source = written(plugin)
    if kind == "snapshot":
        source = plugin.call("CreateSnapshot", name="s", source_volume_id=source).snapshot.snapshot_id
        cut()
        sound(plugin)
    copy = plugin.create("b", volume_content_source=clone_of(kind, source)).volume_id
    cut()
    sound(plugin)
    assert got(plugin.use(copy), len(TEXT)) == TEXT
    plugin.end(copy)


def test_a_size(plugin: Plugin, cut: Cut) -> None:
    """It counts at once, and for what is beside it: the note, the quota, the file."""
    volume = plugin.create("a").volume_id
    larger = csi.CapacityRange(required_bytes=100 * MIB)
    plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    cut()
    sound(plugin)
    (found,) = plugin.call("ListVolumes").entries
    assert found.volume.capacity_bytes == 100 * MIB


def test_a_size_that_came_to_the_disk_before_the_rest(plugin: Plugin, cut: Cut) -> None:
    """Another row that was waited for brought this one along."""
    volume = plugin.create("a").volume_id
    larger = csi.CapacityRange(required_bytes=100 * MIB)
    plugin.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    assert plugin.parts is not None
    plugin.parts.driver.store.set_meta("any", "thing")
    cut()
    sound(plugin)


def test_what_was_taken_away(plugin: Plugin, cut: Cut) -> None:
    volume = written(plugin)
    snapshot = plugin.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    plugin.call("DeleteSnapshot", snapshot_id=snapshot)
    plugin.call("DeleteVolume", volume_id=volume)
    cut()
    sound(plugin)
    assert plugin.left() == []


def test_what_was_not_answered(plugin: Plugin, cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its note a volume is nothing, and goes."""

    class Cut(Exception):
        """In the middle of it."""

    def stop(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "note", stop)
        patch.setattr(Pool, "remove", stop)
        with pytest.raises(Cut):
            plugin.create("a")
    subprocess.run(["sync", "--file-system", plugin.pool.directory], check=True)
    cut()
    sound(plugin)
    assert plugin.left() == []


def test_a_note_of_an_earlier_attempt_is_not_believed(plugin: Plugin, cut: Cut) -> None:
    """What was taken away under the same name may be there again after a power cut."""
    volume = plugin.create("a").volume_id
    assert plugin.parts is not None
    store = plugin.parts.driver.store
    made = store.get(Volume, volume)
    assert made is not None
    store.put(replace(made, phase="making", created=made.created + 1))
    cut()
    sound(plugin)
    assert plugin.left() == []
