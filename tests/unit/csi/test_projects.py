"""Folders with quotas: for which project they count is ours to say, whatever their users do. The quotas are a dictionary here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.kernel import projects
from ocirt_csi.model import Volume
from ocirt_csi.pools.projects import Projects

MIB = 1 << 20
VOLUME = Volume(id="v", pool="p", place="v", size=MIB, charge=MIB, layout=model.PROJECT, target=4 * MIB)


class _Quotas:
    """limits: bytes by project; folders: project by path."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits: dict[int, int] = {7: 7 * MIB}
        self.folders: dict[str, int] = {}
        monkeypatch.setattr(projects, "limit", self.limit)
        monkeypatch.setattr(projects, "figures", lambda _, project: (self.limits.get(project, 0), 0))
        monkeypatch.setattr(projects, "assign", self.folders.__setitem__)
        monkeypatch.setattr(projects, "of", lambda folder: self.folders.get(folder, 0))

    def limit(self, _: str, project: int, length: int) -> None:
        self.limits[project] = length


def test_a_folder_that_its_user_lets_count_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither growing nor taking away changes the other's limit, and it is told."""
    quotas = _Quotas(monkeypatch)
    back_end = Projects(str(tmp_path), shares=False)
    place = tmp_path / "place"
    place.mkdir()
    back_end.make(str(place), VOLUME)
    (own,) = set(quotas.limits) - {7}
    assert back_end.damage(str(place), VOLUME) == ""
    quotas.folders[str(place / "data")] = 7
    assert "another project" in back_end.damage(str(place), VOLUME)
    back_end.grow(str(place), VOLUME)
    assert quotas.limits == {7: 7 * MIB, own: 4 * MIB}
    assert back_end.damage(str(place), VOLUME) == "its quota is not its size"
    back_end.remove(str(place))
    assert quotas.limits == {7: 7 * MIB, own: 0}
    assert os.listdir(place) == []


@pytest.mark.parametrize("text", ["", "7", "x", "-1", "99999999999"])
def test_a_number_that_is_none_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    quotas = _Quotas(monkeypatch)
    back_end = Projects(str(tmp_path), shares=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "project").write_text(text)
    with pytest.raises(Error, match="number of a project"):
        back_end.grow(str(tmp_path), replace(VOLUME, size=2 * MIB))
    assert quotas.limits == {7: 7 * MIB}
