"""Images: names, what a person may type, what goes when a name goes; leases; prune."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.store import Store, prune
from ocirt_images.store.checks import fsck
from tests.support.store.samples import Sample, bytes_of, descriptor, ingest, pull, sample, unpack

ONE = sample("docker.io/library/one:1", ("a", "b"))
TWO = sample("docker.io/library/two:1", ("a", "c"))


def test_a_name_stands_for_an_image(store: Store) -> None:
    record = pull(store, ONE)
    assert record == store.images.get(ONE.name) == store.images.find(ONE.name)
    assert record.target == ONE.target
    assert record.manifest == ONE.target.digest
    assert record.id == Digest.of(ONE.config).encoded
    assert record.layer == ONE.chain_ids[-1]
    assert store.images.list() == [record]
    again = pull(store, ONE)
    assert (again.created, again.updated) == (record.created, record.updated), "nothing about it is new"


@pytest.mark.parametrize("text", ["one:1", "library/one:1", "docker.io/library/one:1", "index.docker.io/library/one:1"])
def test_found_by_short_names(store: Store, text: str) -> None:
    pull(store, ONE)
    assert store.images.find(text).name == ONE.name


def test_found_by_digest_and_id(store: Store) -> None:
    pull(store, ONE)
    pull(store, TWO)
    identifier = Digest.of(ONE.config).encoded
    for text in (identifier, identifier[:12], f"sha256:{identifier}", ONE.target.digest, f"one@{ONE.target.digest}"):
        assert store.images.find(text).name == ONE.name
    with pytest.raises(Error) as caught:
        store.images.find(f"two@{ONE.target.digest}")
    assert caught.value.code == "not-found"


def test_an_ambiguous_id_names_the_candidates(store: Store) -> None:
    found: dict[str, Sample] = {}
    number = 0
    while True:  # two images whose IDs begin alike
        image = sample(f"registry.example/n{number}:1", (), 0)
        prefix = Digest.of(image.config).encoded[:3]
        if prefix in found:
            break
        found[prefix] = image
        number += 1
    other = found[prefix]
    pull(store, image)
    pull(store, other)
    with pytest.raises(Error, match="2 images could be meant") as caught:
        store.images.find(prefix)
    assert caught.value.code == "invalid"
    assert image.name in caught.value.hint
    assert other.name in caught.value.hint
    # Two names of one image are no question.
    store.images.delete(other.name)
    store.images.tag(image.name, "registry.example/again:1")
    assert store.images.find(prefix).config == Digest.of(image.config)


@pytest.mark.parametrize(("text", "hint"), [("one:2", "docker.io/library/one:1"), ("onne:1", "docker.io/library/one:1")])
def test_an_unknown_name_lists_near_ones(store: Store, text: str, hint: str) -> None:
    pull(store, ONE)
    for action in (store.images.find, store.images.delete):
        with pytest.raises(Error, match="no such image") as caught:
            action(text)
        assert caught.value.code == "not-found"
        assert hint in caught.value.hint


def test_an_unknown_name_in_an_empty_store(store: Store) -> None:
    with pytest.raises(Error, match="ocirt images lists what there is"):
        store.images.find("../../etc/passwd")


def test_what_is_shared_stays_until_its_last_name_goes(store: Store) -> None:
    pull(store, ONE)
    pull(store, TWO)
    store.images.tag(ONE.name, "registry.example/alias:1")
    assert store.images.delete(ONE.name).contents == 0
    freed = store.images.delete("registry.example/alias:1")
    assert (freed.contents, freed.layers) == (3, 1)
    assert freed.content_bytes == len(ONE.config) + len(ONE.manifest) + len(ONE.layers[1])
    assert not store.content.missing(TWO.digests)
    freed = store.images.delete(TWO.name)
    assert (freed.contents, freed.layers) == (4, 2)
    assert os.listdir(store.layout.blobs / "sha256") == os.listdir(store.layout.layers) == []
    assert fsck(store) == []


def test_a_moved_name_frees_what_it_held(store: Store) -> None:
    pull(store, ONE)
    moved = pull(store, Sample(ONE.name, TWO.layers))
    assert moved.created < moved.updated
    assert not store.content.has(ONE.target.digest)
    assert store.content.has(Digest.of(ONE.layers[0])), "both have it"
    assert not store.content.has(Digest.of(ONE.layers[1]))
    store.images.tag(ONE.name, "registry.example/other:1")
    pull(store, TWO)
    store.images.tag(TWO.name, ONE.name)
    store.images.tag(ONE.name, ONE.name)
    assert store.images.find(ONE.name).config == Digest.of(TWO.config)
    assert fsck(store) == []


def test_an_image_needs_its_content(store: Store) -> None:
    with store.leases.lease() as lease, pytest.raises(Error, match="not in the store") as caught:
        store.images.put("x", ONE.target, manifest=ONE.target.digest, config=Digest.of(ONE.config), lease=lease)
    assert caught.value.code == "internal"
    assert store.images.list() == []


def test_an_index_holds_what_is_there_of_it(store: Store) -> None:
    """The manifests of other platforms may be missing; the one that is there has its configuration and layers."""
    with store.leases.lease() as lease:
        for data in ONE.contents:
            store.content.put(data, Digest.of(data), lease)
        manifests = [{"digest": ONE.target.digest}, {"digest": Digest.of(b"for another machine")}]
        index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        store.content.put(index, Digest.of(index), lease)
        store.images.put("x", descriptor(index), manifest=ONE.target.digest, config=Digest.of(ONE.config), lease=lease)
    assert not store.content.missing([*ONE.digests, Digest.of(index)])
    assert fsck(store) == []
    assert store.images.delete("x").contents == 5


def test_a_lease_that_ends_well_frees_and_one_that_fails_keeps(store: Store) -> None:
    with store.leases.lease("pull") as lease:
        ingest(store, b"one", lease)
        assert [name for _, name, _ in store.leases.list()] == ["pull"]
    assert not store.content.has(Digest.of(b"one"))
    lease = store.leases.lease()
    ingest(store, b"two", lease)
    with pytest.raises(KeyboardInterrupt), lease:
        raise KeyboardInterrupt
    assert store.content.has(Digest.of(b"two"))
    assert store.leases.list() == []
    assert prune(store).freed.contents == 1


def test_a_lease_pins_what_it_touches(store: Store) -> None:
    pull(store, ONE)
    with store.leases.lease() as lease:
        assert store.content.ingest(descriptor(ONE.layers[0]), lease) is None
        assert store.layers.stage(ONE.chain_ids[0], parent=None, diff_id=ONE.diff_ids[0], lease=lease) is None
        store.images.delete(ONE.name)
        prune(store)
        assert store.content.has(Digest.of(ONE.layers[0]))
        assert store.layers.get(ONE.chain_ids[0]) is not None
        assert not store.content.has(ONE.target.digest)
    assert not store.content.has(Digest.of(ONE.layers[0]))
    assert store.layers.list() == []


def test_a_lease_ends_with_its_time(store: Store) -> None:
    lease = store.leases.lease(seconds=-1)
    other = store.leases.lease(seconds=100)
    other.extend(1000)
    assert [number for number, _, _ in store.leases.list()] == [other.number]
    assert store.leases.expire() == 1
    with pytest.raises(Error, match="its time is up") as caught:
        store.content.put(b"x", Digest.of(b"x"), lease)
    assert caught.value.code == "cancelled"
    with pytest.raises(Error, match="its time is up"):
        lease.extend()
    lease.end()
    with pytest.raises(Error, match="the lease has ended"):
        lease.pin([Digest.of(b"x")])


def test_leases_of_another_opening_are_seen_to_live(root: Path) -> None:
    with Store.open(root, sync=False) as one, Store.open(root, sync=False) as other:
        with one.leases.lease("mine"), other.leases.lease("yours"):
            assert one.leases.expire() == other.leases.expire() == 0
            assert [name for _, name, _ in one.leases.list()] == ["mine", "yours"]
        other.leases.lease("never ended")
        other.close()
        assert one.leases.expire() == 1


def test_prune_removes_what_nothing_uses(store: Store) -> None:
    pull(store, ONE)
    lease = store.leases.lease()
    ingest(store, b"nobody's", lease)
    unpack(store, Digest.of(b"?"), None, Digest.of(b"?"), lease)
    found = store.content.ingest(descriptor(bytes_of("half", 9000)), lease)
    assert found is not None
    with found:
        found.write(bytes(4096))
    busy = store.content.ingest(descriptor(bytes_of("busy", 9000)), lease)
    assert busy is not None
    busy.write(bytes(10))
    assert prune(store, older=3600).freed.contents == 0
    lease.end(free=False)
    assert prune(store, older=3600).freed.contents == 0
    pruned = prune(store)
    assert (pruned.freed.contents, pruned.freed.layers, pruned.ingests, pruned.images) == (1, 1, 1, [])
    assert pruned.ingest_bytes >= 4096
    assert busy.path.exists(), "somebody is at work on it"
    busy.discard()
    assert not store.content.missing(ONE.digests)
    assert fsck(store) == []


def test_prune_of_images_leaves_those_of_containers(store: Store) -> None:
    pull(store, ONE)
    pull(store, TWO)
    store.writables.create("container", ONE.chain_ids[-1])
    assert prune(store, images=True, older=3600).images == []
    assert prune(store, images=True).images == [TWO.name]
    assert [image.name for image in store.images.list()] == [ONE.name]
    assert fsck(store) == []


def test_prune_spares_old_downloads_that_are_young_enough(store: Store) -> None:
    with store.leases.lease() as lease:
        found = store.content.ingest(descriptor(bytes_of("half", 9000)), lease)
        assert found is not None
        with found:
            found.write(bytes(10))
    assert prune(store, older=60).ingests == 0
    os.utime(found.path, (time.time() - 61,) * 2)
    assert prune(store, older=60).ingests == 1
