"""Images of a few bytes, in a store."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocirt_images import mediatypes
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest, chain_ids
from ocirt_images.store import ImageRecord, LayerRecord, Lease, Store


def bytes_of(text: str, size: int) -> bytes:
    """So many bytes that nobody else has, always the same for the same text."""
    return hashlib.shake_128(text.encode()).digest(size)


def descriptor(data: bytes, media_type: str = mediatypes.LAYER) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


@dataclass(frozen=True)
class Sample:
    """An image: its configuration, its manifest, its layers from the lowest up."""

    name: str
    layers: tuple[bytes, ...]

    @property
    def diff_ids(self) -> list[Digest]:
        return [Digest.of(b"tar of " + layer) for layer in self.layers]

    @property
    def chain_ids(self) -> list[Digest]:
        return chain_ids(self.diff_ids)

    @property
    def config(self) -> bytes:
        rootfs = {"type": "layers", "diff_ids": self.diff_ids}
        return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, "comment": self.name}).encode()

    @property
    def manifest(self) -> bytes:
        value = {
            "schemaVersion": 2,
            "mediaType": mediatypes.MANIFEST,
            "config": descriptor(self.config, mediatypes.CONFIG).json(),
            "layers": [descriptor(layer).json() for layer in self.layers],
        }
        return json.dumps(value).encode()

    @property
    def target(self) -> Descriptor:
        return descriptor(self.manifest, mediatypes.MANIFEST)

    @property
    def contents(self) -> list[bytes]:
        return [self.manifest, self.config, *self.layers]

    @property
    def digests(self) -> list[Digest]:
        return [Digest.of(data) for data in self.contents]


def sample(name: str = "registry.example/one:1", layers: tuple[str, ...] = ("a", "b"), size: int = 5000) -> Sample:
    return Sample(name, tuple(bytes_of(text, size) for text in layers))


def ingest(store: Store, data: bytes, lease: Lease, *, pieces: int = 2) -> None:
    """Brings content as a download would."""
    found = store.content.ingest(descriptor(data), lease)
    if found is not None:
        with found:
            step = max(1, -(-len(data) // pieces))
            while found.offset < len(data):
                found.write(data[found.offset : found.offset + step])
            found.commit()


def unpack(store: Store, chain_id: Digest, parent: Digest | None, diff_id: Digest, lease: Lease) -> LayerRecord | None:
    """Makes a layer of a few files."""
    staged = store.layers.stage(chain_id, parent=parent, diff_id=diff_id, lease=lease)
    if staged is None:
        return store.layers.get(chain_id)
    with staged:
        (staged.path / "etc").mkdir()
        (staged.path / "etc" / "name").write_text(chain_id)
        return staged.commit(size=64, inodes=3)


def pull(store: Store, image: Sample) -> ImageRecord:
    """All that a pull does with the store."""
    with store.leases.lease(image.name) as lease:
        lease.pin(image.digests, image.chain_ids)
        for data in image.layers:
            ingest(store, data, lease)
        store.content.put(image.config, Digest.of(image.config), lease)
        store.content.put(image.manifest, image.target.digest, lease)
        below: Digest | None = None
        for chain_id, diff_id in zip(image.chain_ids, image.diff_ids, strict=True):
            unpack(store, chain_id, below, diff_id, lease)
            below = chain_id
        return store.images.put(
            image.name,
            image.target,
            manifest=image.target.digest,
            config=Digest.of(image.config),
            layer=image.chain_ids[-1] if image.layers else None,
            lease=lease,
        )


def tree(root: Path) -> dict[str, tuple[int, str]]:
    """Every file and directory below: its mode, and its hash or target. Not SQLite's journal, which comes and goes."""
    return {str(path.relative_to(root)): _state(path) for path in _walk(root) if not path.name.startswith("database-")}


def _walk(root: Path) -> Iterator[Path]:
    for entry in sorted(root.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)


def _state(path: Path) -> tuple[int, str]:
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        return mode, hashlib.sha256(path.read_bytes()).hexdigest()
    return mode, os.readlink(path) if stat.S_ISLNK(mode) else ""
