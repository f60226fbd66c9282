"""fsck and gc: what is not certainly ours is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocirt_csi.cli import repair
from ocirt_csi.config import Config
from ocirt_csi.pools.pool import RECORD, PoolSettings
from tests.unit.csi import rig

HALF, READABLE, DAMAGED = (f"vol-{letter * 24}" for letter in "abc")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """One volume that the state knows, one that it does not, and what else may lie in a pool."""
    driver = rig.driver(tmp_path)
    rig.volume(driver, "vol-" + "0" * 24)
    driver.store.delete(rig.volume(driver, READABLE))
    driver.close()
    folder = tmp_path / "pool" / "volumes"
    for name in (HALF, DAMAGED, "lost+found", "backup-of-" + HALF, "vol-" + "d" * 24):
        (folder / name).mkdir()
        (folder / name / "data").write_text("data")
    (folder / DAMAGED / RECORD).write_text("{")
    (folder / ("vol-" + "d" * 24) / RECORD).mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / ("vol-" + "e" * 24)).write_text("a file")
    (folder / ("vol-" + "f" * 24)).symlink_to(folder / "lost+found")
    return Config(state=str(tmp_path / "state"), pools=(PoolSettings(str(tmp_path / "pool"), back_end="loop"),))


def _names(tmp_path: Path) -> set[str]:
    return {one.name for one in (tmp_path / "pool" / "volumes").iterdir()}


def test_gc_frees_halves_of_ours_alone(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note that cannot be read may be of a whole volume, and a name that is none of ours is somebody else's."""
    before = _names(tmp_path)
    assert repair.gc(config, [], {"json": "", "dry-run": ""}) == 0
    assert _names(tmp_path) == before
    capsys.readouterr()
    assert repair.gc(config, [], {"json": ""}) == 0
    assert _names(tmp_path) == before - {HALF}
    rows = {Path(row["where"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert {name for name, row in rows.items() if row["done"]} == {HALF}
    assert set(rows) == before - {READABLE, "vol-" + "0" * 24}


def test_fsck_reports_what_is_strange(config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And takes back what has a note."""
    assert repair.fsck(config, [], {"json": ""}) == 1
    rows = {Path(row["where"]).name: row["done"] for row in json.loads(capsys.readouterr().out)}
    assert (rows[READABLE], rows[HALF], rows[DAMAGED], rows["notes.txt"]) == ("adopted", "see gc", "", "")
