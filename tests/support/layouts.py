"""Images and archives of them, made from nothing: small layers, configurations and manifests, put together as tools do it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from ocirt_images import mediatypes
from ocirt_images.digest import Digest

Files = dict[str, "bytes | Link"]


@dataclass(frozen=True)
class Link:
    """A link in a tar; `hard`: to a name from the top."""

    target: str
    hard: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer: as it is transferred, and its plain tar."""

    data: bytes
    plain: bytes
    compression: str

    @property
    def media_type(self) -> str:
        return mediatypes.LAYER + (f"+{self.compression}" if self.compression else "")

    def json(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": Digest.of(self.data), "size": len(self.data)}


@dataclass(frozen=True)
class Image:
    """A manifest with all that it points to."""

    manifest: bytes
    config: bytes
    layers: tuple[Layer, ...]
    platform: dict[str, str]

    @property
    def digest(self) -> Digest:
        return Digest.of(self.manifest)

    @property
    def id(self) -> Digest:
        return Digest.of(self.config)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": mediatypes.MANIFEST, "digest": self.digest, "size": len(self.manifest), **more}

    def blobs(self) -> Files:
        """Its content as files of a layout."""
        return dict(blob(data) for data in (self.manifest, self.config, *(layer.data for layer in self.layers)))


def blob(data: bytes, algorithm: str = "sha256") -> tuple[str, bytes]:
    """Content as a file of a layout."""
    return f"blobs/{algorithm}/{Digest.of(data, algorithm).encoded}", data


def layer(name: str, text: str = "", compression: str = "gzip") -> Layer:
    """A layer with one file."""
    plain = tar({name: text.encode()})
    if compression == "gzip":
        return Layer(gzip.compress(plain, mtime=0), plain, compression)
    return Layer(zstandard.compress(plain) if compression == "zstd" else plain, plain, compression)


def image(*layers: Layer, architecture: str = "amd64", created: str = "2026-01-31T12:00:00Z", **config: Any) -> Image:
    """An image for linux/`architecture`; `config` goes into what it runs."""
    layers = layers or (layer("a", "one"), layer("b", "two"))
    platform = {"os": "linux", "architecture": architecture}
    document = platform | {
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(one.plain) for one in layers]},
        "history": [
            {"created": created, "created_by": "/bin/sh -c #(nop) ADD file:1 in / "},
            {"created": created, "created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
            *({"created": created, "created_by": f"RUN step {number}"} for number in range(1, len(layers))),
        ],
    }
    data = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": mediatypes.MANIFEST,
        "config": {"mediaType": mediatypes.CONFIG, "digest": Digest.of(data), "size": len(data)},
        "layers": [one.json() for one in layers],
    }
    return Image(json.dumps(manifest).encode(), data, layers, platform)


def index(*descriptors: dict[str, Any]) -> bytes:
    """An index of these."""
    return json.dumps({"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": list(descriptors)}).encode()


def described(data: bytes, **more: Any) -> dict[str, Any]:
    """The descriptor of an index."""
    return {"mediaType": mediatypes.INDEX, "digest": Digest.of(data), "size": len(data), **more}


def layout(descriptors: list[dict[str, Any]], *contents: Files) -> Files:
    """An OCI image layout."""
    files: Files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index(*descriptors)}
    for one in contents:
        files |= one
    return files


def named(one: Image, name: str) -> Files:
    """A layout of one image, as podman writes it."""
    return layout([one.descriptor(annotations={"org.opencontainers.image.ref.name": name})], one.blobs())


@dataclass
class DockerArchive:
    """What `docker save` wrote before version 25."""

    files: Files = field(default_factory=dict)
    list: list[dict[str, Any]] = field(default_factory=list)

    def add(self, one: Image, *tags: str, plain: bool = True) -> DockerArchive:
        """An image; plain: its layers are not compressed, as docker has them."""
        names = []
        for part in one.layers:
            data = part.plain if plain else part.data
            name = f"{Digest.of(data).encoded[::-1]}/layer.tar"  # docker's names of directories are no digests
            self.files[name] = data
            names.append(name)
        place = f"{one.id.encoded}.json"
        self.files[place] = one.config
        self.list.append({"Config": place, "RepoTags": list(tags) or None, "Layers": names})
        self.files["manifest.json"] = json.dumps(self.list).encode()
        return self


def tar(files: Files) -> bytes:
    """A tar of files, in the order in which they are given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, Link):
                entry.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
                entry.linkname = content.target
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def directory(path: Path, files: Files) -> Path:
    """The same as a directory."""
    for name, content in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            place.symlink_to(content.target)
        else:
            place.write_bytes(content)
    return path
