"""Images for tests, as bytes: layers of any content, their configuration, manifests and indexes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from ocirt_images import mediatypes

Json = dict[str, Any]
_GZIP_DOCKER = {"gzip": mediatypes.DOCKER_LAYER, "": "application/vnd.docker.image.rootfs.diff.tar"}


def digest(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def encode(value: Json) -> bytes:
    return json.dumps(value, indent=2).encode()


def tar(entries: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """An archive. Names that end in a slash are directories; bytes are a file's content; a TarInfo stands for itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755 if name.endswith("/") else 0o644
            info.mtime = 1_700_000_000
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def compress(data: bytes, compression: str, *, frames: int = 1) -> bytes:
    """gzip, zstd or "" for none; in so many members or frames."""
    step = max(1, -(-len(data) // frames))
    parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    if compression == "gzip":
        return b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    if compression == "zstd":
        return b"".join(zstandard.ZstdCompressor(level=1).compress(part) for part in parts)
    return data


@dataclass(frozen=True)
class Layer:
    """`blob` is `tar`, compressed; `descriptor` is what a manifest says of it."""

    tar: bytes
    blob: bytes
    descriptor: Json

    @property
    def digest(self) -> str:
        return digest(self.blob)

    @property
    def diff_id(self) -> str:
        return digest(self.tar)


def layer(
    content: bytes | Mapping[str, bytes | tarfile.TarInfo], compression: str = "gzip", *, docker: bool = False, frames: int = 1
) -> Layer:
    """A layer of an archive, or of what is to be in one."""
    archive = content if isinstance(content, bytes) else tar(content)
    blob = compress(archive, compression, frames=frames)
    kind = _GZIP_DOCKER[compression] if docker else mediatypes.LAYER + (f"+{compression}" if compression else "")
    return Layer(archive, blob, {"mediaType": kind, "digest": digest(blob), "size": len(blob)})


def random_layer(seed: int, size: int = 100_000, compression: str = "gzip", *, files: int = 5) -> Layer:
    """A layer with `files` files of `size` bytes together, which nothing compresses; the same for the same seed."""
    chance = random.Random(seed)
    entries: dict[str, bytes | tarfile.TarInfo] = {f"layer-{seed}/": b""}
    for number in range(files):
        entries[f"layer-{seed}/file-{number}"] = chance.randbytes(size // files)
    return layer(entries, compression)


@dataclass(frozen=True)
class Image:
    """A manifest or index, and all that it needs: `blobs` by digest, `manifests` (itself among them) by digest."""

    manifest: bytes
    media_type: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # media type and bytes
    layers: tuple[Layer, ...] = ()
    config: bytes = b""

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def descriptor(self) -> Json:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.manifest)}


def image(
    layers: Sequence[Layer] = (),
    *,
    config: Json | None = None,
    platform: Json | None = None,
    docker: bool = False,
    annotations: Mapping[str, str] | None = None,
    subject: Json | None = None,
    artifact_type: str = "",
) -> Image:
    """An image of these layers. `config` is what it runs (`Cmd` and so on)."""
    where = platform or {"os": "linux", "architecture": "amd64"}
    whole = {
        "created": "2025-01-01T00:00:00Z",
        **where,
        "config": config or {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        "history": [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)],
    }
    blob = encode(whole)
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": mediatypes.DOCKER_MANIFEST if docker else mediatypes.MANIFEST,
        "config": {
            "mediaType": mediatypes.DOCKER_CONFIG if docker else mediatypes.CONFIG,
            "digest": digest(blob),
            "size": len(blob),
        },
        "layers": [one.descriptor for one in layers],
    }
    if annotations:
        manifest["annotations"] = dict(annotations)
    if subject:
        manifest["subject"] = subject
    if artifact_type:
        manifest["artifactType"] = artifact_type
    data = encode(manifest)
    blobs = {one.digest: one.blob for one in layers} | {digest(blob): blob}
    return Image(data, manifest["mediaType"], blobs, {digest(data): (manifest["mediaType"], data)}, tuple(layers), blob)


def random_image(seed: int, layers: int = 3, size: int = 100_000, compression: str = "gzip") -> Image:
    """An image of so many random layers of `size` bytes each."""
    return image([random_layer(seed * 1000 + number, size, compression) for number in range(layers)])


def index(
    entries: Iterable[tuple[Json | None, Image]], *, docker: bool = False, annotations: Mapping[str, str] | None = None
) -> Image:
    """An index of images (or indexes) by platform."""
    found = list(entries)
    value: Json = {
        "schemaVersion": 2,
        "mediaType": mediatypes.DOCKER_LIST if docker else mediatypes.INDEX,
        "manifests": [{**one.descriptor, **({"platform": platform} if platform else {})} for platform, one in found],
    }
    if annotations:
        value["annotations"] = dict(annotations)
    data = encode(value)
    blobs: dict[str, bytes] = {}
    manifests: dict[str, tuple[str, bytes]] = {}
    for _, one in found:
        blobs |= one.blobs
        manifests |= one.manifests
    return Image(data, value["mediaType"], blobs, manifests | {digest(data): (value["mediaType"], data)})


def tree(path: Path) -> bytes:
    """An archive of a directory, whose owner is root."""

    def by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        return info

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(path, ".", filter=by_root)
    return out.getvalue()


def contents(archive: bytes) -> dict[str, bytes]:
    """The files in an archive, by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return {one.name: file.read() for one in found if one.isreg() and (file := found.extractfile(one)) is not None}
