"""Layers as they lie in the store, made by hand: directories as overlayfs wants them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ocirt_images import mediatypes
from ocirt_images.bundle import Image
from ocirt_images.config import ImageConfig
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest, chain_ids
from ocirt_images.platforms import Platform
from ocirt_images.store import Store
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
    fill(directory, entries)
    return directory


def fill(directory: Path, entries: dict[str, str | bytes | Maker]) -> None:
    """What `layer` does, in a directory that is there."""
    for name, entry in entries.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(entry):
            entry(path)
        else:
            path.write_bytes(entry.encode() if isinstance(entry, str) else entry)


def image_config(**says: Any) -> ImageConfig:
    """What an image says of itself; by default `true` is to be run."""
    given: dict[str, Any] = {"platform": Platform("linux", "amd64"), "diff_ids": (), "cmd": ("true",), "labels": {}, "raw": {}}
    return ImageConfig(**given | says)


def stored(store: Store, name: str, makers: Sequence[Maker], *, system: str = "linux", **says: Any) -> Image:
    """An image in the store, unpacked: a layer for each of `makers`, which fill a directory; `says`: fields of `config`."""
    diff_ids = [Digest.of(f"{name} {number}".encode()) for number in range(len(makers))]
    chain = chain_ids(diff_ids)
    with store.leases.lease() as lease:
        for number, maker in enumerate(makers):
            parent = chain[number - 1] if number else None
            staged = store.layers.stage(chain[number], parent=parent, diff_id=diff_ids[number], lease=lease)
            if staged is not None:
                with staged:
                    maker(staged.path)
                    staged.commit(size=0, inodes=1)
        document = {
            "os": system,
            "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "config": {"Cmd": ["true"]} | says,
        }
        config = json.dumps(document).encode()
        layers = [{"mediaType": mediatypes.LAYER, "digest": one, "size": 1} for one in diff_ids]
        reference = {"mediaType": mediatypes.CONFIG, "digest": Digest.of(config), "size": len(config)}
        manifest = json.dumps({"schemaVersion": 2, "config": reference, "layers": layers}).encode()
        for data in (config, manifest):
            store.content.put(data, Digest.of(data), lease)
        target = Descriptor(media_type=mediatypes.MANIFEST, digest=Digest.of(manifest), size=len(manifest))
        layer = chain[-1] if chain else None
        store.images.put(name, target, manifest=target.digest, config=Digest.of(config), lease=lease, layer=layer)
    return Image.find(store, name)


def busybox_image(store: Store, name: str = "docker.io/library/busybox:latest", **says: Any) -> Image:
    """An image of two layers: the machine's busybox, and a file that is new above one that is gone."""

    def lower(path: Path) -> None:
        make_rootfs(path)
        (path / "etc" / "gone").write_text("lower\n")

    def upper(path: Path) -> None:
        fill(path, {"etc/gone": whiteout, "etc/new": "upper\n"})

    return stored(store, name, [lower, upper], **says)


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
