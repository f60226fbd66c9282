"""What the driver keeps, its configuration, and who is at work on what."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_csi import config, iolimits, locks, model
from ocirt_csi.cli.tables import size
from ocirt_csi.errors import BusyError, Error
from ocirt_csi.keys import Keys
from ocirt_csi.model import Group, Snapshot, Use, Volume
from ocirt_csi.pools.images import Images
from ocirt_csi.pools.pool import PoolSettings
from ocirt_csi.services.answers import page
from ocirt_csi.services.metadata import differences
from ocirt_csi.store import Store

VOLUME = Volume(id="v", name="data", pool="default", place="v", size=1, charge=2, layout=model.IMAGE, source=("snapshot", "s"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(str(tmp_path / "state.db"))
    yield made
    made.close()


@pytest.mark.parametrize(
    "one",
    [
        VOLUME,
        Snapshot(id="s", name="s", pool="p", place="s", volume="v", size=1, layout=model.SUBVOLUME, group="g"),
        Group(id="g", name="g", volumes=("a", "b"), snapshots=("s", "t")),
        Use(id="/x", volume="v", staged=True, block=False, read_only=False, mode=1, asked="[]", flags=("ro",)),
    ],
    ids=lambda one: one.kind,
)
def test_a_row_is_read_as_it_was_written(one: model.Record) -> None:
    assert model.read(one.kind, one.body()) == one


def test_what_is_written_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    volumes = [store.put(replace(VOLUME, id=f"v{number}", name=f"n{number}")) for number in range(3)]
    assert [one.sequence for one in volumes] == [1, 2, 3]
    store.put(replace(volumes[0], phase=model.REMOVING))
    store.delete(volumes[1])
    again = Store(str(tmp_path / "state.db"))
    assert [(one.id, one.phase) for one in again.all(Volume)] == [("v0", "removing"), ("v2", "ready")]
    assert again.named(Volume, "n1") is None
    assert again.named(Volume, "n2") == volumes[2]
    assert again.put(replace(VOLUME, id="v4", name="n4")).sequence == 4
    again.close()


def test_a_write_that_fails_changes_nothing(store: Store) -> None:
    kept = store.put(VOLUME)
    store._connection.execute("CREATE TRIGGER no BEFORE INSERT ON objects BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.Error):
        store.put(replace(kept, size=5))
    assert store.get(Volume, "v") == kept


def test_who_waits_for_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut ends anyway does not, nor what may be lost; but then it is not behind what was waited for."""
    waits: list[int] = []
    monkeypatch.setattr(os, "fdatasync", waits.append)
    use = store.put(Use(id="/x", volume="v", staged=True, block=False, read_only=False, mode=1, asked="[]"))
    store.put(VOLUME, lasting=False)
    store.delete(use)
    assert not waits
    store.put(VOLUME)
    store.put(replace(VOLUME, id="w", name="w"))
    store.delete(VOLUME)
    store.set_meta("a", "b")
    assert len(waits) == 4


def test_many_wait_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one write goes to the disk, all that come meanwhile gather for the next."""
    waits: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        waits.append(fd)
        begun.set()
        assert go_on.wait(30)

    monkeypatch.setattr(os, "fdatasync", slow)
    threads = [threading.Thread(target=store.put, args=[replace(VOLUME, id=f"v{one}", name=f"n{one}")]) for one in range(10)]
    threads[0].start()
    assert begun.wait(30)
    for one in threads[1:]:
        one.start()
    while store._written < 10 + 1:  # and the schema
        threading.Event().wait(0.001)
    assert store.all(Volume) == []  # nobody is told of what is not on disk
    go_on.set()
    for one in threads:
        one.join(30)
    assert len(store.all(Volume)) == 10
    assert len(waits) == 2


def test_a_disk_that_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for it hears so, and what is kept is what it was."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="broken"):
        store.put(VOLUME)
    assert store.get(Volume, "v") is None


def test_a_disk_that_is_full(store: Store) -> None:
    """It is said, and the next write finds what was there before."""
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages}")
    written = 0
    with pytest.raises(Error, match="the driver's state cannot be written: database or disk is full") as caught:  # noqa: PT012
        for written in range(1000):
            store.put(replace(VOLUME, id=f"v{written}", name="x" * 500 + str(written)))
    assert caught.value.code == "exhausted"
    assert len(store.all(Volume)) == written
    store._connection.execute("PRAGMA max_page_count = 1000000")
    store.put(replace(VOLUME, id="late", name="late"))
    assert len(store.all(Volume)) == written + 1


def test_what_is_gone_is_forgotten_later(store: Store, tmp_path: Path) -> None:
    """No list has it, a fresh start finds it until it was purged, and what comes by its id is another."""
    first, second = (store.put(replace(VOLUME, id=name, name=name)) for name in ("a", "b"))
    for one in (first, second):
        store.retire(one)
    assert store.all(Volume) == [] == store.of(Use, "a")
    assert store.named(Volume, "a") is None
    again = Store(str(tmp_path / "state.db"))
    assert [(one.id, one.phase) for one in again.gone] == [("a", "gone"), ("b", "gone")]
    assert again.all(Volume) == []
    again.close()
    gone = store.gone
    kept = store.put(replace(second, created=5))
    store.purge(gone)
    assert store.gone == []
    again = Store(str(tmp_path / "state.db"))
    assert again.all(Volume) == [kept]
    assert again.gone == []
    again.close()


def test_what_is_of_a_volume(store: Store, tmp_path: Path) -> None:
    """By the volume, in order, also when it was read again."""
    uses = [
        store.put(Use(id=path, volume=one, staged=True, block=False, read_only=False, mode=1, asked="[]"))
        for path, one in (("/z", "v"), ("/b", "w"), ("/a", "v"))
    ]
    store.put(replace(uses[0], phase=model.REMOVING))
    again = Store(str(tmp_path / "state.db"))
    for one in (store, again):
        assert [use.id for use in one.of(Use, "v")] == ["/z", "/a"]
        assert [use.id for use in one.all(Use)] == ["/z", "/b", "/a"]
    again.close()
    store.delete(uses[0])
    assert store.of(Use, "v") == [uses[2]]


def test_a_later_version_is_not_touched(store: Store, tmp_path: Path) -> None:
    store._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Error, match="later ocirt-csi"):
        Store(str(tmp_path / "state.db"))


def test_keys() -> None:
    """One at a time, or several who only look; what is refused keeps nothing."""
    keys = Keys()
    with keys.hold("a", shared=["b"]):
        for alone, shared in ((["a"], []), (["b"], []), ([], ["a"]), (["c", "a"], [])):
            with pytest.raises(BusyError), keys.hold(*alone, shared=shared):
                pass
        with keys.hold("c", shared=["b"]):
            pass
    with keys.hold("a", "b", "c"):
        pass


def test_one_driver_has_a_state(tmp_path: Path) -> None:
    """A second one is told who; a command is waited for; asking takes nothing away."""
    fd = locks.take(str(tmp_path), serves=True)
    assert locks.driver_runs(str(tmp_path))
    with pytest.raises(Error, match=str(os.getpid())):
        locks.take(str(tmp_path), serves=False)
    os.close(fd)
    assert not locks.driver_runs(str(tmp_path))
    command = locks.take(str(tmp_path), serves=False)
    assert not locks.driver_runs(str(tmp_path))
    threading.Timer(0.2, os.close, [command]).start()
    os.close(locks.take(str(tmp_path), serves=True))


def test_pages() -> None:
    """All entries once, in order, whatever the length of a page."""
    rows = [replace(VOLUME, sequence=number) for number in (2, 3, 5, 8, 13)]
    for entries in range(1, 7):
        found, after = [], 0
        while True:
            part, token = page(rows, entries, after)
            found += part
            if not token:
                break
            after = int(token)
        assert found == rows
    assert page(rows, 0, 0) == (rows, "")


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("/pool", PoolSettings("/pool")),
        ("/pool/,class=fast", PoolSettings("/pool", "fast")),
        ("/a,class=b,backend=loop,over=2.5", PoolSettings("/a", "b", "loop", 2.5)),
    ],
)
def test_a_pool_as_a_flag(text: str, settings: PoolSettings) -> None:
    assert config.pool(text) == settings


@pytest.mark.parametrize(
    "text",
    ["", "pool", "/a,clas=b", "/a,class=", "/a,class=../x", "/a,backend=zfs", "/a,over=0.9", "/a,over=nan", "/a,over=x", "/a\0"],
)
def test_a_pool_that_is_none(text: str) -> None:
    with pytest.raises(Error) as caught:
        config.pool(text)
    assert caught.value.code == "usage"


def test_flags_before_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "csi.toml"
    file.write_text('endpoint = "unix:///a"\nnode_id = "file"\n[[pools]]\ndirectory = "/pool"\n')
    environment = {"CSI_ENDPOINT": "unix:///b"}
    found = config.load({}, [], place=str(file), environment=environment, version="1")
    assert (found.socket, found.node_id, found.pools) == ("/b", "file", (PoolSettings("/pool"),))
    found = config.load({"endpoint": "unix:///c"}, ["/other"], place=str(file), environment=environment, version="1")
    assert (found.socket, found.pools) == ("/c", (PoolSettings("/other"),))


@given(st.integers(16 << 20, 1 << 44))
def test_an_image_with_a_file_system_is_a_little_larger(number: int) -> None:
    """And never much: what a pool promises is near to what its users get."""
    charge = Images("x").charge(number, "ext4")
    assert number < charge <= number * 1.05 + (24 << 20)
    assert charge % 4096 == 0


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (1 << 30, "1Gi"), (5 << 50, "5Pi")])
def test_sizes_for_a_person(number: int, text: str) -> None:
    assert size(number) == text


@given(st.lists(st.tuples(st.integers(0, 40), st.binary(min_size=1, max_size=3)), max_size=6), st.integers(0, 30))
def test_differences_of_files(changes: list[tuple[int, bytes]], start: int) -> None:
    """Each byte that differs lies in a range, each range has one, and they are in order."""
    piece = 64 << 10
    length = 41 * piece
    first, second = os.memfd_create("first"), os.memfd_create("second")
    try:
        for fd in (first, second):
            os.truncate(fd, length)
            os.pwrite(fd, b"x" * 100, 5 * piece)
        for at, text in changes:
            os.pwrite(second, text, at * piece + at)
        before, after = os.pread(first, length, 0), os.pread(second, length, 0)
        found = list(differences(first, second, start * piece, length))
        differing = {
            at for at in range(start, 41) if before[at * piece : (at + 1) * piece] != after[at * piece : (at + 1) * piece]
        }
        covered = [at // piece for begin, end in found for at in range(begin, end, piece)]
        assert covered == sorted(differing)
    finally:
        os.close(first)
        os.close(second)


def test_cgroups_of_a_pod(tmp_path: Path) -> None:
    """As either manager of a kubelet names them, in either version; others are left alone."""
    uid = "1-2-3-4"
    names = ("kubepods/burstable/pod1-2-3-4", "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2_3_4.slice")
    for name in (*names, "kubepods/pod1-2-3-5", "other/pod1-2-3-4"):
        (tmp_path / name).mkdir(parents=True)
    assert sorted(iolimits.folders(uid, str(tmp_path))) == sorted(str(tmp_path / name) for name in names)
    group = tmp_path / names[0]
    (group / "io.max").touch()
    iolimits.write(str(group), "7:3", {"readBps": "100", "writeIops": "0"})
    assert (group / "io.max").read_text() == "7:3 rbps=100 wiops=max"
