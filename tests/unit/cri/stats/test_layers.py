"""What is known of writable layers, for a caller that does not wait for the walker."""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_cri.stats import layers
from ocirt_cri.stats.layers import LayerUsage
from ocirt_images.snapshots import Upper


def layer(directory: Path, size: int, folders: int = 0) -> Upper:
    (directory / "fs").mkdir(parents=True)
    (directory / "fs/file").write_bytes(b"x" * size)
    for number in range(folders):
        (directory / f"fs/{number}").mkdir()
    return Upper(directory)


def test_what_the_walker_has_not_come_to(tmp_path: Path) -> None:
    """It is looked at once, and then known; who has no layer is left out."""
    uppers = {"a": layer(tmp_path / "a", 100_000)}
    asked: list[int] = []

    def found() -> dict[str, Upper]:
        asked.append(1)
        return uppers

    usage = LayerUsage(found)
    first = usage.look(["a", "none"])
    assert list(first) == ["a"]
    assert first["a"].size >= 100_000
    assert usage.path("a") == tmp_path / "a"
    (tmp_path / "a/fs/more").write_bytes(b"x" * 100_000)
    assert usage.look(["a"]) == first
    assert len(asked) == 1


def test_a_look_takes_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large layer is the walker's: nothing is said of it, rather than something wrong."""
    monkeypatch.setattr(layers, "_GLANCE", 0.0)
    usage = LayerUsage(lambda: {"big": layer(tmp_path / "big", 10, 5)})
    assert usage.look(["big"]) == {}
    assert usage.get("big") is None
