"""Writes images as an OCI image layout with docker's manifest.json beside it, so that every tool can load it.

The bytes of an index are kept, and with them its digest, even if the manifests for other platforms were never fetched. Files are
sorted and have no times, so the same images make the same bytes. Content is verified as it is read.
"""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from ocirt_images import held, mediatypes
from ocirt_images.archive import layout, streams
from ocirt_images.errors import Error
from ocirt_images.manifest import Index

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.fields import Json
    from ocirt_images.manifest import Manifest
    from ocirt_images.platforms import Platform
    from ocirt_images.reference import Reference
    from ocirt_images.store import Store


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image to write.

    target: the manifest or index that its names stand for; manifest: the one for this machine
    reference: None for an image without a name
    """

    target: Descriptor
    manifest: Digest
    reference: Reference | None


class Writer(Protocol):
    """Where the files of an archive go. They come in the order of their names."""

    def add(self, name: str, size: int, write: Callable[[Callable[[bytes], None]], None]) -> None:
        """A file of `size` bytes, which `write` passes to the function that it is given. Raises OSError."""

    def close(self) -> None:
        """Nothing follows."""


class TarWriter:
    """A tar, for a descriptor that stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._directories: set[str] = set()

    def add(self, name: str, size: int, write: Callable[[Callable[[bytes], None]], None]) -> None:
        """A file, with the directories above it if they are new."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth]) + "/"
            if directory not in self._directories:
                self._directories.add(directory)
                self._header(directory, 0, 0o755, tarfile.DIRTYPE)
        self._header(name, size, 0o644, tarfile.REGTYPE)
        write(self._bytes)
        self._bytes(bytes(-size % tarfile.BLOCKSIZE))

    def close(self) -> None:
        """The two empty blocks at the end, and as much as makes a whole record."""
        self._bytes(bytes(tarfile.RECORDSIZE))

    def _header(self, name: str, size: int, mode: int, kind: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.type = size, mode, kind
        self._bytes(entry.tobuf(tarfile.PAX_FORMAT))

    def _bytes(self, data: bytes) -> None:
        with memoryview(data) as rest:
            done = 0
            while done < len(rest):
                done += os.write(self._fd, rest[done:])


class DirectoryWriter:
    """An empty or new directory."""

    def __init__(self, path: Path) -> None:
        """Raises Error("exists") if there is something in it, OSError."""
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise Error("exists", "the directory is not empty", subject=str(path), hint="name one that is new")
        self._path = path

    def add(self, name: str, size: int, write: Callable[[Callable[[bytes], None]], None]) -> None:
        """A file."""
        del size
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb", buffering=0) as file:
            write(lambda data: _all(file.fileno(), data))

    def close(self) -> None:
        """Nothing is left to do."""


def _all(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.write(fd, memoryview(data)[done:])


def save(store: Store, images: Iterable[Chosen], writer: Writer, wanted: Platform | None) -> None:
    """Write images. wanted: for this platform alone, instead of all that is here.

    Raises Error("not-found") if nothing of an image is here for the platform, Error("corrupt") for content that is damaged.
    """
    blobs: dict[Digest, int] = {}
    index: list[Json] = []
    loads: dict[Digest, Json] = {}
    for image in sorted(images, key=lambda one: (str(one.reference or ""), one.target.digest)):
        target, manifests = _contents(store, image.target, wanted, blobs)
        index.append(_named(target, image.reference).json())
        _list(loads, manifests.get(image.manifest) or next(iter(manifests.values())), image.reference)
    files: dict[str, bytes | Digest] = {_place(digest): digest for digest in blobs}
    files[layout.MARK] = _json({"imageLayoutVersion": layout.VERSION})
    files[layout.INDEX] = _json({"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": index})
    files["manifest.json"] = _json(list(loads.values()))
    for name in sorted(files):
        _write(store, writer, name, files[name])
    writer.close()


def _write(store: Store, writer: Writer, name: str, content: bytes | Digest) -> None:
    if isinstance(content, bytes):
        writer.add(name, len(content), lambda write: write(content))
    else:
        writer.add(name, store.content.size(content), lambda write: _copy(store, content, write))


def _copy(store: Store, digest: Digest, write: Callable[[bytes], None]) -> None:
    """Pass on content, and see that it is what its digest says. Raises Error("corrupt")."""
    hasher = digest.hasher()
    fd = store.content.open(digest)
    try:
        while data := os.read(fd, streams.CHUNK):
            hasher.update(data)
            write(data)
    finally:
        os.close(fd)
    if hasher.hexdigest() != digest.encoded:
        raise Error("corrupt", "its file has other bytes", subject=str(digest), hint="ocirt fsck --repair, then pull again")


def _contents(
    store: Store, target: Descriptor, wanted: Platform | None, blobs: dict[Digest, int]
) -> tuple[Descriptor, dict[Digest, Manifest]]:
    """What is to be written of an image, added to `blobs`: its uppermost descriptor, and its manifests that are here whole."""
    if wanted is not None:
        target = held.narrowed(store, target, wanted)
    manifests: dict[Digest, Manifest] = {}
    seen: set[Digest] = set()
    queue = [(target, 0)]
    while queue:
        one, depth = queue.pop(0)
        if one.digest in seen:
            continue
        seen.add(one.digest)
        found = held.read(store, one)
        if isinstance(found, Index):
            blobs[one.digest] = one.size
            below = [child for child in found.manifests if child.media_type in mediatypes.KNOWN]
            queue += [(child, depth + 1) for child in below if depth < held.DEEPEST and store.content.has(child.digest)]
            continue
        parts = [one, found.config, *found.layers]
        if not store.content.missing(part.digest for part in parts):
            blobs.update((part.digest, part.size) for part in parts)
            manifests[one.digest] = found
        elif one is target:
            raise Error("not-found", "not all of its content is here", subject=str(one.digest), hint="pull it again")
    if not manifests:
        raise Error(
            "not-found", "not all of its content is here, for any platform", subject=str(target.digest), hint="pull it again"
        )
    return target, manifests


def _named(target: Descriptor, reference: Reference | None) -> Descriptor:
    """As index.json has it, with the name where containerd and docker look for it, and where podman and skopeo do."""
    annotations = {}
    if reference is not None:
        annotations = {layout.WHOLE_NAME: str(reference), layout.REFERENCE: str(reference)}
    return replace(target, annotations=annotations)


def _list(loads: dict[Digest, Json], image: Manifest, reference: Reference | None) -> None:
    """Add to docker's list, which knows one platform: an entry for all names of an image."""
    place, *layers = (_place(part.digest) for part in (image.config, *image.layers))
    entry = loads.setdefault(image.config.digest, {"Config": place, "RepoTags": [], "Layers": layers})
    if reference is not None and reference.tag:
        entry["RepoTags"].append(str(reference))  # short ones are localhost's for podman


def _place(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
