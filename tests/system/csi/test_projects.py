"""Volumes as folders with project quotas, on ext4 and xfs, where the kernel has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_api import status
from ocirt_api.csi import api_pb2 as csi
from ocirt_csi.kernel import projects
from ocirt_csi.pools.pool import PoolSettings
from tests.support.csi import MIB, Plugin, disk, in_child, mounted, refused

SIZE = 20 * MIB


@pytest.fixture(params=["ext4-projects", "xfs-projects"])
def projected(request: pytest.FixtureRequest, devices: None, no_leaks: list[Path], tmp_path: Path) -> Iterator[Plugin]:
    """A driver on a disk whose file system limits projects."""
    assert not no_leaks
    with disk(tmp_path, request.param, 512 * MIB) as point:
        made = Plugin(tmp_path, PoolSettings(str(point / "pool"), back_end="project"), mounted())
        made.start()
        try:
            yield made
        finally:
            made.stop()


def fill(place: Path) -> int:
    """Write as a user until there is no more room; MiB, as an exit status. A user: ext4 lets who has CAP_SYS_RESOURCE go on."""
    place.chmod(0o777)

    def work() -> int:
        os.chdir(place)
        os.setresuid(1000, 1000, 1000)
        done = 0
        try:
            with Path("file").open("wb", buffering=0) as file:
                while done < 4 * SIZE:
                    done += file.write(os.urandom(MIB))
                    os.fsync(file.fileno())
        except OSError as err:
            assert err.errno in (errno.EDQUOT, errno.ENOSPC)
        return done // MIB

    return in_child(work) * MIB


def test_a_life(projected: Plugin) -> None:
    """As large as it says, larger when it was expanded, and nothing left at the end."""
    volume = projected.create("a", SIZE).volume_id
    place = projected.use(volume)
    assert abs(fill(place) - SIZE) <= SIZE // 20  # a MiB is the step
    usage = projected.call("NodeGetVolumeStats", volume_id=volume, volume_path=str(place)).usage[0]
    assert usage.total == SIZE
    assert usage.used > SIZE * 9 // 10
    (place / "file").unlink()
    larger = csi.CapacityRange(required_bytes=2 * SIZE)
    projected.call("ControllerExpandVolume", volume_id=volume, capacity_range=larger)
    assert abs(fill(place) - 2 * SIZE) <= SIZE // 10
    assert projected.parts is not None
    assert list(projected.call("ControllerGetVolumeHealth", volume_id=volume).volume_health.health_statuses) == []
    pool = projected.parts.driver.pools["default"]
    number = projects.of(f"{pool.root}/volumes/{volume}/data")
    assert projects.figures(pool.root, number)[0] == 2 * SIZE
    projected.end(volume)
    projected.call("DeleteVolume", volume_id=volume)
    assert projected.left() == []
    assert projects.figures(pool.root, number)[0] == 0


def test_copies(projected: Plugin) -> None:
    """Of volumes that are not in use; a clone has a limit of its own."""
    volume = projected.create("a", SIZE).volume_id
    place = projected.use(volume)
    (place / "file").write_text("before")
    os.setxattr(place / "file", "user.x", b"y")
    (place / "link").symlink_to("/etc/passwd")
    assert refused(lambda: projected.call("CreateSnapshot", name="s", source_volume_id=volume)) == status.FAILED_PRECONDITION
    projected.end(volume)
    snapshot = projected.call("CreateSnapshot", name="s", source_volume_id=volume).snapshot.snapshot_id
    (projected.use(volume) / "file").write_text("after!")
    source = csi.VolumeContentSource(snapshot=csi.VolumeContentSource.SnapshotSource(snapshot_id=snapshot))
    clone = projected.create("b", 2 * SIZE, volume_content_source=source).volume_id
    there = projected.use(clone, "clone")
    assert (there / "file").read_text() == "before"
    assert os.getxattr(there / "file", "user.x") == b"y"
    assert os.readlink(there / "link") == "/etc/passwd"
    (there / "file").unlink()
    assert abs(fill(there) - 2 * SIZE) <= SIZE // 10
    for one, name in ((volume, "pod"), (clone, "clone")):
        projected.end(one, name)
        projected.call("DeleteVolume", volume_id=one)
    projected.call("DeleteSnapshot", snapshot_id=snapshot)
    assert projected.left() == []


def test_a_pool_that_has_no_projects(devices: None, no_leaks: list[Path], tmp_path: Path) -> None:
    """It is said; by itself a driver takes images there."""
    assert not no_leaks
    with disk(tmp_path, "ext4", 64 * MIB) as point:
        settings = PoolSettings(str(point / "pool"), back_end="project")
        assert refused(Plugin(tmp_path, settings, mounted()).start) == status.UNIMPLEMENTED
        plugin = Plugin(tmp_path, PoolSettings(str(point / "pool")), mounted())
        assert "without project quotas" in plugin.start().driver.pools["default"].why
        plugin.stop()
