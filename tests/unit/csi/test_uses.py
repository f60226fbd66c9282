"""Volumes at paths, with a table of mounts that is a test's own."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_csi import model
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.kernel import loops, mounts
from ocirt_csi.kernel.mounts import Mount
from ocirt_csi.model import Use, Volume
from ocirt_csi.pools.base import Origin
from ocirt_csi.pools.images import Images
from ocirt_csi.uses import Access, Uses
from ocirt_csi.volumes import Volumes
from tests.unit.csi import rig

ACCESS = Access(False, "", (), -1, 1, False, "")


class Table:
    """The mounts, and the loop devices by their marks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mounts: list[Mount] = []
        self.marks: dict[str, str] = {}
        monkeypatch.setattr(mounts, "table", lambda *_: self.mounts)
        monkeypatch.setattr(mounts, "take_away", self.take_away)
        monkeypatch.setattr(loops, "all_marked", lambda prefix: {k: v for k, v in self.marks.items() if k.startswith(prefix)})
        monkeypatch.setattr(loops, "mark_of", lambda device: next((k for k, v in self.marks.items() if v == device), ""))
        monkeypatch.setattr(loops, "detach", lambda device: self.marks.pop(next(k for k, v in self.marks.items() if v == device)))

    def put(self, path: Path, *, device: int = 99, root: str = "/") -> None:
        self.mounts.append(Mount(1, device, root, str(path), "ext4", ()))

    def take_away(self, path: str) -> None:
        self.mounts.remove([one for one in self.mounts if one.point == path][-1])


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Table:
    return Table(monkeypatch)


@pytest.fixture
def driver(tmp_path: Path, table: Table) -> Iterator[Driver]:
    made = rig.driver(tmp_path)
    yield made
    made.close()


@pytest.fixture
def uses(driver: Driver) -> Uses:
    return Uses(driver, Volumes(driver))


def test_an_inline_volume_goes_with_its_last_use(driver: Driver, uses: Uses, tmp_path: Path) -> None:
    """And not because somebody asks for it at another path."""
    volume = rig.volume(driver, "inline", ephemeral=True)
    for name in "ab":
        rig.use(driver, volume, str(tmp_path / name), staged=False)
    for name in "ca":
        uses.unpublish("inline", str(tmp_path / name))
        assert driver.store.get(Volume, "inline") is not None
    uses.unpublish("inline", str(tmp_path / "b"))
    assert driver.store.get(Volume, "inline") is None


@pytest.mark.parametrize("how", ["unpublish", "unstage", "undo"])
def test_a_use_whose_volume_is_gone(driver: Driver, uses: Uses, table: Table, tmp_path: Path, how: str) -> None:
    """It is unmounted and forgotten, and its device with it."""
    point, device = tmp_path / "point", tmp_path / "loop3"
    point.mkdir()
    device.touch()
    volume = rig.volume(driver, "v")
    use = rig.use(driver, volume, str(point), staged=how == "unstage")
    driver.store.delete(volume)
    table.put(point, root="/loop3")
    table.marks[f"ocirt-csi:{driver.pools['default'].id}:v"] = str(device)
    if how == "undo":
        uses.undo(use)
    else:
        getattr(uses, how)("v", str(point))
    assert (table.mounts, table.marks) == ([], {})
    assert driver.store.all(Use) == []
    assert point.exists() == (how == "unstage")


def test_a_small_inline_volume_is_published_twice(
    driver: Driver, uses: Uses, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is as large as the least, and the same size again is the same volume."""
    monkeypatch.setattr(Images, "charge", lambda *_: rig.MIB)
    monkeypatch.setattr(Images, "make", lambda *_: None)
    monkeypatch.setattr(Uses, "_publish", lambda _, volume, path, *__: rig.use(driver, volume, path, staged=False))
    for _ in range(2):
        uses.publish_inline("small", str(tmp_path / "target"), ACCESS, 1000, {"size": "1000"})
    assert driver.volume("small").size == rig.MIB
    with pytest.raises(Error, match="is another"):
        uses.publish_inline("small", str(tmp_path / "target"), ACCESS, 2 * rig.MIB, {"size": "1000"})


@pytest.mark.parametrize("phase", [model.READY, model.GROWING, model.REMOVING])
def test_no_inline_volume_in_a_volumes_place(driver: Driver, uses: Uses, tmp_path: Path, phase: str) -> None:
    volume = rig.volume(driver, "v", phase=phase, target=32 * rig.MIB)
    with pytest.raises(Error) as caught:
        uses.publish_inline("v", str(tmp_path / "target"), ACCESS, rig.MIB, {"size": "1Mi"})
    assert caught.value.code == "exists"
    assert driver.store.get(Volume, "v") == volume
    assert (tmp_path / "pool" / "volumes" / "v" / "data").exists()


def test_a_file_system_that_is_dead(
    driver: Driver, uses: Uses, table: Table, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It can be asked nothing any more, and is taken away all the same."""
    point, device = tmp_path / "point", tmp_path / "loop3"
    device.touch()
    volume = rig.volume(driver, "v")
    use = rig.use(driver, volume, str(point))
    table.put(point, device=os.stat(device).st_rdev)
    table.marks[f"ocirt-csi:{driver.pools['default'].id}:v"] = str(device)
    real = os.stat

    def stat(path: str, **words: bool) -> os.stat_result:
        if path == str(point):
            raise OSError(errno.EIO, "dead", path)
        return real(path, **words)

    monkeypatch.setattr(os, "stat", stat)
    assert uses.is_whole(use, volume)
    uses.unstage("v", str(point))
    assert (table.mounts, table.marks, driver.store.all(Use)) == ([], {}, [])


def test_a_block_volume_whose_device_was_taken(driver: Driver, uses: Uses, table: Table, tmp_path: Path) -> None:
    """The node that is bound at our path is ours; what is no such node is somebody else's."""
    point = tmp_path / "point"
    point.touch()
    volume = rig.volume(driver, "v", block=True, fs_type="")
    use = rig.use(driver, volume, str(point), staged=False)
    table.put(point, root="/loop3")
    assert not uses.is_whole(use, volume)
    table.put(point)
    with pytest.raises(Error, match="somebody else's"):
        uses.unpublish("v", str(point))
    table.take_away(str(point))
    uses.unpublish("v", str(point))
    assert (table.mounts, driver.store.all(Use), point.exists()) == ([], [], False)


def test_folders_are_known_by_their_place(table: Table) -> None:
    """In their own file system, wherever that is mounted, and though they were deleted."""
    table.mounts = [
        Mount(1, 1, "/", "/", "ext4", ()),
        Mount(2, 2, "/@", "/srv", "btrfs", ()),
        Mount(3, 3, "/hidden", "/srv/pool", "btrfs", ()),
        Mount(4, 2, "/@/deep", "/srv/pool", "btrfs", ()),
        Mount(5, 5, "/", "/srv/pool2", "btrfs", ()),
    ]
    origin = Origin("/srv/pool/of")
    mount = Mount(6, 2, "/@/deep/of/volumes/v/data", "/pod", "btrfs", ())
    path = "/srv/pool/of/volumes/v/data"
    assert origin.is_of(mount, path)
    assert origin.is_of(replace(mount, root=mount.root + "//deleted"), path)
    assert not origin.is_of(replace(mount, device=1), path)
    assert not origin.is_of(replace(mount, root="/@/deep/of/volumes/w/data"), path)
    table.mounts = table.mounts[:1]
    assert Origin("/srv/pool").is_of(Mount(6, 1, "/srv/pool/x", "/pod", "ext4", ()), "/srv/pool/x")
