"""`pull --all-platforms`: an index with all that it names, unpacked for this machine alone."""

from __future__ import annotations

import pytest

from ocirt_images import events
from ocirt_images.cancel import Cancel
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.push import push
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.store import prune
from tests.support import images
from tests.support.registry import LocalRegistry
from tests.unit.images.pull.box import Box, blob_requests, ref

AMD = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64"}
NOBODY = {"os": "unknown", "architecture": "unknown"}
SHARED = images.random_layer(7)


@pytest.fixture
def whole(registry: LocalRegistry) -> images.Image:
    """Two platforms that share a layer, one of them in an index of its own, and an attestation."""
    amd = images.image([SHARED, images.layer({"arch": b"amd"})], platform=AMD)
    arm = images.image([SHARED, images.layer({"arch": b"arm"})], platform=ARM)
    attestation = images.image([images.layer({"a": b"1"})], platform=NOBODY, artifact_type="x/y")
    found = images.index([(AMD, amd), (None, images.index([(ARM, arm)])), (NOBODY, attestation)])
    registry.add("team/app", found, "latest")
    return found


def everything(box: Box, image: images.Image) -> None:
    for digest, data in (image.blobs | {digest: data for digest, (_, data) in image.manifests.items()}).items():
        assert box.store.content.read(Digest(digest)) == data


def test_all_of_it(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    record = box.pull(registry, everything=True)
    assert record.target.digest == whole.digest
    everything(box, whole)
    assert len(box.store.layers.list()) == 2, "unpacked for this platform alone"
    assert box.tree(record)["arch"] == b"amd"
    asked = [digest for digest, _ in blob_requests(registry)]
    assert len(asked) == len(set(asked)) == len(whole.blobs), "each once, those too that platforms share"
    assert {one.layer for one in box.seen if isinstance(one, events.LayerDone)} >= {one.digest for one in images_of(whole)}
    assert isinstance(box.seen[-1], events.Done)
    box.check()


def images_of(whole: images.Image) -> list[images.Layer]:
    return [SHARED, images.layer({"arch": b"amd"}), images.layer({"arch": b"arm"}), images.layer({"a": b"1"})]


def test_nothing_to_do(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    box.pull(registry, everything=True)
    before = len(registry.seen)
    box.pull(registry, everything=True)
    assert len(registry.seen) == before + 1


def test_the_rest_of_an_image_that_is_here(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    box.pull(registry)
    assert len(box.store.layers.list()) == 2
    already = {digest for digest, _ in blob_requests(registry)}
    registry.seen.clear()
    box.pull(registry, everything=True)
    everything(box, whole)
    assert not already & {digest for digest, _ in blob_requests(registry)}
    box.check()


def test_one_name_holds_it_all(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    """Nothing is freed while the name is there, and everything when it goes."""
    record = box.pull(registry, everything=True)
    prune(box.store)
    everything(box, whole)
    freed = box.store.images.delete(record.name)
    assert (freed.contents, freed.layers) == (len(whole.blobs) + len(whole.manifests), 2)
    assert box.store.layers.list() == []
    box.check()


def test_an_image_without_an_index(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.holds(box.pull(registry, everything=True), image)


def test_a_part_that_is_missing_at_the_registry(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    """There is no image then; what came is kept for the next attempt."""
    (arm,) = [digest for digest, (_, data) in whole.manifests.items() if images_of(whole)[2].digest.encode() in data]
    del registry.manifests["team/app", arm]
    box.refused("not-found", arm, registry, everything=True)
    assert box.store.images.list() == []


def test_to_another_registry(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    """The index arrives with its digest; and another machine's image can be had from there."""
    record = box.pull(registry, everything=True)
    with LocalRegistry() as other, Registry(hosts=Hosts(), credentials=Credentials(), environ={}) as client:
        reference = Reference.parse(f"{other.address}/copy/app:1")
        assert push(box.store, client, record, reference) == whole.digest
        there = box.pull(ref(other, "copy/app:1"), platform=Platform.named("linux/arm64"))
        assert box.tree(there)["arch"] == b"arm"


def test_cancelled(box: Box, registry: LocalRegistry, whole: images.Image) -> None:
    """Also while the rest comes."""
    cancel = Cancel()

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.LayerKnown) and event.layer == images_of(whole)[2].digest:
            cancel.set()

    with pytest.raises(Error) as caught:
        box.pull(registry, everything=True, cancel=cancel, on_event=on_event)
    assert caught.value.code == "cancelled"
    assert box.store.images.list() == []
    box.check()
