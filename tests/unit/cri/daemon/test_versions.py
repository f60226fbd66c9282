"""What an older ocirtd has left is read, by every step of its version; what a newer one has left is refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest

import ocirt
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages.shim import PROTOCOL
from ocirt_cri import store
from ocirt_cri.model import MADE
from ocirt_cri.store import MIGRATIONS, Store
from tests.conftest import ROOT

DATA = ROOT / "tests" / "data"
NEXT = "ALTER TABLE pods ADD COLUMN extra TEXT NOT NULL DEFAULT 'none';\nINSERT INTO meta VALUES ('step', '2')"


def stored(place: Path, version: int) -> str:
    """A database as that version has left it."""
    path = place / "node.db"
    with sqlite3.connect(path) as db:
        db.executescript((DATA / f"node-{version}.sql").read_text())
    db.close()
    return str(path)


def version(path: str) -> int:
    with sqlite3.connect(path) as db:
        (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return int(found)


def close(opened: Store) -> None:
    asyncio.run(opened.close())


@pytest.mark.parametrize("number", range(1, len(MIGRATIONS) + 1))
def test_every_version_is_read(tmp_path: Path, number: int) -> None:
    """Pods and containers are what they were."""
    path = stored(tmp_path, number)
    assert version(path) == number
    opened = Store(path)
    assert (opened.meta("instance"), opened.meta("pod_cidr")) == ("00c0ffee", "10.1.0.0/24")
    (pod,) = opened.sandboxes()
    assert (pod.phase, pod.key, pod.is_ready) == (MADE, ("default", "web", "u-1", "1"), True)
    assert (pod.status.network.ip, pod.status.runtime_handler, pod.labels["app"]) == ("10.1.0.2", "ocirt", "web")
    assert (pod.namespaces["ipc"], pod.files["hosts"], pod.interface) == ("/proc/7/fd/9", "/run/ocirt/pods/1/hosts", "eth0")
    assert (pod.made, pod.boot_id, pod.stopped) == (["/sys/fs/cgroup/kubepods/podu-1"], "b-1", False)
    app, backup = opened.containers()
    assert (app.state, app.pid, app.stop_signal, app.process["args"]) == (cri.CONTAINER_RUNNING, 4242, 10, ["sleep", "9"])
    assert (backup.state, backup.status.exit_code, backup.exited.is_set()) == (cri.CONTAINER_EXITED, 3, True)
    assert app.key == (pod.id, "app", "2")
    close(opened)
    assert version(path) == len(MIGRATIONS)


def test_the_newest_version_is_what_a_new_database_has(tmp_path: Path) -> None:
    """Whether it was migrated or is new, it is the same database."""

    def schema(path: str) -> list[str]:
        with sqlite3.connect(path) as db:
            found = [
                " ".join(row[0].split()) for row in db.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name")
            ]
        db.close()
        return found

    old = stored(tmp_path, 1)
    close(Store(old))
    new = str(tmp_path / "new.db")
    close(Store(new))
    assert schema(new) == schema(old)


def test_an_older_database_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    path = stored(tmp_path, len(MIGRATIONS))
    monkeypatch.setattr(store, "MIGRATIONS", [*MIGRATIONS, NEXT])
    with caplog.at_level("INFO"):
        opened = Store(path)
    assert f"{path} was migrated from version {len(MIGRATIONS)} to {len(MIGRATIONS) + 1}" in caplog.text
    assert opened.meta("step") == "2"
    assert opened._connection.execute("SELECT extra FROM pods").fetchall() == [("none",)]
    close(opened)
    assert version(path) == len(MIGRATIONS) + 1


def test_a_migration_that_fails_leaves_the_old_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, len(MIGRATIONS))
    with monkeypatch.context() as patch:
        patch.setattr(store, "MIGRATIONS", [*MIGRATIONS, NEXT + ";\nnonsense"])
        with pytest.raises(sqlite3.Error):
            Store(path)
    assert version(path) == len(MIGRATIONS)
    opened = Store(path)
    assert len(opened.containers()) == 2
    close(opened)


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """With what it is, and what can be done. Nothing of it is changed."""
    path = stored(tmp_path, len(MIGRATIONS))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("INSERT INTO meta VALUES ('release', '7.1.0')")
    db.close()
    with pytest.raises(Error) as caught:
        Store(path)
    assert str(caught.value) == (
        f"{path}: was written by ocirtd 7.1.0, a later one: it has version 99 of its tables, and ocirtd {ocirt.__version__}"
        f" knows {len(MIGRATIONS)} (start the later one again; or have it remove all pods, and begin with another `root`)"
    )
    assert caught.value.code == "unsupported"
    assert version(path) == 99


def test_later_shims_are_refused(tmp_path: Path) -> None:
    """The tables may be the same, and yet containers be held by what this ocirtd cannot speak with."""
    path = stored(tmp_path, len(MIGRATIONS))
    opened = Store(path)
    assert (opened.meta("shim_protocol"), opened.meta("release")) == (str(PROTOCOL), ocirt.__version__)
    opened.set_meta("shim_protocol", str(PROTOCOL + 1))
    opened.set_meta("release", "7.1.0")
    close(opened)
    with pytest.raises(
        Error, match=rf"ocirtd 7.1.0, a later one: it has version {PROTOCOL + 1} of what its shims speak"
    ) as caught:
        Store(path)
    assert f"knows {PROTOCOL} (start the later one again" in str(caught.value)


def test_a_word_that_is_missing_has_its_default(tmp_path: Path) -> None:
    """What was not kept when a version began; and one that is not known is left out."""
    path = stored(tmp_path, 1)
    with sqlite3.connect(path) as db:
        for table in ("pods", "containers"):
            db.execute(f"UPDATE {table} SET more = ?", (json.dumps({"of a later one": 1}),))
    db.close()
    opened = Store(path)
    (pod,) = opened.sandboxes()
    assert (pod.namespaces, pod.made, pod.updated) == ({}, [], "")
    assert {one.stop_signal for one in opened.containers()} == {15}
    close(opened)


def test_what_is_kept_is_what_the_stored_state_has(tmp_path: Path) -> None:
    """A word that is new belongs into `tests/data`, and perhaps needs a version: an older ocirtd does not know it."""
    path = stored(tmp_path, len(MIGRATIONS))
    opened = Store(path)
    with sqlite3.connect(path) as db:
        for table, objects in (("pods", opened.sandboxes()), ("containers", opened.containers())):
            (names,) = db.execute(
                f"SELECT json_group_array(key) FROM (SELECT DISTINCT key FROM {table}, json_each(more))"
            ).fetchone()
            assert set(json.loads(objects[0].more())) == set(json.loads(names))
    db.close()
    close(opened)
