"""Repositories of the same registry that may have a blob: those of the images here whose names are of that registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.reference import Reference
from ocirt_images.store.links import links

if TYPE_CHECKING:
    from collections.abc import Collection

    from ocirt_images.digest import Digest
    from ocirt_images.store import ImageRecord, Store

_MOST = 3  # that are asked for one blob


def sources(store: Store, reference: Reference, blobs: Collection[Digest]) -> dict[Digest, list[str]]:
    """For each blob the paths of repositories that may have it, `reference`'s own left out.

    An image that was pulled is likelier to be there than one that was only named so, and comes first.
    """
    found: dict[Digest, list[str]] = {}
    for record in sorted(store.images.list(), key=lambda one: not one.pulled_by):
        path = _path(record, reference)
        if not path or not store.content.has(record.manifest):
            continue
        for digest in links(store.content.read(record.manifest)).intersection(blobs):
            paths = found.setdefault(digest, [])
            if path not in paths and len(paths) < _MOST:
                paths.append(path)
    return found


def _path(record: ImageRecord, reference: Reference) -> str:
    """The repository of an image, if it is another one of the same registry."""
    try:
        named = Reference.parse(record.name)
    except Error:
        return ""  # a name that is a digest
    return named.path if named.host == reference.host and named.path != reference.path else ""
