"""Images: names, and what they stand for.

A name holds its target (the manifest or index that it was pulled as), the manifest chosen for this platform, its configuration,
and by these all content; and the topmost of its unpacked layers, and by that all layers below.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from sqlite3 import Connection

from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.fields import parse
from ocirt_images.store.database import Database
from ocirt_images.store.leases import Lease
from ocirt_images.store.names import find, near
from ocirt_images.store.references import Freed, References

COLUMNS = "name, target, manifest, config, layer, pulled_by, created, updated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """A name in the store.

    target: what the name stands for: a manifest or an index. manifest: the one chosen for this platform. config: its
    configuration, whose digest is the image's ID. layer: the ChainID of the whole image, if it is unpacked. pulled_by: who
    brought it. created, updated: when the name came, and when it last changed; seconds since the epoch.
    """

    name: str
    target: Descriptor
    manifest: Digest
    config: Digest
    layer: Digest | None
    pulled_by: str
    created: float
    updated: float

    @property
    def id(self) -> str:
        """The image's ID: the hexadecimal digits of its configuration's digest."""
        return self.config.encoded


class Images:
    """The images of a store. Threads share it."""

    def __init__(self, database: Database, references: References) -> None:
        self._database = database
        self._references = references

    def put(
        self,
        name: str,
        target: Descriptor,
        *,
        manifest: Digest,
        config: Digest,
        lease: Lease,
        layer: Digest | None = None,
        pulled_by: str = "",
    ) -> ImageRecord:
        """Names an image, or gives a name to another one: what only the old one held is removed.

        target, manifest, config are in the store, and `layer` (the ChainID of the topmost layer) is committed; `lease` pins them.
        Raises Error("internal") if they are not.
        """
        now = time.time()
        lease.pin({target.digest, manifest, config}, [layer] if layer else [])
        with self._database.writing() as connection:
            old = connection.execute(f"SELECT {COLUMNS} FROM images WHERE name = ?", (name,)).fetchone()
            held = _held(connection, name)
            _check(connection, name, {target.digest, manifest, config}, layer)
            connection.execute("DELETE FROM images WHERE name = ?", (name,))
            text = json.dumps(target.json(), sort_keys=True)
            created = old[6] if old else now
            updated = old[7] if old and old[1:5] == (text, manifest, config, layer) else now
            values = (name, text, manifest, config, layer, pulled_by, created, updated)
            connection.execute("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
            hold(connection, name, {target.digest, manifest, config}, layer)
        self._references.free(*held)
        found = self.get(name)
        if found is None:
            raise Error("not-found", "the image was removed at the same time", subject=name)
        return found

    def tag(self, name: str, other: str) -> ImageRecord:
        """Gives an image another name too. Raises Error("not-found") if there is no `name`."""
        found = self.find(name)
        with self._database.writing() as connection:
            held = _held(connection, other) if other != found.name else ([], [])
            if other != found.name:
                connection.execute("DELETE FROM images WHERE name = ?", (other,))
                copied = "target, manifest, config, layer, pulled_by"
                said = f"INSERT INTO images SELECT ?, {copied}, ?, ? FROM images WHERE name = ?"
                now = time.time()
                if not connection.execute(said, (other, now, now, found.name)).rowcount:
                    raise Error("not-found", "the image was removed at the same time", subject=name)
                hold(connection, other, {found.target.digest, found.manifest, found.config}, found.layer)
        self._references.free(*held)
        return self.find(other)

    def get(self, name: str) -> ImageRecord | None:
        """The image with exactly this name."""
        with self._database.reading() as connection:
            row = connection.execute(f"SELECT {COLUMNS} FROM images WHERE name = ?", (name,)).fetchone()
        return record(row) if row else None

    def find(self, text: str) -> ImageRecord:
        """The image that a person means: by name (as it stands, or short), by digest, or by its ID or the beginning of one.

        Raises Error("not-found") that lists near names, Error("invalid") that lists the images that an ID could mean.
        """
        return find(text, self.list())

    def list(self) -> list[ImageRecord]:
        """All images, by name."""
        with self._database.reading() as connection:
            return [record(row) for row in connection.execute(f"SELECT {COLUMNS} FROM images ORDER BY name")]

    def delete(self, name: str) -> Freed:
        """Removes a name, and what nothing else refers to. Raises Error("not-found") that lists near names."""
        with self._database.writing() as connection:
            held = _held(connection, name)
            gone = connection.execute("DELETE FROM images WHERE name = ?", (name,)).rowcount
        if not gone:
            raise near(name, self.list())
        return self._references.free(*held)


def hold(connection: Connection, name: str, digests: set[Digest], layer: Digest | None) -> None:
    """The rows of what an image refers to."""
    connection.executemany("INSERT INTO image_content VALUES (?, ?)", [(name, digest) for digest in sorted(digests)])
    if layer is not None:
        connection.execute("INSERT INTO image_layers VALUES (?, ?)", (name, layer))


def _check(connection: Connection, name: str, digests: set[Digest], layer: Digest | None) -> None:
    for digest in sorted(digests):
        if not connection.execute("SELECT 1 FROM content WHERE digest = ?", (digest,)).fetchone():
            raise Error("internal", "content of the image is not in the store", subject=name, cause=digest)
    if layer is not None and not connection.execute("SELECT 1 FROM layers WHERE chain_id = ?", (layer,)).fetchone():
        raise Error("internal", "the image's layer is not committed", subject=name, cause=layer)


def _held(connection: Connection, name: str) -> tuple[list[Digest], list[Digest]]:
    """What an image refers to: content and layers."""
    contents = connection.execute("SELECT digest FROM image_content WHERE image = ?", (name,)).fetchall()
    layers = connection.execute("SELECT chain_id FROM image_layers WHERE image = ?", (name,)).fetchall()
    return [Digest(one) for (one,) in contents], [Digest(one) for (one,) in layers]


def record(row: tuple[str, str, str, str, str | None, str, float, float]) -> ImageRecord:
    """An image from its row. Raises Error("invalid") that names it."""
    name, target, manifest, config, layer, pulled_by, created, updated = row
    subject = f"image {name}"
    return ImageRecord(
        name=name,
        target=Descriptor.parse(parse(target.encode(), subject), subject),
        manifest=Digest(manifest, subject),
        config=Digest(config, subject),
        layer=Digest(layer, subject) if layer else None,
        pulled_by=pulled_by,
        created=created,
        updated=updated,
    )
