"""The tables of a store, and how an older store's become today's.

Rows count only what is whole on disk. A reference is a row of its own, so a count of references is a query that an index
answers, and can't be wrong by one after a kill: rows that an owner holds go with the owner's row (ON DELETE CASCADE).

    content     a blob                    links          blob → blob: an index's manifests, a manifest's configuration and layers
    layers      an unpacked layer         image_content  image → blob
    images      a name                    image_layers   image → its topmost layer (a layer holds its parent)
    writables   a writable layer          lease_content  lease → blob, also one that is yet to come
    leases      a pin                     lease_layers   lease → layer, also one that is yet to come

    removals    blobs whose row is gone, and whose file goes next
    leftovers   layer directories that are being made (no row in `layers` yet) or removed (no row any more)
    abandoned   directories of writable layers, the same

A target is not checked to exist where it may come later: an index names manifests of other platforms, which nobody fetches; a
writable layer outlives a layer below it that was damaged, and is whole again when that layer is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from pathlib import Path
    from sqlite3 import Connection

_FIRST = """
CREATE TABLE version (number INTEGER NOT NULL);
INSERT INTO version VALUES (0);

CREATE TABLE content (
    digest TEXT NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL CHECK (size >= 0),
    created REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE links (
    holder TEXT NOT NULL REFERENCES content (digest) ON DELETE CASCADE,
    target TEXT NOT NULL,
    PRIMARY KEY (holder, target)
) WITHOUT ROWID;
CREATE INDEX links_target ON links (target);
CREATE TABLE removals (digest TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE leftovers (id INTEGER PRIMARY KEY AUTOINCREMENT, chain_id TEXT NOT NULL);
CREATE TABLE layers (
    id INTEGER PRIMARY KEY,
    chain_id TEXT NOT NULL UNIQUE,
    parent TEXT REFERENCES layers (chain_id),
    diff_id TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    inodes INTEGER NOT NULL CHECK (inodes >= 0),
    created REAL NOT NULL
);
CREATE INDEX layers_parent ON layers (parent);
CREATE TABLE writables (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    chain_id TEXT,
    created REAL NOT NULL
);
CREATE INDEX writables_layer ON writables (chain_id);
CREATE TABLE abandoned (id INTEGER PRIMARY KEY AUTOINCREMENT);

CREATE TABLE images (
    name TEXT NOT NULL PRIMARY KEY,
    target TEXT NOT NULL,
    manifest TEXT NOT NULL,
    config TEXT NOT NULL,
    layer TEXT,
    pulled_by TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE image_content (
    image TEXT NOT NULL REFERENCES images (name) ON DELETE CASCADE,
    digest TEXT NOT NULL REFERENCES content (digest),
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;
CREATE INDEX image_content_digest ON image_content (digest);
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images (name) ON DELETE CASCADE,
    chain_id TEXT NOT NULL REFERENCES layers (chain_id),
    PRIMARY KEY (image, chain_id)
) WITHOUT ROWID;
CREATE INDEX image_layers_layer ON image_layers (chain_id);

CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    expires REAL NOT NULL
);
CREATE TABLE lease_content (
    lease INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY (lease, digest)
) WITHOUT ROWID;
CREATE INDEX lease_content_digest ON lease_content (digest);
CREATE TABLE lease_layers (
    lease INTEGER NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    chain_id TEXT NOT NULL,
    PRIMARY KEY (lease, chain_id)
) WITHOUT ROWID;
CREATE INDEX lease_layers_layer ON lease_layers (chain_id);
"""

# Entry N makes version N + 1 of version N. Entries are never changed once a release had them, only added.
MIGRATIONS = [_FIRST]


def version(connection: Connection, subject: Path) -> int:
    """The version of a store: 0 if there is nothing yet. Raises Error("unsupported") for one that is newer than this program."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'version'").fetchone():
        return 0
    row = connection.execute("SELECT number FROM version").fetchone()
    found = row[0] if row and isinstance(row[0], int) else 0
    if found > len(MIGRATIONS):
        what = f"the store has version {found}, and this ocirt knows versions up to {len(MIGRATIONS)}"
        hint = "use the ocirt that wrote it, or a newer one, or another --image-root"
        raise Error("unsupported", what, subject=str(subject), hint=hint)
    return found


def statements(number: int) -> list[str]:
    """What makes version `number` + 1 of version `number`, statement by statement."""
    found = [one.strip() for one in MIGRATIONS[number].split(";\n") if one.strip()]
    return [*found, f"UPDATE version SET number = {number + 1}"]
