"""A process that is killed before any one of its changes leaves a store that the next opening puts right: nothing for fsck to
find, nothing lost that was there, and what was begun succeeds when it is done again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import Store, prune
from ocirt_images.store.checks import fsck
from tests.support.store.damages import DAMAGES, DATABASES, KEY, ONE, TWO, Planted
from tests.support.store.killing import forked, points
from tests.support.store.samples import bytes_of, descriptor, ingest, pull, sample, unpack

NEW = sample("registry.example/new:1", ("a", "n"))
DATA = bytes_of("ranged", 9000)


def opened(root: Path, action: Callable[[Store], object]) -> Callable[[], None]:
    """An action on a store, as a program of its own would do it."""

    def run() -> None:
        with Store.open(root, sync=False) as store:
            action(store)

    return run


def pull_new(store: Store) -> None:
    pull(store, NEW)


def ingest_ranges(store: Store) -> None:
    with store.leases.lease() as lease:
        found = store.content.ingest(descriptor(DATA), lease)
        if found is not None:
            with found:
                found.allocate()
                for start, end in reversed(found.missing):
                    middle = (start + end) // 2
                    found.write_at(middle, DATA[middle:end])
                    found.write_at(start, DATA[start:middle])
                found.commit()
        store.content.put(NEW.config, Digest.of(NEW.config), lease)


def stage(store: Store) -> None:
    with store.leases.lease() as lease:
        below: Digest | None = None
        for chain_id, diff_id in zip(NEW.chain_ids, NEW.diff_ids, strict=True):
            unpack(store, chain_id, below, diff_id, lease)
            below = chain_id


def delete(store: Store) -> None:
    if store.images.get(ONE.name) is not None:
        store.images.delete(ONE.name)


def retag(store: Store) -> None:
    """The name of one image becomes another one's."""
    record = store.images.find(TWO.name)
    with store.leases.lease() as lease:
        store.images.put(ONE.name, record.target, manifest=record.manifest, config=record.config, layer=record.layer, lease=lease)


def prune_all(store: Store) -> None:
    prune(store, images=True)


def write(store: Store) -> None:
    if store.writables.get("container-2") is None:
        store.writables.create("container-2", ONE.chain_ids[-1])


def unwrite(store: Store) -> None:
    if store.writables.get(KEY) is not None:
        store.writables.delete(KEY)


def unwrite_at_once(store: Store) -> None:
    """Without waiting for the disk."""
    if store.writables.get(KEY) is not None:
        store.writables.delete(KEY, durable=False)


def fail(store: Store) -> None:
    """An ingest with the wrong bytes, and one that is left half done."""
    with store.leases.lease() as lease:
        found = store.content.ingest(descriptor(DATA), lease)
        assert found is not None
        with found:
            for start, end in found.missing:
                found.write_at(start, bytes(end - start))
            try:
                found.commit()
            except Error as err:
                assert err.code == "corrupt"
        again = store.content.ingest(descriptor(DATA), lease)
        assert again is not None
        with again:
            again.write(DATA[again.offset : 4000])


ACTIONS = {
    "pull": pull_new,
    "ranges": ingest_ranges,
    "layers": stage,
    "delete": delete,
    "name moved": retag,
    "prune": prune_all,
    "writable": write,
    "writable removed": unwrite,
    "writable removed at once": unwrite_at_once,
    "failures": fail,
}


@pytest.mark.parametrize("name", ACTIONS)
def test_killed_at_each_change(tmp_path: Path, name: str) -> None:
    model, root = tmp_path / "model", tmp_path / "store"
    assert forked(lambda: Planted(model))[0] == 0
    action = opened(root, ACTIONS[name])

    def prepare() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(model, root, symlinks=True)

    count = 0
    for count in points(prepare, action):
        Store.open(root, sync=False).close()
        assert fsck(root, sync=False) == [], f"killed before change {count}"
        if name not in ("delete", "prune", "name moved"):
            with Store.open(root, sync=False) as store:
                assert not store.content.missing([*ONE.digests, *TWO.digests])
        assert forked(action)[0] == 0, f"after a kill before change {count} it fails"
        assert fsck(root, sync=False) == [], f"killed before change {count}, and done again"
    print(f"\n{name}: killed before each of {count} changes")


def test_killed_while_a_store_is_made(tmp_path: Path) -> None:
    root = tmp_path / "store"
    count = 0
    for count in points(lambda: shutil.rmtree(root, ignore_errors=True), opened(root, pull_new)):
        Store.open(root, sync=False).close()
        assert fsck(root, sync=False) == [], f"killed before change {count}"
    print(f"\nnew store: killed before each of {count} changes")


REPAIRS = {
    **{name: DATABASES[name] for name in ("text for a database", "no database", "missing table", "damaged index")},
    **{
        name: DAMAGES[name][0]
        for name in (
            "bit flip in a manifest",
            "extra blob",
            "missing index row",
            "missing layer in the middle",
            "extra layer folder",
            "layer without a row",
            "writable without a row",
            "unfinished removal of content",
            "missing reference",
        )
    },
}


@pytest.mark.parametrize("name", REPAIRS)
def test_a_repair_that_is_killed_is_done_again(tmp_path: Path, name: str) -> None:
    model, root = tmp_path / "model", tmp_path / "store"

    def plant() -> None:
        REPAIRS[name](Planted(model))

    assert forked(plant)[0] == 0

    def prepare() -> None:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(model, root, symlinks=True)

    count = 0
    for count in points(prepare, lambda: fsck(root, repair=True, sync=False)):
        fsck(root, repair=True, sync=False)
        assert fsck(root, sync=False) == [], f"killed before change {count}"
        with Store.open(root, sync=False) as store:
            assert not store.content.missing(TWO.digests)
            record = store.writables.get(KEY)
            assert record is not None
            assert (record.path / "written").read_text() == "by a container"
    print(f"\nrepair of {name}: killed before each of {count} changes")


def test_what_was_there_is_not_fetched_again(tmp_path: Path) -> None:
    """After a kill there are only the bytes to fetch that had not come yet."""
    root = tmp_path / "store"

    def prepare() -> None:
        shutil.rmtree(root, ignore_errors=True)
        Store.open(root, sync=False).close()

    def fetch(store: Store) -> None:
        lease = store.leases.lease()
        ingest(store, DATA, lease, pieces=9)
        lease.end(free=False)

    lefts = []
    for _ in points(prepare, opened(root, fetch)):
        with Store.open(root, sync=False) as store, store.leases.lease() as lease:
            found = store.content.ingest(descriptor(DATA), lease)
            lefts.append(sum(end - start for start, end in found.missing) if found else 0)
            if found is not None:
                with found:
                    found.write(DATA[found.offset :])
                    found.commit()
    assert lefts == sorted(lefts, reverse=True)
    assert set(lefts) == set(range(0, len(DATA) + 1, len(DATA) // 9))


def test_content_that_is_there_stays(tmp_path: Path) -> None:
    """The model of the tests above is whole; else they would prove nothing."""
    Planted(tmp_path / "store")
    with Store.open(tmp_path / "store") as store, store.leases.lease() as lease:
        ingest(store, DATA, lease)
        assert store.content.read(Digest.of(DATA)) == DATA
    with Store.open(tmp_path / "store") as store:
        assert not store.content.has(Digest.of(DATA)), "its lease ended well, and nothing refers to it"
