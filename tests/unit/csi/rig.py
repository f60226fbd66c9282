"""A driver in a folder, without root: its volumes are rows and files, and what would need a device is a test's to replace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ocirt_csi import model
from ocirt_csi.driver import Driver, Settings
from ocirt_csi.model import Use, Volume
from ocirt_csi.pools.pool import PoolSettings

MIB = 1 << 20


def driver(work: Path, name: str = "state", **pools: Path) -> Driver:
    """A driver with pools of images by class: of one in `work`, if none is named."""
    found = pools or {"default": work / "pool"}
    settings = tuple(PoolSettings(str(path), name, "loop") for name, path in found.items())
    return Driver(Settings("node", settings, state=str(work / name)))


def volume(driver: Driver, identifier: str, **fields: object) -> Volume:
    """A volume with ext4 by its row, its folder and a file."""
    made = Volume(
        id=identifier,
        name=identifier,
        pool="default",
        place=identifier,
        size=16 * MIB,
        charge=MIB,
        layout=model.IMAGE,
        fs_type="ext4",
    )
    made = driver.store.put(replace(made, **fields))  # type: ignore[arg-type]
    place = Path(driver.pools[made.pool].make_place(made))
    with (place / "data").open("wb") as file:
        file.truncate(made.charge)
    driver.pools[made.pool].note(made)
    return made


def use(driver: Driver, volume: Volume, path: str, **fields: object) -> Use:
    """A use of it by its row."""
    made = Use(id=path, volume=volume.id, staged=True, block=volume.block, read_only=False, mode=1, asked="")
    return driver.store.put(replace(made, **fields))  # type: ignore[arg-type]
