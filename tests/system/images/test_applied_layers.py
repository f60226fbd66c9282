"""From layers as archives to a root file system: what the applier writes is what the mount and the copy read."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from ocirt_images.apply.job import Job
from ocirt_images.apply.settle import settle
from ocirt_images.apply.worker import Workers
from ocirt_images.digest import Digest
from ocirt_images.snapshots import Overlay, copy_layers
from tests.support.layers import listing

Entries = list[tuple[str, str | None]]  # a path and its content; None: a directory
NAMES = ("a", "b", "c", "d")


def archive(path: Path, entries: Entries) -> Digest:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content.encode()))
    path.write_bytes(data.getvalue())
    return Digest(f"sha256:{hashlib.sha256(data.getvalue()).hexdigest()}")


def applied(directory: Path, layers: list[Entries]) -> list[Path]:
    """The trees of the layers, from the lowest up."""
    found: list[Path] = []
    with Workers(1) as workers:
        for number, entries in enumerate(layers):
            target = directory / str(number) / "fs"
            target.mkdir(parents=True)
            diff_id = archive(directory / f"{number}.tar", entries)
            result = workers.apply(Job(source=directory / f"{number}.tar", target=target, diff_id=diff_id)).result()
            settle(result.needs, target, found[::-1])
            found.append(target)
    return found


def expected(layers: list[Entries]) -> dict[str, str]:
    """What the layers come to (image-spec, layer.md): whiteouts hide what lower layers have, then the entries count."""
    tree: dict[str, str] = {}

    def drop(path: str, *, itself: bool = True) -> None:
        for name in [name for name in tree if name.startswith(path + "/") or (itself and name == path)]:
            del tree[name]

    for entries in layers:
        for name, _ in entries:
            head, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                drop(head, itself=False)
            elif last.startswith(".wh."):
                drop(f"{head}/{last[4:]}" if head else last[4:])
        for name, content in entries:
            if name.rpartition("/")[2].startswith(".wh."):
                continue
            if content is not None or tree.get(name, "/") != "/":
                drop(name)
            tree[name] = "/" if content is None else content
    return tree


def random_layer(source: random.Random, number: int) -> Entries:
    """Up to twelve entries, each of whose parents come before it; a name is written once."""
    kinds: dict[str, str] = {}
    for _ in range(source.randint(1, 12)):
        parts = [source.choice(NAMES) for _ in range(source.randint(1, 3))]
        parents = ["/".join(parts[:length]) for length in range(1, len(parts))]
        path = "/".join(parts)
        if path in kinds or any(kinds.get(parent, "directory") != "directory" for parent in parents):
            continue
        for parent in parents:
            kinds.setdefault(parent, "directory")
        kinds[path] = source.choice(("file", "directory", "whiteout", "opaque"))
        if kinds[path] == "opaque" and number == 0:
            kinds[path] = "directory"
    entries: Entries = []
    for path, kind in kinds.items():
        head, slash, last = path.rpartition("/")
        if kind == "file":
            entries.append((path, f"{path} of layer {number}"))
        elif kind == "whiteout":
            entries.append((f"{head}{slash}.wh.{last}", ""))
        else:
            entries.append((path, None))
            if kind == "opaque":
                entries.append((f"{path}/.wh..wh..opq", ""))
        if kind == "opaque":
            kinds[path] = "directory"
    return entries


@pytest.mark.parametrize("seed", range(12))
def test_the_mount_and_the_copy_show_what_the_archives_say(tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    layers = [random_layer(source, number) for number in range(source.randint(1, 5))]
    trees = applied(tmp_path, layers)
    (tmp_path / "empty").mkdir()
    mount = Overlay(tmp_path / "empty").mount(trees)
    shown = listing(mount)
    os.close(mount)
    assert shown == expected(layers), layers
    copy_layers(trees, tmp_path / "copy")
    copy = os.open(tmp_path / "copy", os.O_RDONLY)
    assert listing(copy) == shown
    os.close(copy)
