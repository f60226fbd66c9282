"""Layers and writable layers."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import Store
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks import fsck
from ocirt_images.store.trees import remove_tree
from tests.support.store.samples import pull, sample, unpack

ONE = sample(layers=("a", "b", "c"))
LOW, MIDDLE, TOP = ONE.chain_ids


def test_a_layer_is_made_once(store: Store) -> None:
    with store.leases.lease() as lease:
        assert store.layers.get(LOW) is None
        staged = store.layers.stage(LOW, parent=None, diff_id=ONE.diff_ids[0], lease=lease)
        assert staged is not None
        with staged:
            assert staged.path == store.layout.staged(staged.number) / "fs"
            assert staged.path.stat().st_mode & 0o777 == 0o755
            (staged.path / "file").write_text("x")
            record = staged.commit(size=4096, inodes=2)
        assert (record.path / "file").read_text() == "x"
        assert store.layers.get(LOW) == record
        assert (record.size, record.inodes, record.parent, record.diff_id) == (4096, 2, None, ONE.diff_ids[0])
        assert store.layers.stage(LOW, parent=None, diff_id=ONE.diff_ids[0], lease=lease) is None
        assert os.listdir(store.layout.staging) == []


def test_a_chain(store: Store) -> None:
    pull(store, ONE)
    assert [layer.chain_id for layer in store.layers.chain(TOP)] == [LOW, MIDDLE, TOP]
    assert [layer.chain_id for layer in store.layers.list()] == [LOW, MIDDLE, TOP]
    with pytest.raises(Error, match="not unpacked"):
        store.layers.chain(Digest.of(b"?"))


def test_a_parent_comes_first(store: Store) -> None:
    with store.leases.lease() as lease:
        # They are made in any order, and committed from the lowest up.
        high = store.layers.stage(MIDDLE, parent=LOW, diff_id=ONE.diff_ids[1], lease=lease)
        assert high is not None
        with high:
            unpack(store, LOW, None, ONE.diff_ids[0], lease)
            assert high.commit(size=0, inodes=1).parent == LOW
        orphan = store.layers.stage(TOP, parent=Digest.of(b"?"), diff_id=ONE.diff_ids[2], lease=lease)
        assert orphan is not None
        with orphan, pytest.raises(Error, match="its parent is not committed") as caught:
            orphan.commit(size=0, inodes=1)
        assert caught.value.code == "internal"
        assert fsck(store) == []


def test_what_is_not_committed_is_removed(store: Store) -> None:
    with store.leases.lease() as lease:
        staged = store.layers.stage(LOW, parent=None, diff_id=ONE.diff_ids[0], lease=lease)
        assert staged is not None
        with pytest.raises(KeyboardInterrupt), staged:
            raise KeyboardInterrupt
        assert os.listdir(store.layout.staging) == []
        number = staged.number
        again = store.layers.stage(LOW, parent=None, diff_id=ONE.diff_ids[0], lease=lease)
        assert again is not None
        again.discard()
        again.discard()
        assert again.number > number, "a number is never used twice"
        assert fsck(store) == []


def test_threads_share_one_staging(store: Store) -> None:
    made = []
    with store.leases.lease() as lease:

        def want() -> None:
            staged = store.layers.stage(LOW, parent=None, diff_id=ONE.diff_ids[0], lease=lease)
            if staged is not None:
                with staged:
                    made.append(staged.commit(size=0, inodes=1))

        threads = [threading.Thread(target=want) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 1


def test_a_tree_that_was_taken_away_is_made_anew(store: Store) -> None:
    pull(store, ONE)
    remove_tree(store.layout.layer(store.layers.chain(TOP)[0].id), store.changes)
    assert store.layers.get(LOW) is None
    pull(store, ONE)
    assert len(store.layers.chain(TOP)) == 3
    assert fsck(store) == []


def test_a_writable_layer_holds_its_layer(store: Store) -> None:
    pull(store, ONE)
    record = store.writables.create("container", TOP)
    assert record.path.is_dir()
    assert record.work.is_dir()
    assert store.writables.get("container") == record
    (record.path / "deep" / "er").mkdir(parents=True)
    assert store.images.delete(ONE.name).layers == 0
    assert len(store.layers.chain(TOP)) == 3
    assert store.writables.delete("container").layers == 3
    assert store.layers.list() == []
    assert store.writables.list() == []
    assert not record.path.parent.exists()
    assert fsck(store) == []


def test_writable_layers_that_cannot_be(store: Store) -> None:
    pull(store, ONE)
    first = store.writables.create("container", None, durable=False)
    with pytest.raises(Error, match="already") as caught:
        store.writables.create("container", TOP)
    assert caught.value.code == "exists"
    with pytest.raises(Error, match="not unpacked") as caught:
        store.writables.create("other", Digest.of(b"?"))
    assert caught.value.code == "not-found"
    with pytest.raises(Error, match="no such writable layer"):
        store.writables.delete("other")
    assert store.writables.list() == [first]
    assert fsck(store) == []


def test_a_race_for_one_key_has_one_winner(store: Store) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def create() -> None:
        start.wait()
        try:
            store.writables.create("container", None)
            outcomes.append("made")
        except Error as err:
            outcomes.append(err.code)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["exists"] * 3 + ["made"]
    assert fsck(store) == []


def test_any_tree_can_be_removed(tmp_path: Path) -> None:
    """Deeper than a path may be long, with odd names, links and modes; nothing outside is touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    top = tmp_path / "top"
    top.mkdir()
    (top / "1.gone").mkdir()
    (top / "1.gone" / "2.gone").mkdir()
    (top / "1.gone" / "2.gone" / "file").write_text("x")
    (top / "link").symlink_to(outside)
    (top / "bytes").mkdir()
    os.mkdir(os.fsencode(top / "bytes") + b"/\xff\xfe")
    os.mkfifo(top / "pipe")
    deep = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d" * 20, dir_fd=deep)
        inner = os.open("d" * 20, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.symlink(outside, "link", dir_fd=deep)
    os.close(deep)
    (top / "closed").mkdir()
    (top / "closed" / "file").write_text("x")
    (top / "closed").chmod(0)
    remove_tree(top, Changes(sync=False))
    assert not top.exists()
    assert (outside / "kept").read_text() == "x"
    remove_tree(top, Changes(sync=False))
    (tmp_path / "link").symlink_to(outside)
    remove_tree(tmp_path / "link", Changes(sync=False))
    assert (outside / "kept").exists()
