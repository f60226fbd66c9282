"""Pools that cannot be used, at the start or later."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, extents, filesystems
from ocirt_csi.pools.pool import MARKER, Pool, PoolSettings
from tests.unit.csi import rig


def test_a_pool_in_trouble_keeps_no_other_from_it(tmp_path: Path) -> None:
    """The default stays the default, and what is in trouble is tried again each time."""
    missing = tmp_path / "not" / "mounted"
    driver = rig.driver(tmp_path, slow=missing, fast=tmp_path / "pool")
    assert driver.default == "slow"
    assert list(driver.pools) == ["fast"]
    with pytest.raises(Error) as caught:
        driver.pool("slow")
    assert caught.value.code == "unavailable"
    with pytest.raises(Error) as caught:
        driver.pool("other")
    assert caught.value.code == "invalid"
    missing.parent.mkdir()
    assert driver.pool("slow").root == str(missing)
    driver.close()


def test_a_start_without_any_pool(tmp_path: Path) -> None:
    with pytest.raises(Error) as caught:
        rig.driver(tmp_path, one=tmp_path / "a" / "b", two=tmp_path / "c" / "d")
    assert caught.value.code == "not-found"
    rig.driver(tmp_path, one=tmp_path / "pool").close()


def test_a_pool_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = rig.driver(tmp_path)
    pool = driver.pool("default")
    (tmp_path / "pool" / MARKER).unlink()
    (tmp_path / "pool" / MARKER).mkdir()
    with pytest.raises(Error) as caught:
        pool.check()
    assert caught.value.code == "unavailable"
    driver.close()


def test_promises_where_there_is_plenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No volume is asked what it has, unless that decides."""
    driver = rig.driver(tmp_path)
    for number in range(3):
        rig.volume(driver, f"vol-{number}")
    pool = driver.pool("default")
    asked: list[str] = []

    def exclusive(place: str) -> int:
        asked.append(place)
        return 0

    monkeypatch.setattr(pool.images, "exclusive", exclusive)
    with pool.promised("a", rig.MIB, driver.volumes_in(pool)):
        assert asked == []
    total = pool.space(driver.volumes_in(pool)).total
    asked.clear()
    with pytest.raises(Error, match="can be promised"), pool.promised("b", total, driver.volumes_in(pool)):
        pass
    assert len(asked) >= 3
    driver.close()


def test_a_copy_where_there_is_plenty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its source is taken to have all that it may, and only where that is too much it is flushed and counted."""
    driver = rig.driver(tmp_path)
    source = rig.volume(driver, "source")
    pool = driver.pool("default")
    flushed: list[str] = []
    monkeypatch.setattr(pool.images, "flush", lambda place, _: flushed.append(place))
    with pool.promised("a", rig.MIB, driver.volumes_in(pool), source):
        assert flushed == []
        assert pool.space(driver.volumes_in(pool)).promised >= rig.MIB + 2 * source.charge
    space = pool.space(driver.volumes_in(pool))
    large = driver.store.put(replace(source, charge=space.available * 3 // 4))  # a file with holes, so that it burdens nobody
    with pool.promised("b", rig.MIB, driver.volumes_in(pool), large):
        assert flushed == [pool.place(large)]
    driver.close()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSPC])
def test_a_file_system_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """It cannot share blocks either, and can be a pool all the same."""

    def opened(path: str, flags: int) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(calls, "opened", opened)
    assert extents.can_share(str(tmp_path)) is False


@pytest.mark.parametrize(
    ("kinds", "in_memory", "is_accepted"),
    [
        (("ext4", "tmpfs"), True, True),  # the pool is a tmpfs itself, mounted anew
        (("ext4", "ext4"), True, False),  # and is not mounted yet
        (("tmpfs", "ext4"), True, False),
        (("ext4", "tmpfs"), False, False),  # something is mounted over a pool on a disk
        (("ext4", "ext4"), False, False),
    ],
)
def test_a_pool_in_memory_after_a_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str], in_memory: bool, is_accepted: bool
) -> None:
    """kinds: of the file systems of the folder above, and of the pool's own."""
    pool = tmp_path / "pool"
    pool.mkdir()
    monkeypatch.setattr(filesystems, "kind", lambda path: kinds[path == str(pool)])
    settings = PoolSettings(str(pool), back_end="loop")
    if is_accepted:
        assert Pool(settings, "0badcafe", in_memory=in_memory).id != "0badcafe"
    else:
        with pytest.raises(Error) as caught:
            Pool(settings, "0badcafe", in_memory=in_memory)
        assert caught.value.code == "unavailable"
        assert list(pool.iterdir()) == []
