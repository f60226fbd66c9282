"""Loop devices that a fresh start lets go of, and those that it does not; and pools that another state has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt_csi import locks, recovery
from ocirt_csi.errors import Error
from ocirt_csi.kernel import loops, mounts
from ocirt_csi.pools.images import Images
from tests.unit.csi import rig


def _mount(point: str, *, device: int = 99, root: str = "/") -> mounts.Mount:
    return mounts.Mount(1, device, root, point, "ext4", ())


def test_devices_that_nothing_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state that was lost knows nothing of what pods have, and one that was made again knows no paths."""
    names = ("used", "idle", "unknown", "mounted", "bound")
    devices = {str(tmp_path / f"loop{number}"): name for number, name in enumerate(names)}
    for path in devices:
        Path(path).touch()
    driver = rig.driver(tmp_path)
    for name in names:
        if name != "unknown":
            rig.volume(driver, name)
    volume = driver.volume("used")
    rig.use(driver, volume, "/staging")
    detached: list[str] = []
    table = [_mount("/pod", device=7 << 8), _mount("/raw", root="/loop4")]
    real = os.stat

    class _Node:
        st_rdev = 7 << 8

    monkeypatch.setattr(os, "stat", lambda path, **words: _Node() if str(path).endswith("loop3") else real(path, **words))
    monkeypatch.setattr(mounts, "table", lambda *_: table)
    monkeypatch.setattr(Images, "marks", lambda _: devices)
    monkeypatch.setattr(loops, "detach", lambda device: detached.append(devices[device]))
    recovery.release_ownerless(driver)
    monkeypatch.undo()
    driver.close()
    assert detached == ["idle"]


def test_a_pool_has_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is told so, and can have it later; two classes of one driver may be of one folder."""
    monkeypatch.setattr(locks, "_MOMENT", 0.0)
    first = rig.driver(tmp_path, fast=tmp_path / "pool", slow=tmp_path / "pool")
    with pytest.raises(Error, match="another state has this pool") as caught:
        rig.driver(tmp_path, "other")
    assert caught.value.code == "in-use"
    first.close()
    rig.driver(tmp_path, "other").close()
