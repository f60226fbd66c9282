"""Damages of a store, as a disk, a careless person or a killed program leave them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ocirt_images.digest import Digest
from ocirt_images.store import Store, notes
from ocirt_images.store.layout import Layout
from tests.support.store.samples import pull, sample

ONE = sample("registry.example/one:1", ("a", "b", "c"))
TWO = sample("registry.example/two:1", ("a", "d"))
KEY = "container-1"


class Planted:
    """A store with two images and a writable layer, and what a damage needs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(root)
        with Store.open(root, sync=False) as store:
            pull(store, ONE)
            pull(store, TWO)
            record = store.writables.create(KEY, ONE.chain_ids[-1])
            (record.path / "written").write_text("by a container")
            self.writable = record.path.parent
            self.numbers = [layer.id for layer in store.layers.chain(ONE.chain_ids[-1])]

    def sql(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.layout.database, isolation_level=None)) as connection:
            connection.execute(statement, values)

    def blob(self, data: bytes) -> Path:
        return self.layout.blob(Digest.of(data))

    def write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)


Damage = Callable[[Planted], object]


def flip(planted: Planted) -> None:
    data = bytearray(ONE.layers[1])
    data[77] ^= 4
    planted.write(planted.blob(ONE.layers[1]), bytes(data))


def flip_manifest(planted: Planted) -> None:
    planted.write(planted.blob(ONE.manifest), ONE.manifest[:-1] + b" ")


def truncate(planted: Planted) -> None:
    planted.write(planted.blob(ONE.layers[0]), ONE.layers[0][:1000])


def longer(planted: Planted) -> None:
    planted.write(planted.blob(ONE.layers[0]), ONE.layers[0] + b"\0")


def exchange_by_link(planted: Planted) -> None:
    path = planted.blob(ONE.layers[0])
    path.rename(planted.root / "elsewhere")
    path.symlink_to(planted.root / "elsewhere")


def fifo_for_blob(planted: Planted) -> None:
    path = planted.blob(ONE.layers[0])
    path.unlink()
    os.mkfifo(path, 0o444)


def torn_layer_row(planted: Planted) -> None:
    planted.sql("UPDATE layers SET diff_id = 'sha256:12' WHERE id = ?", planted.numbers[-1])


def damaged_index(planted: Planted) -> None:
    """The page where the index of links begins gets other bytes."""
    with closing(sqlite3.connect(planted.layout.database)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'links_target'").fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with planted.layout.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x55" * size)


def move_layer(planted: Planted) -> None:
    """A whole layer loses its row."""
    planted.sql("DELETE FROM image_layers WHERE chain_id = ?", TWO.chain_ids[-1])
    planted.sql("DELETE FROM layers WHERE chain_id = ?", TWO.chain_ids[-1])


def interrupt(planted: Planted, *suffixes: str) -> None:
    for suffix in suffixes:
        (planted.layout.ingests / f"sha256-{Digest.of(b'nobody').encoded}{suffix}").write_bytes(b"half")


def ingest_again(planted: Planted) -> None:
    planted.layout.ingest(ONE.target.digest).touch()
    planted.layout.map(ONE.target.digest).touch()


def leftover(planted: Planted, directory: Path) -> None:
    planted.sql("INSERT INTO leftovers VALUES (99, ?)", Digest.of(b"?"))
    (directory / "fs").mkdir(parents=True)


# Name: (what is done, the kinds that are found in this order; those after it are its consequences).
DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "bit flip in a blob": (flip, ["blob-damaged"]),
    "bit flip in a manifest": (flip_manifest, ["blob-damaged", "image-incomplete"]),
    "truncated blob": (truncate, ["blob-truncated"]),
    "longer blob": (longer, ["blob-damaged"]),
    "missing blob": (lambda p: p.blob(ONE.layers[2]).unlink(), ["blob-missing"]),
    "link instead of a blob": (exchange_by_link, ["blob-missing"]),
    "pipe instead of a blob": (fifo_for_blob, ["blob-missing"]),
    "missing manifest": (lambda p: p.blob(ONE.manifest).unlink(), ["blob-missing", "image-incomplete"]),
    "missing configuration": (lambda p: p.blob(TWO.config).unlink(), ["blob-missing", "image-incomplete"]),
    "extra blob": (lambda p: p.write(p.layout.blobs / "sha256" / ("0" * 64), b"what?"), ["blob-extra"]),
    "extra file between blobs": (lambda p: p.write(p.layout.blobs / "sha256" / "README", b"what?"), ["blob-extra"]),
    "extra folder of blobs": (lambda p: p.write(p.layout.blobs / "md5" / "1", b"what?"), ["blob-extra"]),
    "missing index row": (lambda p: p.sql("DELETE FROM content WHERE digest = ?", Digest.of(ONE.layers[1])), ["blob-unindexed"]),
    "missing row of a manifest": (
        lambda p: p.sql("DELETE FROM content WHERE digest = ?", ONE.target.digest),
        ["blob-unindexed"],
    ),
    "wrong size in a row": (
        lambda p: p.sql("UPDATE content SET size = 7 WHERE digest = ?", Digest.of(ONE.config)),
        ["size-wrong"],
    ),
    "text for a size": (
        lambda p: p.sql("UPDATE content SET size = 'torn' WHERE digest = ?", Digest.of(ONE.config)),
        ["size-wrong"],
    ),
    "invalid digest in a row": (lambda p: p.sql("INSERT INTO content VALUES ('sha256:xyz', 1, 1)"), ["row-invalid"]),
    "torn row": (lambda p: p.sql("INSERT INTO content VALUES (x'0001', 1, 1)"), ["row-invalid"]),
    "torn row of a layer": (torn_layer_row, ["row-invalid", "layer-unindexed"]),
    "torn row of an image": (lambda p: p.sql("UPDATE images SET target = '{\"dig' WHERE name = ?", ONE.name), ["row-invalid"]),
    "number for an image": (lambda p: p.sql("UPDATE images SET config = x'00' WHERE name = ?", ONE.name), ["row-invalid"]),
    "missing reference": (lambda p: p.sql("DELETE FROM links WHERE target = ?", Digest.of(ONE.layers[0])), ["links-wrong"] * 2),
    "one reference too many": (
        lambda p: p.sql("INSERT INTO links VALUES (?, ?)", ONE.target.digest, Digest.of(TWO.config)),
        ["links-wrong"],
    ),
    "reference of nobody": (lambda p: p.sql("INSERT INTO links VALUES ('sha256:1', 'sha256:2')"), ["row-dangling"]),
    "reference of an image that is gone": (
        lambda p: p.sql("INSERT INTO image_content VALUES ('x', ?)", ONE.target.digest),
        ["row-dangling"],
    ),
    "pin of a lease that is gone": (lambda p: p.sql("INSERT INTO lease_content VALUES (99, 'sha256:2')"), ["row-dangling"]),
    "missing reference of an image": (lambda p: p.sql("DELETE FROM image_content"), ["image-references-wrong"] * 2),
    "image without its layer": (
        lambda p: p.sql("DELETE FROM image_layers WHERE image = ?", ONE.name),
        ["image-references-wrong"],
    ),
    "missing layer directory": (lambda p: shutil.rmtree(p.layout.layer(p.numbers[-1])), ["layer-missing"]),
    "missing layer in the middle": (lambda p: shutil.rmtree(p.layout.layer(p.numbers[1])), ["layer-missing", "layer-orphan"]),
    "extra layer folder": (lambda p: shutil.copytree(p.layout.layer(1) / "fs", p.layout.layer(77) / "fs"), ["layer-extra"]),
    "extra file between layers": (lambda p: p.write(p.layout.layers / "notes.txt", b""), ["layer-extra"]),
    "copy of a layer": (lambda p: shutil.copytree(p.layout.layer(1), p.layout.layer(77)), ["layer-extra"]),
    "layer without a row": (move_layer, ["layer-unindexed", "image-references-wrong"]),
    "layer with a missing parent": (
        lambda p: p.sql("UPDATE layers SET parent = ? WHERE id = ?", Digest.of(b"?"), p.numbers[-1]),
        ["layer-orphan"],
    ),
    "layer without a note": (lambda p: (p.layout.layer(1) / notes.LAYER).unlink(), ["layer-note-wrong"]),
    "stale ingest without a map": (lambda p: interrupt(p, ""), ["ingest-stale"]),
    "stale map": (lambda p: interrupt(p, ".map"), ["ingest-stale"]),
    "ingest of what is there": (ingest_again, ["ingest-stale"]),
    "extra file in ingest": (lambda p: p.write(p.layout.ingests / "core", b"x"), ["ingest-stale"]),
    "stale staging": (lambda p: (p.layout.staged(99) / "fs" / "deep").mkdir(parents=True), ["staging-stale"]),
    "stale staging with a row": (lambda p: leftover(p, p.layout.staged(99)), ["staging-stale"]),
    "extra file in staging": (lambda p: p.write(p.layout.staging / "core", b"x"), ["staging-stale"]),
    "unfinished removal of a layer": (lambda p: leftover(p, p.layout.layer(99)), ["removal-unfinished"]),
    "unfinished removal of content": (
        lambda p: p.sql("INSERT INTO removals VALUES (?)", Digest.of(b"?")),
        ["removal-unfinished"],
    ),
    "unfinished removal of a writable": (lambda p: p.sql("INSERT INTO abandoned VALUES (99)"), ["removal-unfinished"]),
    "torn row of a removal": (lambda p: p.sql("INSERT INTO removals VALUES ('?')"), ["row-invalid"]),
    "orphan writable": (lambda p: (p.layout.writable(99) / "fs").mkdir(parents=True), ["writable-extra"]),
    "writable without a row": (lambda p: p.sql("DELETE FROM writables"), ["writable-unindexed"]),
    "missing writable": (lambda p: shutil.rmtree(p.writable), ["writable-missing"]),
    "writable without a work directory": (lambda p: (p.writable / "work").rmdir(), ["directory-missing"]),
    "torn row of a writable": (lambda p: p.sql("UPDATE writables SET chain_id = 'x'"), ["row-invalid", "writable-unindexed"]),
    "writable without a note": (lambda p: (p.writable / notes.WRITABLE).unlink(), ["writable-note-wrong"]),
    "mode of a blob": (lambda p: p.blob(ONE.config).chmod(0o644), ["mode-wrong"]),
    "mode of the layers": (lambda p: p.layout.layers.chmod(0o755), ["mode-wrong"]),
    "mode of a layer": (lambda p: p.layout.layer(1).chmod(0o755), ["mode-wrong"]),
    "mode of the database": (lambda p: p.layout.database.chmod(0o644), ["mode-wrong"]),
    "missing directory": (lambda p: p.layout.ingests.rmdir(), ["directory-missing"]),
}

# Name: what is done to the database's file.
DATABASES: dict[str, Damage] = {
    "missing table": lambda p: p.sql("DROP TABLE lease_layers"),
    "missing index": lambda p: p.sql("DROP INDEX links_target"),
    "damaged index": damaged_index,
    "no database": lambda p: p.layout.database.unlink(),
    "database of zeros": lambda p: p.layout.database.write_bytes(bytes(8192)),
    "text for a database": lambda p: p.layout.database.write_text("once upon a time " * 500),
    "short database": lambda p: os.truncate(p.layout.database, 20000),
    "empty database": lambda p: os.truncate(p.layout.database, 0),
}
