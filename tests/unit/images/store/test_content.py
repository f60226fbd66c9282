"""Content: put, ingest, read; ranges from several threads; what an owner leaves."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocirt_images import mediatypes
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import Ingest, Lease, Store
from ocirt_images.store import received as maps
from ocirt_images.store.changes import Changes
from ocirt_images.store.checks import fsck
from ocirt_images.store.received import Received
from tests.support.store.samples import bytes_of, descriptor, ingest

DATA = bytes_of("data", 10_000)
DIGEST = Digest.of(DATA)


def begin(store: Store, lease: Lease, data: bytes = DATA) -> Ingest:
    found = store.content.ingest(descriptor(data), lease)
    assert found is not None
    return found


def test_what_is_put_can_be_read(store: Store) -> None:
    with store.leases.lease() as lease:
        store.content.put(DATA, DIGEST, lease)
        store.content.put(DATA, DIGEST, lease)
        assert store.content.has(DIGEST)
        assert store.content.size(DIGEST) == len(DATA)
        assert store.content.read(DIGEST) == DATA
        assert store.content.path(DIGEST) == store.root / "blobs" / "sha256" / DIGEST.encoded
        assert store.content.path(DIGEST).stat().st_mode & 0o777 == 0o444
        with open(store.content.open(DIGEST), "rb") as file:
            assert file.read() == DATA
        assert os.listdir(store.layout.ingests) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_each_algorithm_and_size(store: Store, algorithm: str, size: int) -> None:
    data = DATA[:size]
    digest = Digest.of(data, algorithm)
    with store.leases.lease() as lease:
        found = store.content.ingest(Descriptor(media_type="x", digest=digest, size=size), lease)
        assert found is not None
        with found:
            found.allocate()
            found.write(data)
            found.commit()
        assert store.content.read(digest) == data


def test_what_is_not_there(store: Store) -> None:
    for action in (store.content.path, store.content.size, store.content.read, store.content.open):
        with pytest.raises(Error) as caught:
            action(DIGEST)
        assert caught.value.code == "not-found"
    assert not store.content.has(DIGEST)
    assert store.content.missing([DIGEST, DIGEST]) == [DIGEST]


def test_put_refuses_other_bytes(store: Store) -> None:
    with store.leases.lease() as lease, pytest.raises(Error, match="have the digest") as caught:
        store.content.put(b"other", DIGEST, lease)
    assert caught.value.code == "corrupt"
    assert os.listdir(store.layout.blobs / "sha256") == []


def test_read_verifies_and_limits(store: Store) -> None:
    with store.leases.lease() as lease:
        store.content.put(DATA, DIGEST, lease)
        with pytest.raises(Error, match="100 at most"):
            store.content.read(DIGEST, limit=100)
        path = store.content.path(DIGEST)
        path.chmod(0o644)
        path.write_bytes(b"x" + DATA[1:])
        with pytest.raises(Error, match="other bytes") as caught:
            store.content.read(DIGEST)
        assert caught.value.code == "corrupt"


def test_a_file_that_was_taken_away_is_fetched_anew(store: Store) -> None:
    with store.leases.lease() as lease:
        store.content.put(DATA, DIGEST, lease)
        store.content.path(DIGEST).unlink()
        assert not store.content.has(DIGEST)
        ingest(store, DATA, lease)
        assert store.content.read(DIGEST) == DATA
        assert fsck(store) == []


def test_ingest_refuses_what_is_not_as_described(store: Store) -> None:
    with store.leases.lease() as lease:
        found = begin(store, lease)
        found.write(b"x" * len(DATA))
        with found, pytest.raises(Error, match="digest") as caught:
            found.commit()
        assert caught.value.code == "corrupt"
        assert os.listdir(store.layout.ingests) == [], "the wrong bytes are dropped"
        with begin(store, lease) as found:
            with pytest.raises(Error, match="more than the 10000 bytes"):
                found.write(DATA + b"x")
            found.write(DATA[:5])
            with pytest.raises(Error, match="only 5 of 10000 bytes") as caught:
                found.commit()
            assert caught.value.code == "corrupt"
        with begin(store, lease) as found:
            assert found.offset == found.resumed == 5, "what came is no reason to begin anew"


def test_a_descriptor_with_another_size_is_refused(store: Store) -> None:
    with store.leases.lease() as lease:
        ingest(store, DATA, lease)
        with pytest.raises(Error, match="its descriptor says 3") as caught:
            store.content.ingest(Descriptor(media_type="x", digest=DIGEST, size=3), lease)
        assert caught.value.code == "corrupt"


def test_an_error_keeps_the_bytes_and_nothing_is_left_without_any(store: Store) -> None:
    with store.leases.lease() as lease:
        found = begin(store, lease)
        found.write(DATA[:4000])
        with pytest.raises(KeyboardInterrupt), found:
            raise KeyboardInterrupt
        with begin(store, lease) as found:
            assert (found.offset, found.missing) == (4000, [(4000, 10_000)])
            found.discard()
        assert os.listdir(store.layout.ingests) == []
        with begin(store, lease):
            pass
        assert os.listdir(store.layout.ingests) == []


def test_a_successor_hashes_what_is_on_disk(store: Store) -> None:
    """Wrong bytes of an earlier attempt are found out, and the error says what to do."""
    with store.leases.lease() as lease:
        with begin(store, lease) as found:
            found.write(b"x" * 4000)
        with begin(store, lease) as found:
            found.write(DATA[4000:])
            with pytest.raises(Error, match="earlier attempt: try again"):
                found.commit()
        ingest(store, DATA, lease)
        assert store.content.read(DIGEST) == DATA


def test_an_ingest_with_another_size_begins_anew(store: Store) -> None:
    with store.leases.lease() as lease:
        with begin(store, lease) as found:
            found.write(DATA[:4000])
        other = store.content.ingest(Descriptor(media_type="x", digest=DIGEST, size=3000), lease)
        assert other is not None
        with other:
            assert other.offset == 0
            assert other.path.stat().st_size <= 3000


@given(cuts=st.lists(st.integers(1, 999), max_size=12), order=st.randoms(use_true_random=False), interrupts=st.booleans())
def test_ranges_in_any_order(store_once: Store, cuts: list[int], order: object, interrupts: bool) -> None:
    """Ranges come in any order, overlapping or not, with or without a change of the owner between them."""
    data = bytes_of("ranges", 1000)
    edges = sorted({0, 1000, *cuts})
    ranges = list(zip(edges, edges[1:], strict=False))
    order.shuffle(ranges)  # type: ignore[attr-defined]
    store = store_once
    have: set[int] = set()
    with store.leases.lease() as lease:
        found = begin(store, lease, data)
        grown: list[int] = []
        for start, end in ranges:
            found.grown = grown.append
            found.write_at(start, data[start:end])
            have.update(range(start, end))
            prefix = next(number for number in range(1001) if number not in have)
            assert found.offset == prefix
            assert found.received == len(have)
            assert {number for a, b in found.missing for number in range(a, b)} == set(range(1000)) - have
            assert not grown or grown[-1] == prefix
            if interrupts:
                found.__exit__(None, None, None)
                found = begin(store, lease, data)
                assert (found.offset, found.resumed) == (prefix, len(have))
        with found:
            found.commit()
        assert store.content.read(Digest.of(data)) == data


def test_ranges_from_threads(store: Store) -> None:
    data = bytes_of("threads", 400_000)
    with store.leases.lease() as lease, begin(store, lease, data) as found:
        found.allocate()

        def fetch(part: int) -> None:
            for start in range(part * 100_000, (part + 1) * 100_000, 1000):
                found.write_at(start, memoryview(data)[start : start + 1000])

        threads = [threading.Thread(target=fetch, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found.commit()
        assert store.content.read(Digest.of(data)) == data


def test_threads_share_one_ingest(store: Store) -> None:
    """One of several fetches; the others wait, are told how far it is, and find it there."""
    fetched, waited = [], []
    started = threading.Event()
    with store.leases.lease() as lease:

        def waiting(done: int) -> None:
            waited.append(done)
            started.set()

        def want() -> None:
            found = store.content.ingest(descriptor(DATA), lease, waiting=waiting)
            if found is not None:
                with found:
                    fetched.append(threading.get_ident())
                    found.write(DATA[:3000])
                    assert started.wait(30)
                    found.write(DATA[3000:])
                    found.commit()

        threads = [threading.Thread(target=want) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fetched) == 1
        assert waited[0] == 3000
        assert store.content.read(DIGEST) == DATA


def test_a_failed_owner_is_followed(store: Store) -> None:
    with store.leases.lease() as lease:
        first = begin(store, lease)
        first.write(DATA[:2000])
        result: list[int] = []

        def follow() -> None:
            with begin(store, lease) as found:
                result.append(found.offset)
                found.write(DATA[found.offset :])
                found.commit()

        thread = threading.Thread(target=follow)
        thread.start()
        first.__exit__(None, None, None)
        thread.join()
        assert result == [2000]
        assert store.content.has(DIGEST)


def test_no_space_says_so_and_leaves_a_store_that_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if len(data) > 2000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    with store.leases.lease() as lease:
        with begin(store, lease) as found:
            found.write(DATA[:2000])
            monkeypatch.setattr(os, "pwrite", full)
            with pytest.raises(Error, match="no space left") as caught:
                found.write(DATA[2000:])
            assert caught.value.code == "exhausted"
            assert caught.value.subject.startswith(str(store.root))
        monkeypatch.undo()
        with begin(store, lease) as found:
            assert found.offset == 2000


@pytest.mark.parametrize("step", ["rename", "commit"])
def test_a_commit_that_fails_leaves_the_bytes_for_the_next(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    real = getattr(Changes, step)

    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(Changes, step, real)  # what follows is no longer broken
        raise OSError(errno.EIO, "no more")

    with store.leases.lease() as lease:
        found = begin(store, lease)
        with found:
            found.write(DATA)
            monkeypatch.setattr(Changes, step, fail)
            with pytest.raises(OSError, match="no more"):
                found.commit()
        assert not store.content.has(DIGEST)
        assert fsck(store) == []
        with begin(store, lease) as found:
            assert found.offset == len(DATA)
            found.commit()


def test_links_come_from_manifests(store: Store) -> None:
    layer = descriptor(DATA).json()
    manifest = b'{"schemaVersion": 2, "layers": [%s, {"digest": "sha256:bad"}, 7]}' % str(layer).replace("'", '"').encode()
    with store.leases.lease() as lease:
        store.content.put(manifest, Digest.of(manifest), lease)
        store.content.put(DATA, DIGEST, lease)
        found = store.content.ingest(descriptor(manifest + b" ", mediatypes.MANIFEST), lease)
        assert found is not None
        with found:
            found.write(manifest + b" ")
            found.commit()
        with store.database.reading() as connection:
            rows = connection.execute("SELECT holder, target FROM links ORDER BY holder").fetchall()
    assert rows == sorted([(Digest.of(manifest), DIGEST), (Digest.of(manifest + b" "), DIGEST)])


def test_a_map_counts_in_its_boot_or_when_it_was_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, changes = tmp_path / "map", Changes(sync=False)
    first = Received(path, 100, 0, changes)
    first.add(10, 20)
    first.close()
    assert Received(path, 100, 100, changes).gaps == [(0, 10), (20, 100)]
    assert Received(path, 100, 15, changes).gaps == [(0, 100)], "the file ends before the range does"
    again = Received(path, 100, 100, changes)
    again.add(10, 20)
    again.close()
    monkeypatch.setattr(maps, "boot", lambda: bytes(16))
    other = Received(path, 100, 100, changes)
    assert other.gaps == [(0, 100)], "a power cut may have taken what the map names"
    other.add(30, 40)
    other.keep()
    other.close()
    monkeypatch.undo()
    assert Received(path, 100, 100, changes).gaps == [(0, 30), (40, 100)]


def test_more_ranges_than_slots(tmp_path: Path) -> None:
    changes = Changes(sync=False)
    size = (maps.SLOTS + 50) * 4
    received = Received(tmp_path / "map", size, size, changes)
    for start in range(0, size, 4):
        received.add(start, start + 2)
    received.close()
    again = Received(tmp_path / "map", size, size, changes)
    assert again.total == maps.SLOTS * 2, "the others were remembered by their owner alone"
    for start in range(0, size, 4):
        again.add(start, start + 4)
    again.close()
    assert Received(tmp_path / "map", size, size, changes).gaps == []


@pytest.mark.parametrize("junk", [b"", b"x", b"ocirtmap", bytes(64), b"\xff" * 500])
def test_a_map_that_is_junk_is_made_anew(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "map").write_bytes(junk)
    assert Received(tmp_path / "map", 100, 100, Changes(sync=False)).gaps == [(0, 100)]
