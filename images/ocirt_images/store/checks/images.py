"""Images: each name's manifest and configuration are there, and its references are what its row says."""

from __future__ import annotations

from functools import partial

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store.checks.findings import Check
from ocirt_images.store.images import COLUMNS, ImageRecord, hold, record

# Rows that belong to another one, which must be there: table, column, the other's table and column.
_OWNED = (
    ("image_content", "image", "images", "name"),
    ("image_layers", "image", "images", "name"),
    ("lease_content", "lease", "leases", "id"),
    ("lease_layers", "lease", "leases", "id"),
)


def check(check: Check) -> None:
    """Rows of images, and of what holds other things."""
    images, contents, layers, held, held_layers = check.tables(
        f"SELECT {COLUMNS} FROM images ORDER BY name",
        "SELECT digest FROM content",
        "SELECT chain_id FROM layers",
        "SELECT image, digest FROM image_content",
        "SELECT image, chain_id FROM image_layers",
    )
    there = {digest for (digest,) in contents} - check.gone | check.unindexed
    committed = {chain_id for (chain_id,) in layers}
    for row in images:
        found = _valid(check, row)
        if found is None:
            continue
        if lacking := _contents(found) - there:
            text = f"{min(lacking)} is not there"
            check.found("image-incomplete", found.name, text, partial(_delete, check, found.name))
            continue
        layer = found.layer if found.layer in committed else None
        has = {digest for name, digest in held if name == found.name}
        has_layers = {chain_id for name, chain_id in held_layers if name == found.name}
        if has != _contents(found) or has_layers != ({layer} - {None}) or layer != found.layer:
            text = f"it holds {len(has)} contents and {len(has_layers)} layers, and names others"
            check.found("image-references-wrong", found.name, text, partial(_hold, check, found, layer))
    for table, column, other, key in _OWNED:
        _dangling(check, table, column, other, key)


def _valid(check: Check, row: tuple[object, ...]) -> ImageRecord | None:
    """An image from its row, or the row goes."""
    name, target, manifest, config, layer, pulled_by, created, updated = row
    texts = (name, target, manifest, config, pulled_by, layer or "")
    try:
        if not all(isinstance(text, str) for text in texts):
            raise Error("invalid", "a value of the wrong type")
        if not isinstance(created, (int, float)) or not isinstance(updated, (int, float)):
            raise Error("invalid", "not a time")
        return record(row)  # type: ignore[arg-type]  # its types were just checked
    except Error as err:
        check.found("row-invalid", f"image {name!r:.120}", str(err), partial(_delete, check, name))
        return None


def _contents(image: ImageRecord) -> set[Digest]:
    return {image.target.digest, image.manifest, image.config}


def _delete(check: Check, name: object) -> None:
    with check.repairing() as connection:
        for table, column in (("image_content", "image"), ("image_layers", "image"), ("images", "name")):
            connection.execute(f"DELETE FROM {table} WHERE {column} IS ?", (name,))


def _hold(check: Check, image: ImageRecord, layer: Digest | None) -> None:
    with check.repairing() as connection:
        connection.execute("DELETE FROM image_content WHERE image = ?", (image.name,))
        connection.execute("DELETE FROM image_layers WHERE image = ?", (image.name,))
        connection.execute("UPDATE images SET layer = ? WHERE name = ?", (layer, image.name))
        hold(connection, image.name, _contents(image), layer)


def _dangling(check: Check, table: str, column: str, other: str, key: str) -> None:
    condition = f"NOT EXISTS (SELECT 1 FROM {other} WHERE {other}.{key} IS {table}.{column})"
    for (holder,) in check.rows(f"SELECT DISTINCT {column} FROM {table} WHERE {condition}"):
        drop = partial(check.execute, f"DELETE FROM {table} WHERE {column} IS ?", holder)
        check.found("row-dangling", f"{table} of {holder!r:.120}", f"there is no such row in {other}", drop)
