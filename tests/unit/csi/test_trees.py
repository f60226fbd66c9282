"""Folders in folders, deeper than a path, the frames of calls or descriptors go."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocirt_csi import paths
from ocirt_csi.kernel import trees

DEPTH = 5000


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """A folder with so many in each other, at the bottom a file; it is taken away if the test has not done so."""
    root = tmp_path / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("folder", dir_fd=fd)
        below = os.open("folder", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    yield root
    if root.exists():
        trees.remove(str(root))


def test_a_deep_tree_is_taken_away(deep: Path) -> None:
    """With few descriptors, and no link is followed on the way."""
    (deep.parent / "other").mkdir()
    (deep.parent / "other" / "file").write_text("kept")
    (deep / "link").symlink_to(deep.parent / "other")
    (deep / "folder" / "file").write_text("x")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 8, hard))
    try:
        trees.remove(str(deep))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not deep.exists()
    assert (deep.parent / "other" / "file").read_text() == "kept"


def test_a_deep_tree_is_given_away(deep: Path) -> None:
    (deep / "link").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd").st_gid
    fd = os.open(deep, os.O_RDONLY)
    try:
        group = os.getgid()
        paths.give_to_group(fd, group)
        assert os.fstat(fd).st_mode & 0o2070 == 0o2070
        found = [name for _, name, is_folder in trees.walk(fd) if not is_folder]
        assert (
            len([1 for at, name, is_folder in trees.walk(fd) if is_folder and os.stat(name, dir_fd=at).st_mode & 0o2000]) == DEPTH
        )
    finally:
        os.close(fd)
    assert sorted(found) == ["file", "link"]
    assert os.stat("/etc/passwd").st_gid == before


def test_folders_that_somebody_moves(tmp_path: Path) -> None:
    """It is not left by another way than it was entered."""
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root" / "a" / "b" / "file").write_text("x")
    (tmp_path / "elsewhere" / "file").write_text("kept")
    fd = os.open(tmp_path / "root", os.O_RDONLY)

    def remove() -> None:
        for at, name, is_folder in trees.walk(fd):
            if name == "file":
                (tmp_path / "root" / "a" / "b").rename(tmp_path / "elsewhere" / "b")
            os.rmdir(name, dir_fd=at) if is_folder else os.unlink(name, dir_fd=at)

    try:
        with pytest.raises(OSError, match="somebody moves"):
            remove()
    finally:
        os.close(fd)
    assert (tmp_path / "elsewhere" / "file").read_text() == "kept"
