"""Planted damages: each is found by its name, repaired, and gone; a healthy store is not touched."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import Store
from ocirt_images.store.checks import KINDS, fsck
from tests.support.store.damages import DAMAGES, DATABASES, KEY, ONE, TWO, Planted
from tests.support.store.samples import Sample, descriptor, pull, tree


@pytest.fixture
def planted(root: Path) -> Planted:
    return Planted(root)


def whole(root: Path, image: Sample) -> bool:
    """Whether all of an image can be read."""
    with Store.open(root, sync=False) as store:
        record = store.images.find(image.name)
        layers = store.layers.chain(image.chain_ids[-1])
        return (
            all(store.content.read(Digest.of(data)) == data for data in image.contents)
            and record.layer == image.chain_ids[-1]
            and all((layer.path / "etc" / "name").read_text() == layer.chain_id for layer in layers)
        )


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_found_and_repaired(planted: Planted, name: str) -> None:
    damage, kinds = DAMAGES[name]
    damage(planted)
    before = tree(planted.root)
    found = fsck(planted.root, sync=False)
    assert [one.kind for one in found] == kinds
    assert not any(one.repaired for one in found)
    assert tree(planted.root) == before, "a check without repair changes nothing"

    repaired = fsck(planted.root, repair=True, sync=False)
    assert {one.kind for one in repaired} == set(kinds)
    assert all(one.repaired for one in repaired)
    assert fsck(planted.root, sync=False) == []
    with Store.open(planted.root, sync=False) as store:
        pull(store, ONE)
        pull(store, TWO)
    assert fsck(planted.root, sync=False) == []
    assert whole(planted.root, ONE)
    assert whole(planted.root, TWO)


@pytest.mark.parametrize("name", DAMAGES)
def test_an_open_store_can_be_repaired(planted: Planted, name: str) -> None:
    damage, _ = DAMAGES[name]
    damage(planted)
    with Store.open(planted.root, sync=False) as store:  # which has finished by itself what looked half done
        fsck(store, repair=True)
        assert fsck(store) == []


def test_each_kind_has_a_damage() -> None:
    planted = {kind for _, kinds in DAMAGES.values() for kind in kinds}
    assert planted == KINDS.keys() - {"database-damaged", "database-missing"}


@pytest.mark.parametrize("repair", [False, True])
def test_a_healthy_store_is_not_touched(planted: Planted, repair: bool) -> None:
    with Store.open(planted.root, sync=False) as store, store.leases.lease() as lease:
        interrupted = store.content.ingest(descriptor(b"x" * 100), lease)
        assert interrupted is not None
        with interrupted:
            interrupted.write(b"x" * 40)
    before = tree(planted.root)
    assert fsck(planted.root, repair=repair) == []
    assert tree(planted.root) == before


def test_progress_counts_the_bytes(planted: Planted) -> None:
    said: list[tuple[int, int]] = []
    fsck(planted.root, progress=lambda done, size: said.append((done, size)), sync=False)
    total = sum(len(data) for data in {*ONE.contents, *TWO.contents})
    assert said[-1] == (total, total)


@pytest.mark.parametrize("name", DATABASES)
def test_a_lost_database_is_made_anew(planted: Planted, name: str) -> None:
    damage = DATABASES[name]
    damage(planted)
    kind = "database-missing" if name == "no database" else "database-damaged"
    if name not in ("missing index", "missing table", "damaged index"):  # nobody notices these by opening it
        with pytest.raises(Error, match="fsck --repair") as caught:
            Store.open(planted.root, sync=False)
        assert caught.value.code == "corrupt"
    assert [one.kind for one in fsck(planted.root, sync=False)] == [kind]

    repaired = fsck(planted.root, repair=True, sync=False)
    assert repaired[0].kind == kind
    assert fsck(planted.root, sync=False) == []
    with Store.open(planted.root, sync=False) as store:
        # Content, layers and what a container wrote are there again; names as far as their rows could be read.
        assert not store.content.missing([*ONE.digests, *TWO.digests])
        for chain_id in (*ONE.chain_ids, *TWO.chain_ids):
            assert store.layers.chain(chain_id)
        record = store.writables.get(KEY)
        assert record is not None
        assert (record.path / "written").read_text() == "by a container"
        assert record.chain_id == ONE.chain_ids[-1]
        named = [image.name for image in store.images.list()]
        assert named == ([ONE.name, TWO.name] if name in ("missing table", "missing index", "damaged index") else named)
        pull(store, ONE)
        pull(store, TWO)
        with store.leases.lease() as lease:
            chain = Digest.of(b"another layer")
            staged = store.layers.stage(chain, parent=None, diff_id=chain, lease=lease)
            assert staged is not None
            with staged:
                assert staged.number > max(layer.id for layer in store.layers.list()), "a number is never used twice"
    assert whole(planted.root, ONE)
    assert fsck(planted.root, sync=False) == []


def test_a_repair_of_the_database_that_was_interrupted_is_finished(planted: Planted) -> None:
    planted.layout.database.write_text("once upon a time " * 500)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ocirt_images.store.checks.database.take_rebuilt", lambda *_: None)
        fsck_quietly(planted.root)
    assert planted.layout.rebuilt.exists()
    Store.open(planted.root, sync=False).close()
    assert not planted.layout.rebuilt.exists()
    fsck(planted.root, repair=True, sync=False)
    assert fsck(planted.root, sync=False) == []


def fsck_quietly(root: Path) -> None:
    with pytest.raises(Error, match="damaged"):
        fsck(root, repair=True, sync=False)


def test_repair_needs_the_store_alone(planted: Planted) -> None:
    with Store.open(planted.root, sync=False), pytest.raises(Error, match="other processes use the store") as caught:
        fsck(planted.root, repair=True, sync=False)
    assert caught.value.code == "in-use"
    with Store.open(planted.root, sync=False) as one, Store.open(planted.root, sync=False) as other:
        with pytest.raises(Error, match="other processes"):
            fsck(one, repair=True)
        other.close()
        assert fsck(one, repair=True) == []


def test_a_check_beside_pulls_and_removals_finds_nothing(root: Path) -> None:
    with Store.open(root, sync=False) as store:
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                pull(store, ONE)
                pull(store, TWO)
                store.writables.create("x", ONE.chain_ids[-1])
                store.writables.delete("x")
                store.images.delete(ONE.name)
                store.images.delete(TWO.name)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            found = [finding for _ in range(30) for finding in fsck(root, sync=False)]
        finally:
            stop.set()
            worker.join()
    assert found == []


def test_no_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Error, match="no store"):
        fsck(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_finding_reads_well(planted: Planted) -> None:
    planted.blob(ONE.config).unlink()
    first, second = fsck(planted.root, sync=False)
    assert str(first) == f"{Digest.of(ONE.config)}: there is no file (blob-missing)"
    assert str(second) == f"{ONE.name}: {Digest.of(ONE.config)} is not there (image-incomplete)"
