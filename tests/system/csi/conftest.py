"""The fixtures of the tests of ocirt-csi: disks with pools, and a driver on one of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_csi.pools.pool import PoolSettings
from tests.support import csi
from tests.support.csi import Plugin
from tests.support.disks import load_modules
from tests.support.isolation import Isolation, mount, umount

# How volumes are kept and used: (file system of the pool, capability).
WAYS = {
    "subvolume": ("btrfs", csi.mounted()),
    "image": ("ext4", csi.mounted()),
    "shared-image": ("btrfs", csi.mounted(fs_type="ext4")),
    "block": ("ext4", csi.block()),
    "shared-block": ("btrfs", csi.block()),
    "memory": ("tmpfs", csi.mounted()),
}
# Those that are copied while they are used.
LIVE = tuple(way for way in WAYS if way != "memory")
FILES = ("subvolume", "image", "shared-image")


@pytest.fixture(scope="session")
def devices(isolation: Isolation) -> Iterator[None]:
    """Modules and loop devices, whose names in /dev are not taken for something left behind."""
    assert isolation
    load_modules()
    made = csi.add_loops()
    yield
    csi.remove_loops(made)


@pytest.fixture(scope="session")
def disks(devices: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Mount points of disks by their file systems."""
    work = tmp_path_factory.mktemp("disks")
    with csi.disk(work, "btrfs") as btrfs, csi.disk(work, "ext4") as ext4:
        tmpfs = work / "tmpfs"
        tmpfs.mkdir()
        mount("tmpfs", str(tmpfs), "tmpfs", 0, "size=1g")
        try:
            yield {"btrfs": btrfs, "ext4": ext4, "tmpfs": tmpfs}
        finally:
            umount(str(tmpfs))


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """How volumes are kept; a test says which ways it means."""
    return str(getattr(request, "param", "subvolume"))


@pytest.fixture
def plugin(disks: dict[str, Path], way: str, no_leaks: list[Path], tmp_path: Path) -> Iterator[Plugin]:
    """A driver that runs. What the test leaves in its pool is taken away, and was to be empty if the test says so itself."""
    assert not no_leaks
    kind, capability = WAYS[way]
    made = Plugin(tmp_path, PoolSettings(str(disks[kind] / "pool")), capability)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        _clean(made, disks[kind] / "pool")


def _clean(plugin: Plugin, pool: Path) -> None:
    """Take away whatever is left, by means that are not the driver's own."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([one for one in points if one.startswith((str(plugin.work), f"{pool}/"))]):
        subprocess.run(["umount", point], check=True)
    for device in plugin.devices().values():
        subprocess.run(["losetup", "--detach", device], check=True)
    for data in pool.glob("*/*/data"):
        if data.is_dir() and pool.parent.name == "btrfs":
            subprocess.run(["btrfs", "-q", "subvolume", "delete", data], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", pool], check=True)
    subprocess.run(["btrfs", "filesystem", "sync", pool.parent], check=False, capture_output=True)
