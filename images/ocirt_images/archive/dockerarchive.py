"""What `docker save` wrote before version 25, and others still do: manifest.json, configurations and layers, no manifests.

The manifest is made here. Its digest is ours alone; the image's ID, which is the digest of the configuration, is docker's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ocirt_images import mediatypes
from ocirt_images.archive import streams
from ocirt_images.archive.contents import Archive, Entry
from ocirt_images.config import ImageConfig
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.fields import Json, mapping, text, texts
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from ocirt_images.archive.files import Files

LIST = "manifest.json"
OLD = "repositories"  # all that docker before 1.10 wrote beside layers


def read(files: Files) -> Archive:
    """The images that manifest.json lists. Raises Error("invalid"), Error("not-found") for a file that is missing."""
    archive = Archive(files, [])
    for number, entry in enumerate(_list(files)):
        _add(archive, entry, f"{files.subject}: {LIST}/{number}")
    return archive


def tags(files: Files) -> dict[Digest, tuple[str, ...]]:
    """The names in manifest.json by the digests of configurations, which there are files of that name in a layout."""
    found: dict[Digest, tuple[str, ...]] = {}
    for number, entry in enumerate(_list(files) if files.has(LIST) else []):
        pointer = f"{files.subject}: {LIST}/{number}"
        config = text(entry, "Config", pointer)
        if config.startswith("blobs/"):
            digest = Digest(config.removeprefix("blobs/").replace("/", ":", 1), f"{pointer}/Config")
            found[digest] = _names(entry, pointer)
    return found


def _list(files: Files) -> list[Json]:
    subject = f"{files.subject}: {LIST}"
    try:
        found = json.loads(files.read(LIST))
    except (ValueError, RecursionError) as err:
        raise Error("invalid", "not JSON", subject=subject, cause=str(err)[:200]) from None
    if not isinstance(found, list):
        raise Error("invalid", "a list is wanted", subject=subject)
    return [mapping(entry, f"{subject}/{number}") for number, entry in enumerate(found)]


def _names(entry: Json, pointer: str) -> tuple[str, ...]:
    return tuple(name for one in texts(entry, "RepoTags", pointer) if (name := Reference.full(one)))


def _add(archive: Archive, entry: Json, pointer: str) -> None:
    """Make the manifest of one image."""
    files = archive.files
    place = text(entry, "Config", pointer)
    data = files.read(place)
    config = ImageConfig.read(data, f"{files.subject}: {place}")
    names = texts(entry, "Layers", pointer)
    if len(names) != len(config.diff_ids):
        what = f"{len(names)} layers, but {len(config.diff_ids)} in the configuration"
        raise Error("invalid", what, subject=f"{pointer}/Layers")
    layers = []
    for name, diff_id in zip(names, config.diff_ids, strict=True):
        layer = _layer(files, name, diff_id)
        archive.places[layer.digest] = name
        layers.append(layer)
    described = Descriptor(media_type=mediatypes.CONFIG, digest=Digest.of(data), size=len(data))
    archive.places[described.digest] = place
    made = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.MANIFEST,
            "config": described.json(),
            "layers": [layer.json() for layer in layers],
        },
        separators=(",", ":"),
    ).encode()
    target = Descriptor(media_type=mediatypes.MANIFEST, digest=Digest.of(made), size=len(made))
    archive.made[target.digest] = made
    archive.entries.append(Entry((target,), _names(entry, pointer)))


def _layer(files: Files, name: str, diff_id: Digest) -> Descriptor:
    """What a manifest says of a layer. One that is not compressed has its DiffID for a digest, which is verified on reading."""
    with files.open(name) as (reader, size):
        compression = streams.compression(reader.read(4))
    suffix = f"+{compression}" if compression else ""
    digest = files.digest(name) if compression else diff_id
    return Descriptor(media_type=mediatypes.LAYER + suffix, digest=digest, size=size)
