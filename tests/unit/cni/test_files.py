"""What stands in for parts of `os`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ocirt_cni import files


def test_what_a_path_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("gone")
    for name in ("", "file", "link", "nowhere", "gone", "file/below", "a\0b"):
        path = f"{tmp_path}/{name}"
        assert files.is_directory(path) == os.path.isdir(path)
        assert files.is_file(path) == os.path.isfile(path)
        assert files.exists(path) == os.path.exists(path)


@pytest.mark.parametrize("path", ["a", "a/b/c", "a//b/", "there", "there/a"])
def test_directories(tmp_path: Path, path: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for place in (ours, theirs):
        (place / "there").mkdir(parents=True)
    files.make_directories(f"{ours}/{path}", 0o700)
    files.make_directories(f"{ours}/{path}", 0o700)
    os.makedirs(f"{theirs}/{path}", 0o700, exist_ok=True)
    found, expected = (
        {(str(one.relative_to(place)), one.stat().st_mode) for one in place.rglob("*")} for place in (ours, theirs)
    )
    assert found == expected


@pytest.mark.parametrize("path", ["file", "file/below", "file/below/that"])
def test_a_file_in_the_way(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="File exists|Not a directory"):
        files.make_directories(f"{tmp_path}/{path}")


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "environ", {b"NAME": b"\xff\xc3\xa4"})
    assert files.environment() == {"NAME": os.fsdecode(b"\xff\xc3\xa4")}
