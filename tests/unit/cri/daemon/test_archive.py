"""The archive of a checkpoint, of directories as CRIU and overlayfs leave them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from ocirt_cri.checkpoint import archive


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """A writable layer over two, with everything that there is in one."""
    upper, top, bottom = (tmp_path / name for name in ("upper", "top", "bottom"))
    for one in (upper, top, bottom):
        (one / "etc/deep").mkdir(parents=True)
    (bottom / "etc/old").write_text("x")
    (top / "etc/kept").write_text("x")
    (top / "etc/deep/below").write_text("x")
    (upper / "etc/kept").write_text("new")
    (upper / "link").symlink_to("/nowhere")
    os.link(upper / "etc/kept", upper / "hard")
    os.mkfifo(upper / "fifo")
    os.mknod(upper / "gone", stat.S_IFCHR, os.makedev(0, 0))
    marked = str(upper / "etc")
    monkeypatch.setattr(
        archive, "_is_opaque", lambda fd: os.readlink(f"/proc/self/fd/{fd}") == marked
    )  # the attribute itself is root's to set
    return str(upper), [str(top), str(bottom)]


def test_what_is_in_it(layers: tuple[str, list[str]], tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "core-1.img").write_text("core")
    (images / "dump.log").write_text("log")
    target = tmp_path / "c.tar"
    archive.write(str(target), str(images), {"config.dump": b"{}"}, "", *layers)
    assert sorted(os.listdir(images)) == ["core-1.img", "dump.log"]
    with tarfile.open(target) as found:
        names = ["checkpoint/core-1.img", "config.dump", "deleted.files", "dump.log", "rootfs-diff.tar"]
        assert sorted(found.getnames()) == names
        deleted = found.extractfile("deleted.files")
        assert deleted is not None
        assert sorted(json.load(deleted)) == ["etc/old", "gone"]
        inner = found.extractfile("rootfs-diff.tar")
        assert inner is not None
        with tarfile.open(fileobj=inner) as changes:
            assert sorted(changes.getnames()) == ["etc", "etc/deep", "etc/kept", "fifo", "hard", "link"]
            assert changes.getmember("link").linkname == "/nowhere"
            assert changes.getmember("fifo").isfifo()
            kinds = {changes.getmember(name).type for name in ("hard", "etc/kept")}
            assert kinds == {tarfile.REGTYPE, tarfile.LNKTYPE}


def test_nothing_is_written_over(layers: tuple[str, list[str]], tmp_path: Path) -> None:
    target = tmp_path / "c.tar"
    target.write_text("mine")
    with pytest.raises(FileExistsError):
        archive.write(str(target), str(tmp_path), {}, "", *layers)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(("what", "look"), [("etc", 1), ("etc/kept", 2)])
def test_a_link_that_is_put_into_the_place_of_what_was_seen(
    layers: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, look: int
) -> None:
    """After so many looks at it. It does not lead to what is the host's."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("the host's")
    real = os.lstat
    looks: list[str] = []

    def seen(path: str, *, dir_fd: int | None = None) -> os.stat_result:
        found = real(path, dir_fd=dir_fd)
        if os.path.basename(path) == os.path.basename(what):
            looks.append(path)
            if len(looks) == look:
                there = Path(layers[0]) / what
                there.rename(tmp_path / "away")
                there.symlink_to(secret if what == "etc" else secret / "key")
        return found

    monkeypatch.setattr(os, "lstat", seen)
    images = tmp_path / "images"
    images.mkdir()
    target = tmp_path / "c.tar"
    with pytest.raises(OSError, match="symbolic links"):
        archive.write(str(target), str(images), {}, "", *layers)
    assert len(looks) >= look
    assert b"the host's" not in target.read_bytes()


def test_links_of_lower_layers_are_not_followed(layers: tuple[str, list[str]], tmp_path: Path) -> None:
    """Where what hides a directory was one below a link of the image's."""
    _, lowers = layers
    shutil.rmtree(f"{lowers[1]}/etc")
    elsewhere = tmp_path / "host"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep/passwd").write_text("x")
    os.symlink(elsewhere, f"{lowers[1]}/etc")
    assert archive._names(lowers[1], "etc/deep") == []
    assert archive._names(lowers[0], "etc/deep") == ["below"]
