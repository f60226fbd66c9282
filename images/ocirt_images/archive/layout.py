"""OCI image layouts (image-spec, image-layout.md), with the names that several tools give to the images in them.

The specification leaves open what `org.opencontainers.image.ref.name` holds: podman and kaniko write a whole name, docker,
containerd and umoci a tag. docker and containerd write the whole name into `io.containerd.image.name`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images import mediatypes
from ocirt_images.archive import dockerarchive
from ocirt_images.archive.contents import Archive, Entry
from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.fields import items, parse, text
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from ocirt_images.archive.files import Files

VERSION = "1.0.0"
MARK, INDEX = "oci-layout", "index.json"
REFERENCE = "org.opencontainers.image.ref.name"
WHOLE_NAME = "io.containerd.image.name"


def read(files: Files) -> Archive:
    """The images of a layout, with the names in `docker save`'s manifest.json for those that have none else.

    Raises Error("invalid"), Error("unsupported") for a layout of another version.
    """
    subject = files.subject
    if files.has(MARK):
        found = text(parse(files.read(MARK), f"{subject}: {MARK}"), "imageLayoutVersion", f"{subject}: {MARK}")
        if found != VERSION:
            raise Error("unsupported", f"an image layout of version {found[:20]}", subject=subject, hint=f"{VERSION} is known")
    where = f"{subject}: {INDEX}"
    grouped: dict[tuple[str, str], list[Descriptor]] = {}
    for number, one in enumerate(items(parse(files.read(INDEX), where), "manifests", where)):
        target = Descriptor.parse(one, f"{where}/manifests/{number}")
        if target.media_type in mediatypes.KNOWN | mediatypes.SCHEMA_1 and not _attests(target):
            grouped.setdefault(_named(target.annotations), []).append(target)
    entries = []
    for (name, tag), targets in grouped.items():
        # Without a name, images for several platforms are one image; others are many.
        if name or tag or all(target.platform is not None for target in targets):
            entries.append(Entry(tuple(targets), (name,) if name else (), tag))
        else:
            entries += [Entry((target,)) for target in targets]
    return Archive(files, entries, tags=dockerarchive.tags(files))


def _attests(target: Descriptor) -> bool:
    return target.platform is not None and target.platform.nobody


def _named(annotations: dict[str, str]) -> tuple[str, str]:
    """The whole name that annotations give, or "", and what stands in its place."""
    said = annotations.get(REFERENCE, "")
    name = Reference.full(annotations.get(WHOLE_NAME, ""))
    if not name and ("/" in said or ":" in said):
        name = Reference.full(said)
    return name, "" if name else said
