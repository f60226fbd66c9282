"""The calls by which a writable layer is limited by project quota, beside a file system that is a dictionary."""

from __future__ import annotations

import errno
import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ocirt_images.errors import Error
from ocirt_images.quota import btrfs, project
from ocirt_images.quota.project import Quota
from ocirt_images.store import Store, limits
from ocirt_images.store.changes import Changes

SIZE = 10 << 20
CHANGES = Changes(sync=False)


class Projects:
    """A file system with project quota: the numbers of directories, and what the kernel counts for a number."""

    def __init__(self) -> None:
        self.numbers: dict[Path, int] = {}
        self.quotas: dict[int, Quota] = {}
        self.calls: list[str] = []
        self.failure = 0

    def of(self, directory: Path) -> int:
        return self.numbers.get(directory, 0)

    def read(self, directory: Path, number: int) -> Quota:
        assert directory.is_dir()
        if self.failure:
            raise OSError(self.failure, os.strerror(self.failure), str(directory))
        return self.quotas.get(number, Quota(0, 0, 0))

    def assign(self, directory: Path, number: int) -> None:
        assert not any(directory.iterdir()), "what is there already would keep its number"
        self.calls.append("assign")
        self.numbers[directory] = number
        found = self.read(directory, number)
        self.quotas[number] = replace(found, size=found.size + 4096, inodes=found.inodes + 1)

    def limit(self, directory: Path, number: int, size: int) -> None:
        assert self.numbers[directory] == number
        self.calls.append(f"limit {size}")
        self.quotas[number] = replace(self.read(directory, number), limit=size)


@pytest.fixture
def projects(monkeypatch: pytest.MonkeyPatch) -> Projects:
    found = Projects()
    monkeypatch.setattr(btrfs, "is_here", lambda path: False)
    for name in ("of", "read", "assign", "limit"):
        monkeypatch.setattr(project, name, getattr(found, name))
    return found


def test_a_project_of_its_own(projects: Projects, tmp_path: Path) -> None:
    """First the number, then the limit: a directory that has the number leads to a limit that was left. And back."""
    directory = tmp_path / "1"
    limits.make_directory(directory, SIZE, CHANGES)
    (number,) = projects.quotas
    assert projects.calls == ["assign", f"limit {SIZE}"]
    assert projects.quotas[number].limit == SIZE
    assert limits.usage(directory) == (4096, 1)
    limits.remove_directory(directory, CHANGES)
    assert projects.calls[2:] == ["limit 0"]
    assert not directory.exists()


def test_no_size_no_project(projects: Projects, tmp_path: Path) -> None:
    limits.make_directory(tmp_path / "1", 0, CHANGES)
    assert limits.usage(tmp_path / "1") is None
    limits.remove_directory(tmp_path / "1", CHANGES)
    assert projects.calls == []


@pytest.mark.parametrize("taken", [Quota(0, 0, 3), Quota(0, 4096, 0), Quota(SIZE, 0, 0)])
def test_numbers_of_others(projects: Projects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: Quota) -> None:
    """One that has files, or a limit, is somebody's."""
    numbers = iter([7, 7, 8])
    monkeypatch.setattr(project, "draw", lambda: next(numbers))
    projects.quotas[7] = taken
    limits.make_directory(tmp_path / "1", SIZE, CHANGES)
    assert projects.numbers[tmp_path / "1"] == 8
    assert projects.quotas[7] == taken


def test_two_draw_the_same_number(projects: Projects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second sees two directories and takes another number."""
    numbers = iter([7, 8])
    monkeypatch.setattr(project, "draw", lambda: next(numbers))
    assign = projects.assign

    def beside_another(directory: Path, number: int) -> None:
        assign(directory, number)
        if number == 7:
            projects.quotas[7] = replace(projects.quotas[7], inodes=2)

    monkeypatch.setattr(project, "assign", beside_another)
    limits.make_directory(tmp_path / "1", SIZE, CHANGES)
    assert projects.numbers[tmp_path / "1"] == 8
    assert projects.quotas[7].limit == 0
    assert projects.quotas[8].limit == SIZE


def test_no_number_is_free(projects: Projects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "draw", itertools.repeat(7).__next__)
    projects.quotas[7] = Quota(SIZE, 0, 0)
    with pytest.raises(Error, match="no number is free") as caught:
        limits.make_directory(tmp_path / "1", SIZE, CHANGES)
    assert caught.value.code == "exhausted"


@pytest.mark.parametrize("number", [errno.ESRCH, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM])
def test_not_to_be_had(projects: Projects, tmp_path: Path, number: int) -> None:
    """Switched off, an old kernel, another file system, not root: said, and nothing is left in the store."""
    projects.failure = number
    with Store.open(tmp_path / "store", sync=False) as store:
        with pytest.raises(Error, match="cannot be limited here") as caught:
            store.writables.create("box", None, size=SIZE)
        assert caught.value.code == "unsupported"
        assert ("root of the machine" if number == errno.EPERM else "prjquota") in str(caught.value)
        assert store.writables.list() == []
        assert os.listdir(store.layout.writables) == []


def test_other_errors_stay_what_they_are(projects: Projects, tmp_path: Path) -> None:
    projects.failure = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        limits.make_directory(tmp_path / "1", SIZE, CHANGES)


def test_quotas_that_were_switched_off_meanwhile(projects: Projects, tmp_path: Path) -> None:
    """Then nothing is counted, and the directory goes all the same."""
    limits.make_directory(tmp_path / "1", SIZE, CHANGES)
    projects.failure = errno.ESRCH
    assert limits.usage(tmp_path / "1") is None
    limits.remove_directory(tmp_path / "1", CHANGES)
    assert not (tmp_path / "1").exists()


def test_a_number_that_is_drawn_is_ours() -> None:
    assert all(1 << 30 <= project.draw() < 1 << 31 for _ in range(1000))


def test_a_plain_directory_has_no_project(tmp_path: Path) -> None:
    """The real calls, on whatever file system this is."""
    assert project.of(tmp_path) == 0
    assert limits.usage(tmp_path) is None
