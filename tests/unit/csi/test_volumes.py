"""Copies of volumes whose file system is held still meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_csi.driver import Driver
from ocirt_csi.errors import BusyError
from ocirt_csi.kernel import filesystems
from ocirt_csi.pools import devices
from ocirt_csi.pools.images import Images
from ocirt_csi.volumes import Volumes, Wanted
from tests.unit.csi import rig


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    monkeypatch.setattr(devices, "is_available", lambda fs_type: fs_type == "ext4")
    made = rig.driver(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("is_used", [True, False])
def test_one_clone_of_a_volume_in_use_at_a_time(driver: Driver, monkeypatch: pytest.MonkeyPatch, is_used: bool) -> None:
    """Or the second would copy a file system that is written to again once the first is done. Of one at rest any number."""
    volumes = Volumes(driver)
    source = rig.volume(driver, "source")
    if is_used:
        rig.use(driver, source, "/staging")
    held: list[str] = []
    monkeypatch.setattr(filesystems, "freeze", held.append)
    monkeypatch.setattr(filesystems, "thaw", held.remove)
    wanted = ("volume", source.id)
    outcomes: list[str] = []

    def copy(*_: object) -> None:
        assert held == (["/staging"] if is_used else [])
        if not outcomes:
            outcomes.append("first")
            try:
                volumes.create(Wanted(name="second", source=wanted, required=16 << 20))
                outcomes.append("second")
            except BusyError:
                outcomes.append("refused")
            assert held == (["/staging"] if is_used else [])

    monkeypatch.setattr(Images, "copy", copy)
    volumes.create(Wanted(name="first", source=wanted, required=16 << 20))
    assert outcomes == ["first", "refused" if is_used else "second"]
    assert held == []


def test_a_thaw_that_fails_leaves_no_other_frozen(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [rig.volume(driver, name) for name in ("a", "b", "c")]
    for one in volumes:
        rig.use(driver, one, f"/{one.id}")
    thawed: list[str] = []

    def thaw(point: str) -> None:
        thawed.append(point)
        if point == "/c":
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(filesystems, "freeze", lambda _: None)
    monkeypatch.setattr(filesystems, "thaw", thaw)
    with pytest.raises(OSError, match="broken"), Volumes(driver).still(*volumes):
        pass
    assert sorted(thawed) == ["/a", "/b", "/c"]
