"""Layers as they lie in the store, made by hand: directories as overlayfs wants them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocirt_images.bundle import Image
from ocirt_images.config import ImageConfig
from ocirt_images.digest import Digest
from ocirt_images.platforms import Platform
from tests.support.bundle import make_rootfs

Maker = Callable[[Path], object]
OPAQUE = "trusted.overlay.opaque"


def whiteout(path: Path) -> None:
    """A mark that hides what lower layers have of this name."""
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


def opaque(path: Path) -> None:
    """A directory that hides what lower layers have in it."""
    path.mkdir(exist_ok=True)
    os.setxattr(path, OPAQUE, b"y")


def layer(directory: Path, entries: dict[str, str | bytes | Maker]) -> Path:
    """The tree of a layer in `directory` (made): by path its content, or a function that makes what is there."""
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for name, entry in entries.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(entry):
            entry(path)
        else:
            path.write_bytes(entry.encode() if isinstance(entry, str) else entry)
    return directory


def image_config(**says: Any) -> ImageConfig:
    """What an image says of itself; by default `true` is to be run."""
    given: dict[str, Any] = {"platform": Platform("linux", "amd64"), "diff_ids": (), "cmd": ("true",), "labels": {}, "raw": {}}
    return ImageConfig(**given | says)


def busybox_image(directory: Path, **says: Any) -> Image:
    """An image of two layers: the machine's busybox, and a file that is new above one that is gone."""
    lower = make_rootfs(directory / "0" / "fs")
    lower.chmod(0o755)
    (lower / "etc" / "gone").write_text("lower\n")
    upper = layer(directory / "1" / "fs", {"etc/gone": whiteout, "etc/new": "upper\n"})
    diff_ids = (Digest.of(b"0"), Digest.of(b"1"))
    return Image("docker.io/library/busybox:latest", image_config(diff_ids=diff_ids, **says), (lower, upper))


def listing(root: int) -> dict[str, str]:
    """What is in a tree, by path: a file's content, `-> target`, or `/` for a directory."""
    found: dict[str, str] = {}
    waiting = [""]
    while waiting:
        path = waiting.pop()
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
        try:
            for name in os.listdir(fd):
                full = f"{path}/{name}" if path else name
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    found[full] = "/"
                    waiting.append(full)
                elif stat.S_ISLNK(mode):
                    found[full] = f"-> {os.readlink(name, dir_fd=fd)}"
                elif stat.S_ISREG(mode):
                    with open(os.open(name, os.O_RDONLY, dir_fd=fd), encoding="utf-8", errors="replace") as file:
                        found[full] = file.read()
                else:
                    found[full] = stat.filemode(mode)
        finally:
            os.close(fd)
    return found
