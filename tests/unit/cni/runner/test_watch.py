"""The watched folder: what changes is there at the next look, and a descriptor says so."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_cni.runner.watch import Folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "net.d"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def folder(place: Path) -> Iterator[Folder]:
    with Folder(str(place)) as made:
        yield made


def write(place: Path, name: str = "net", file: str = "10-net.conflist") -> Path:
    path = place / file
    path.write_text(json.dumps({"cniVersion": "1.1.0", "name": name, "plugins": [{"type": "loopback"}]}))
    return path


def is_ready(folder: Folder) -> bool:
    return bool(select.select([folder], [], [], 0)[0])


def names(folder: Folder) -> list[str]:
    """After one look."""
    folder.refresh()
    return [network.name for network in folder.networks]


def test_nothing_is_read_while_nothing_changes(folder: Folder, place: Path) -> None:
    assert not is_ready(folder)
    assert not folder.refresh()
    write(place)
    assert is_ready(folder)
    assert folder.refresh()
    assert not is_ready(folder)
    assert not folder.refresh()


def test_files_come_change_and_go(folder: Folder, place: Path) -> None:
    path = write(place)
    assert names(folder) == ["net"]
    write(place, "other")
    assert names(folder) == ["other"]
    path.write_text("{")
    assert names(folder) == []
    assert [err.subject for err in folder.errors] == [str(path)]
    path.rename(place / "20.conflist")
    assert [err.subject for err in folder.errors] != []
    write(place, file="20.conflist")
    assert names(folder) == ["net"]
    assert folder.errors == []
    (place / "20.conflist").unlink()
    assert names(folder) == []


def test_a_file_that_is_renamed_into_its_place(folder: Folder, place: Path, tmp_path: Path) -> None:
    write(place)
    names(folder)
    write(tmp_path, "new").rename(place / "10-net.conflist")
    assert names(folder) == ["new"]


def test_the_folder_may_come_later_and_go(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "net.d"
    with Folder(str(place)) as folder:
        assert names(folder) == []
        for path in (tmp_path / "a", tmp_path / "a" / "b", place):
            path.mkdir()
            assert names(folder) == []
        write(place)
        assert names(folder) == ["net"]
        place.rename(tmp_path / "old")
        assert names(folder) == []
        place.mkdir()
        write(place, "again")
        assert names(folder) == ["again"]


def test_a_folder_that_is_there_at_once(tmp_path: Path) -> None:
    """With all above it, between two looks."""
    place = tmp_path / "a" / "b" / "net.d"
    with Folder(str(place)) as folder:
        place.mkdir(parents=True)
        write(place)
        assert names(folder) == ["net"]
        write(place, "new")
        assert names(folder) == ["new"]


def test_drop_in_plugins(folder: Folder, place: Path) -> None:
    write(place)
    names(folder)
    (place / "net").mkdir()
    names(folder)
    (place / "net" / "a.conf").write_text('{"type": "tuning"}')
    found = folder.find("net")
    assert found is not None
    assert found.types() == ["loopback", "tuning"]
    (place / "net" / "a.conf").write_text('{"type": "bandwidth"}')
    found = folder.find("net")
    assert found is not None
    assert found.types() == ["loopback", "bandwidth"]


def test_links_to_files_elsewhere(folder: Folder, place: Path, tmp_path: Path) -> None:
    target = write(tmp_path, file="target")
    (place / "10.conflist").symlink_to(target)
    assert names(folder) == ["net"]
    write(tmp_path, "new", file="target")
    assert names(folder) == ["new"]


def test_find_and_default(folder: Folder, place: Path) -> None:
    """A runtime that has to choose takes the first name of a file, whatever kind it is."""
    assert folder.default() is None
    assert folder.find("net") is None
    write(place, "b", "20.conflist")
    (place / "10.conf").write_text(json.dumps({"name": "a", "type": "loopback"}))
    found = folder.default()
    assert found is not None
    assert found.name == "a"
    assert folder.find("nowhere") is None


def test_close_gives_the_descriptor_back(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    folder = Folder(str(place))
    folder.close()
    folder.close()
    assert len(os.listdir("/proc/self/fd")) == before
