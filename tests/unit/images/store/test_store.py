"""Opening: a new store, an old one, a newer one, one that somebody else works on."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ocirt_images.errors import Error
from ocirt_images.store import Store, schema
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks import fsck
from tests.support.store.damages import ONE
from tests.support.store.samples import pull

NEXT = "ALTER TABLE content ADD COLUMN colour TEXT;\nCREATE TABLE extra (a INTEGER)"


def changes_of(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of all changes from now on."""
    made: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **named: Any) -> Any:
            made.append(name)
            return real(*arguments, **named)

        return change

    for name, real in list(vars(Changes).items()):
        if not name.startswith("_"):
            patch.setattr(Changes, name, counted(name, real))
    return made


def test_a_new_store_lets_nobody_else_in(root: Path) -> None:
    os.umask(0)
    try:
        Store.open(root, sync=False).close()
    finally:
        os.umask(0o022)
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert fsck(root) == []


def test_opening_a_healthy_store_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it costs half a millisecond."""
    with Store.open(root, sync=False) as store:
        pull(store, ONE)
    made = changes_of(monkeypatch)
    Store.open(root).close()
    assert made == ["create"], "the lock file is opened"


def test_parents_are_made(tmp_path: Path) -> None:
    Store.open(tmp_path / "a" / "b" / "store", sync=False).close()
    assert (tmp_path / "a" / "b" / "store" / "database").exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(OSError, match="store"):
        Store.open(tmp_path / "store")


def test_a_missing_directory_is_made(root: Path) -> None:
    Store.open(root, sync=False).close()
    (root / "ingest").rmdir()
    Store.open(root, sync=False).close()
    assert (root / "ingest").is_dir()


def test_a_newer_store_is_refused(root: Path) -> None:
    Store.open(root, sync=False).close()
    with closing(sqlite3.connect(root / "database")) as connection, connection:
        connection.execute("UPDATE version SET number = 99")
    before = (root / "database").read_bytes()
    for action in (lambda: Store.open(root), lambda: fsck(root), lambda: fsck(root, repair=True)):
        with pytest.raises(Error, match="the store has version 99, and this ocirt knows versions up to 1") as caught:
            action()
        assert caught.value.code == "unsupported"
        assert caught.value.subject == str(root)
    assert (root / "database").read_bytes() == before


def test_an_older_store_is_migrated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(root, sync=False) as store:
        pull(store, ONE)
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, NEXT])
    with pytest.raises(Error, match="older version 1"):
        fsck(root)
    with Store.open(root, sync=False) as store, store.database.reading() as connection:
        assert connection.execute("SELECT number FROM version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM content WHERE colour IS NULL").fetchone() == (len(ONE.contents),)
        assert store.images.find(ONE.name)


def test_a_store_in_use_is_not_migrated(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(root, sync=False):
        monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, NEXT])
        monkeypatch.setattr("ocirt_images.store.store.PATIENCE", 0.1)
        with pytest.raises(Error, match="keeps it from being migrated") as caught:
            Store.open(root)
        assert caught.value.code == "in-use"
    Store.open(root, sync=False).close()


def test_a_migration_that_fails_leaves_the_old_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(root, sync=False).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, "CREATE TABLE extra (a INTEGER);\nnonsense"])
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            Store.open(root)
    with Store.open(root, sync=False) as store, store.database.reading() as connection:
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'extra'").fetchone()


def test_threads_may_make_the_same_store(root: Path) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(6)

    def make() -> None:
        start.wait()
        try:
            Store.open(root, sync=False).close()
        except BaseException as err:  # noqa: BLE001 -- shown by the assertion
            errors.append(err)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert fsck(root) == []


def test_a_closed_store_says_so(root: Path) -> None:
    store = Store.open(root, sync=False)
    store.close()
    store.close()
    with pytest.raises(Error, match="the store is closed"):
        store.images.list()


def test_sync_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `sync` there is no fsync at all; with it every rename is followed by one of the directory, before the row."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with Store.open(tmp_path / "fast", sync=False) as store:
        pull(store, ONE)
    assert synced == []
    with Store.open(tmp_path / "safe") as store:
        made = changes_of(monkeypatch)
        pull(store, ONE)
    assert str(store.layout.blobs / "sha256") in synced
    for place, name in enumerate(made):
        if name == "rename":
            after = made[place:]
            assert after.index("fsync_directory") < after.index("commit")


def test_a_writable_layer_that_need_not_last_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it is made nor when it goes; and it is gone all the same."""
    synced: list[int] = []
    with Store.open(tmp_path / "safe") as store:
        monkeypatch.setattr(os, "fsync", synced.append)
        (store.writables.create("box", None, durable=False).path / "file").touch()
        store.writables.delete("box", durable=False)
        assert synced == []
        assert store.writables.list() == []
        assert os.listdir(store.layout.writables) == []
        store.writables.create("box", None)
        store.writables.delete("box")
        assert synced
    assert fsck(tmp_path / "safe") == []
