"""Giving a volume's files to a group, while somebody who is at work in it puts other things in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ocirt_csi import paths


def _give(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        paths.give_to_group(fd, os.getgid())
    finally:
        os.close(fd)


def test_files_and_folders_are_the_groups(tmp_path: Path) -> None:
    """A link is not followed, and who may run a file may go on."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    (volume / "folder").mkdir(parents=True)
    for path, mode in ((volume / "folder" / "file", 0o600), (volume / "program", 0o700), (outside, 0o600)):
        path.touch()
        path.chmod(mode)
    (volume / "link").symlink_to(outside)
    (volume / "nowhere").symlink_to("/nowhere")
    _give(volume)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (volume / "folder" / "file", volume / "program", outside)]
    assert modes == [0o660, 0o770, 0o600]
    assert all(one.stat().st_mode & (stat.S_ISGID | 0o770) == stat.S_ISGID | 0o770 for one in (volume, volume / "folder"))


@pytest.mark.parametrize("moment", ["open", "chown", "chmod"])
def test_a_file_that_becomes_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """At no moment is a file of the host's changed."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    (volume / "file").touch()
    outside.touch()
    outside.chmod(0o600)
    real = getattr(os, moment)

    def swapped(name: Any, *args: Any, **words: Any) -> Any:
        if "file" in str(name) or "/fd/" in str(name):
            (volume / "file").unlink(missing_ok=True)
            (volume / "file").symlink_to(outside)
        return real(name, *args, **words)

    monkeypatch.setattr(os, moment, swapped)
    _give(volume)
    monkeypatch.undo()
    assert (volume / "file").is_symlink()
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
