"""What comes of a pull: content, trees, the name; and what is refused, with nothing left."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable

import pytest

from ocirt_images import events, mediatypes
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.pull import unpack
from ocirt_images.reference import Reference
from tests.support import images
from tests.support.registry import LocalRegistry
from tests.unit.images.pull.box import Box, blob_requests, ref

ARM = {"os": "linux", "architecture": "arm64"}
AMD = {"os": "linux", "architecture": "amd64"}
NOBODY = {"os": "unknown", "architecture": "unknown"}


def test_content_trees_and_name(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    record = box.pull(registry, pulled_by="me")
    assert (record.name, record.target.digest, record.pulled_by) == (f"{registry.address}/team/app:latest", image.digest, "me")
    box.holds(record, image)
    assert sorted(blob_requests(registry)) == sorted((digest, "") for digest in image.blobs)


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
@pytest.mark.parametrize("docker", [False, True])
def test_compressions_and_both_families_of_types(box: Box, registry: LocalRegistry, compression: str, docker: bool) -> None:
    if docker and compression == "zstd":
        compression = "gzip"
    found = images.image(
        [images.layer({f"f{number}": b"x" * 3000}, compression, docker=docker, frames=3) for number in range(2)], docker=docker
    )
    registry.add("team/app", found, "latest")
    box.holds(box.pull(registry), found)


def test_workers_of_its_own(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.holds(box.pull(registry, workers=None), image)


def test_by_digest_without_a_tag(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    registry.tags.clear()
    record = box.pull(ref(registry, f"team/app@{image.digest}"))
    box.holds(record, image)
    assert record.name == f"{registry.address}/team/app@{image.digest}"


def test_sha512(box: Box, registry: LocalRegistry) -> None:
    one = images.layer({"f": b"long"})
    found = images.image([one])
    value = json.loads(found.manifest)
    digest = images.digest(one.blob, "sha512")
    value["layers"][0]["digest"] = digest
    registry.put_blob("team/app", digest, one.blob)
    registry.put_blob("team/app", images.digest(found.config), found.config)
    registry.put_manifest("team/app", images.encode(value), found.media_type, "latest")
    record = box.pull(registry)
    assert box.tree(record) == {"f": b"long"}
    assert box.store.content.read(Digest(digest)) == one.blob
    box.check()


def test_the_second_pull_asks_for_the_tag_alone(box: Box, registry: LocalRegistry) -> None:
    first = box.pull(registry)
    registry.forget()
    assert box.pull(registry) == first
    assert [(one.method, one.path) for one in registry.seen] == [("HEAD", "/v2/team/app/manifests/latest")]
    assert [type(one) for one in box.seen] == [events.Resolved, events.Done]


def test_a_tag_that_moved_brings_only_what_is_new(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    old = box.pull(registry)
    top = images.layer({"top": b"new"})
    found = images.image([*image.layers, top])
    registry.add("team/app", found, "latest")
    registry.forget()
    record = box.pull(registry)
    box.holds(record, found)
    assert record.config != old.config
    assert {digest for digest, _ in blob_requests(registry)} == {top.digest, images.digest(found.config)}


def test_another_tag_of_the_same_image_brings_nothing(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.pull(registry)
    registry.add("team/app", image, "other")
    registry.forget()
    record = box.pull(ref(registry, "team/app:other"))
    assert blob_requests(registry) == []
    box.holds(record, image)
    assert len(box.store.images.list()) == 2


def test_trees_that_are_gone_are_made_again(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    record = box.pull(registry)
    box.forget_trees(record)
    registry.forget()
    again = box.pull(registry)
    box.holds(again, image)
    assert blob_requests(registry) == []
    box.forget_trees(record)
    box.holds(unpack(box.store, box.store.images.find(record.name)), image)


def test_trees_that_only_another_name_holds(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """An image that was loaded has none of its own, though those of the same layers are there."""
    registry.add("team/app", image, "latest", "other")
    record = box.pull(registry)
    other = str(ref(registry, "team/app:other"))
    with box.store.leases.lease() as lease:
        box.store.images.put(other, record.target, manifest=record.manifest, config=record.config, lease=lease)
    assert box.pull(ref(registry, "team/app:other")).layer == record.layer
    box.store.images.delete(record.name)
    again = box.store.images.get(other)
    assert again is not None
    box.holds(again, image)


def test_unpack_says_which_bytes_are_missing(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    record = box.pull(registry)
    box.forget_trees(record)
    box.store.content.path(Digest(image.layers[1].digest)).unlink()
    with pytest.raises(Error, match=r"layer 1 .*: its bytes are not in the store \(pull it\)"):
        unpack(box.store, box.store.images.find(record.name))
    assert os.listdir(box.store.layout.staging) == []
    assert box.store.images.find(record.name).layer is None


def test_the_same_layer_twice(box: Box, registry: LocalRegistry) -> None:
    one, other = images.layer({"f": b"1", "g": b"1"}), images.layer({"f": b"2"})
    found = images.image([one, other, one, other, one])
    registry.add("team/app", found, "latest")
    record = box.pull(registry)
    box.holds(record, found)
    assert box.tree(record) == {"f": b"1", "g": b"1"}
    assert len(box.store.layers.list()) == 5
    assert len(blob_requests(registry)) == 3  # with the configuration


def test_one_tree_from_different_bytes(box: Box, registry: LocalRegistry) -> None:
    """The same archive in two compressions is one tree for two images, and both contents are kept."""
    contents: dict[str, bytes | tarfile.TarInfo] = {"f": b"same" * 100}
    one, other = (images.image([images.layer(contents, compression)]) for compression in ("gzip", "zstd"))
    for name, found in (("one", one), ("other", other)):
        registry.add("team/app", found, name)
        box.holds(box.pull(ref(registry, f"team/app:{name}")), found)
    assert len(box.store.layers.list()) == 1


def test_many_layers(box: Box, registry: LocalRegistry) -> None:
    found = images.image([images.layer({f"f{number}": b"%d" % number, "last": b"%d" % number}) for number in range(40)])
    registry.add("team/app", found, "latest")
    record = box.pull(registry)
    box.holds(record, found)
    assert box.tree(record)["last"] == b"39"
    assert len(box.store.layers.chain(record.layer or Digest.of(b""))) == 40


def test_no_layers(box: Box, registry: LocalRegistry) -> None:
    found = images.image()
    registry.add("team/app", found, "latest")
    record = box.pull(registry)
    assert record.layer is None
    box.holds(record, found)
    assert unpack(box.store, record) == record


def test_an_empty_layer(box: Box, registry: LocalRegistry) -> None:
    found = images.image([images.layer({}, ""), images.layer({"f": b"1"})])
    registry.add("team/app", found, "latest")
    box.holds(box.pull(registry), found)


def test_events_in_order(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.pull(registry)
    first, *between, last = box.seen
    assert first == events.Resolved(f"{registry.address}/team/app:latest", Digest(image.digest), "linux/amd64", registry.address)
    assert last == events.Done(f"{registry.address}/team/app:latest", Digest(image.digest), Digest(images.digest(image.config)))
    known, rest = between[:2], between[2:]
    assert known == [events.LayerKnown(Digest(one.digest), len(one.blob)) for one in image.layers]
    done = [one for one in rest if isinstance(one, events.LayerDone)]
    assert done == [events.LayerDone(Digest(one.digest), "") for one in image.layers]
    for layer in image.layers:
        mine = [one for one in rest if getattr(one, "layer", None) == layer.digest]
        assert isinstance(mine[0], events.LayerProgress)
        moved = [one.moved for one in mine if isinstance(one, events.LayerProgress)]
        assert (moved, moved[0], moved[-1]) == (sorted(moved), 0, len(layer.blob))
        assert [type(one) for one in mine[len(moved) :]] == [events.LayerUnpacking, events.LayerDone]


def test_layers_that_are_there_are_said_to_be(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.pull(registry)
    registry.add("team/app", images.image([*image.layers, images.layer({"f": b"1"})]), "latest")
    box.pull(registry)
    assert [one.how for one in box.seen if isinstance(one, events.LayerDone)] == ["exists", "exists", ""]


# -- platforms -----------------------------------------------------------------------------------------------------------------


def test_an_index(box: Box, registry: LocalRegistry) -> None:
    arm, amd = (images.image([images.layer({"arch": name.encode()})], platform=one) for name, one in (("arm", ARM), ("amd", AMD)))
    attestation = images.image([images.layer({"a": b"1"})], platform=NOBODY, artifact_type="x/y")
    whole = images.index([(NOBODY, attestation), (ARM, arm), (AMD, amd)])
    registry.add("team/app", whole, "latest")
    record = box.pull(registry)
    assert (record.target.digest, record.manifest) == (whole.digest, amd.digest)
    assert box.tree(record) == {"arch": b"amd"}
    assert registry.asked("GET", attestation.digest) == 0
    assert isinstance(box.seen[0], events.Resolved)
    assert box.seen[0].platform == "linux/amd64"
    record = box.pull(registry, platform=Platform.named("linux/arm64"))
    assert (record.target.digest, record.manifest) == (whole.digest, arm.digest)
    assert box.tree(record) == {"arch": b"arm"}
    box.check()


def test_an_index_in_an_index(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    whole = images.index([(None, images.index([(None, images.index([(AMD, image)]))]))])
    registry.add("team/app", whole, "latest")
    assert box.pull(registry).manifest == image.digest
    registry.add("team/app", images.index([(None, images.index([(None, whole)]))]), "deep")
    box.refused("unsupported", "an index in an index, 4 deep", ref(registry, "team/app:deep"))


def test_an_index_without_this_platform(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    registry.add("team/app", images.index([(ARM, image), (NOBODY, image)]), "latest")
    box.refused("unsupported", "no image for linux/amd64 (there are: linux/arm64)", registry)
    registry.add("team/app", images.index([(NOBODY, image)]), "latest")
    box.refused("unsupported", "no image for linux/amd64 (it has attestations only)", registry)
    registry.add("team/app", images.index([]), "latest")
    box.refused("unsupported", "an index without images", registry)
    assert blob_requests(registry) == []


def test_an_image_of_another_architecture(box: Box, registry: LocalRegistry) -> None:
    found = images.image([images.layer({"f": b"1"})], platform=ARM)
    registry.add("team/app", found, "latest")
    hint = "an image for linux/arm64, not for linux/amd64 (--platform linux/arm64 pulls it all the same)"
    box.refused("unsupported", hint, registry)
    assert registry.asked("GET", found.layers[0].digest) == 0
    box.holds(box.pull(registry, platform=Platform.named("arm64")), found)
    # An index says itself which one it means.
    registry.add("team/app", images.index([(AMD, found)]), "latest")
    box.holds(box.pull(registry), found)


def test_windows(box: Box, registry: LocalRegistry) -> None:
    found = images.image([images.layer({"f": b"1"})], platform={"os": "windows", "architecture": "amd64"})
    registry.add("team/app", found, "latest")
    box.refused("unsupported", "an image for windows/amd64 (this machine runs images for linux/amd64)", registry)


# -- what is no image ------------------------------------------------------------------------------------------------------------

Broken = Callable[[images.Json], object]


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda m: m["config"].update(mediaType="application/vnd.x"), "unsupported", "an artifact of type application/vnd.x"),
        (lambda m: m.update(artifactType="a/b") or m["config"].update(mediaType=mediatypes.EMPTY), "unsupported", "type a/b"),
        (lambda m: m["layers"][1].update(mediaType="x/layer"), "unsupported", "latest/layers/1: a layer of unknown type x/layer"),
        (lambda m: m.update(layers=m["layers"] * 300), "unsupported", "600 layers"),
        (lambda m: m.update(layers=m["layers"][:1]), "invalid", "rootfs/diff_ids: 2 entries for 1 layers"),
        (lambda m: m["config"].update(size=9 << 20), "invalid", "9437184 bytes"),
        (lambda m: m["config"].update(size=3), "corrupt", "where 3 bytes were announced"),
        (lambda m: m["layers"][0].update(size=3), "corrupt", "where 3 bytes were announced"),
        (lambda m: m["layers"][0].pop("digest"), "invalid", "layers/0/digest"),
        (lambda m: m["layers"][0].update(size=-1), "invalid", "layers/0/size"),
        (lambda m: m.update(layers={}), "invalid", "layers"),
        (lambda m: m.update(config=None), "invalid", "config"),
        (lambda m: m.update(manifests=[]), "invalid", "a manifest with manifests"),
        (lambda m: m.update(schemaVersion=3), "invalid", "schemaVersion"),
    ],
)
def test_a_broken_manifest(box: Box, registry: LocalRegistry, image: images.Image, change: Broken, code: str, text: str) -> None:
    value = json.loads(image.manifest)
    change(value)
    registry.put_manifest("team/app", images.encode(value), image.media_type, "latest")
    box.refused(code, text, registry)
    assert box.store.images.list() == []


@pytest.mark.parametrize(
    ("data", "kind", "code", "text"),
    [
        (b"{", mediatypes.INDEX, "invalid", "JSON"),
        (b"[]", mediatypes.INDEX, "invalid", ""),
        (b'{"schemaVersion": 2, "manifests": [{}]}', mediatypes.INDEX, "invalid", "manifests/0"),
        (b'{"schemaVersion": 2, "manifests": [], "layers": []}', mediatypes.INDEX, "invalid", "an index with layers"),
        (b'{"schemaVersion": 2, "manifests": 7}', mediatypes.INDEX, "invalid", "manifests"),
        (b'{"schemaVersion": 1, "fsLayers": []}', min(mediatypes.SCHEMA_1), "unsupported", "schema 1"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "application/json", "unsupported", "schema 1"),
        (b"\0" * (9 << 20), mediatypes.MANIFEST, "invalid", "more than 8388608 bytes"),
    ],
)
def test_what_is_neither_manifest_nor_index(
    box: Box, registry: LocalRegistry, data: bytes, kind: str, code: str, text: str
) -> None:
    registry.put_manifest("team/app", data, kind, "latest")
    box.refused(code, text, registry)


def test_an_index_whose_entry_is_missing_or_of_another_size(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    whole = images.index([(AMD, image)])
    registry.add("team/app", whole, "latest")
    kind, data = registry.manifests["team/app", image.digest]
    del registry.manifests["team/app", image.digest]
    box.refused("not-found", f"{image.digest}: ", registry)
    registry.manifests["team/app", image.digest] = kind, data + b"\n"
    box.refused("corrupt", "content whose digest is", registry)
    value = json.loads(whole.manifest)
    value["manifests"][0]["size"] += 1
    registry.manifests["team/app", image.digest] = kind, data
    registry.put_manifest("team/app", images.encode(value), whole.media_type, "latest")
    box.refused("corrupt", f"{len(data)} bytes, where {len(data) + 1} were announced", registry)


def test_a_manifest_of_five_megabytes(box: Box, registry: LocalRegistry) -> None:
    found = images.image([images.layer({"f": b"1"})], annotations={"long": "x" * (5 << 20)})
    registry.add("team/app", found, "latest")
    box.holds(box.pull(registry), found)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (lambda c: c["rootfs"].update(type="x"), "invalid", "rootfs/type: not `layers`"),
        (lambda c: c["rootfs"]["diff_ids"].pop(), "invalid", "1 entries for 2 layers"),
        (lambda c: c["rootfs"]["diff_ids"].__setitem__(0, "sha256:x"), "invalid", "rootfs/diff_ids/0"),
        (lambda c: c.pop("rootfs"), "invalid", "rootfs"),
        (lambda c: c.update(config=[7]), "invalid", "config"),
    ],
)
def test_a_broken_configuration(
    box: Box, registry: LocalRegistry, image: images.Image, change: Broken, code: str, text: str
) -> None:
    value = json.loads(image.config)
    change(value)
    config = images.encode(value)
    manifest = json.loads(image.manifest)
    manifest["config"] |= {"digest": images.digest(config), "size": len(config)}
    registry.put_blob("team/app", images.digest(config), config)
    registry.put_manifest("team/app", images.encode(manifest), image.media_type, "latest")
    box.refused(code, text, registry)


@pytest.mark.parametrize("where", [0, 1])
def test_another_diff_id(box: Box, registry: LocalRegistry, image: images.Image, where: int) -> None:
    """The bytes are those of the manifest, and so they are kept; a tree is not made of them."""
    layers = [
        images.Layer(one.tar + b"\0" * 512 if number == where else one.tar, one.blob, one.descriptor)
        for number, one in enumerate(image.layers)
    ]
    registry.add("team/app", images.image(layers), "latest")
    box.refused("corrupt", f"latest: layer {where} (", registry)
    assert box.store.images.list() == []
    registry.forget()
    box.refused("corrupt", "the inflated bytes have another digest", registry)
    assert image.layers[where].digest not in {digest for digest, _ in blob_requests(registry)}


@pytest.mark.parametrize("data", [b"no tar at all" * 100, b"x" * 511, images.tar({"../out": b"1"}), b"\x1f\x8b" + b"\xff" * 600])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_layer_that_is_no_archive(box: Box, registry: LocalRegistry, data: bytes, compression: str) -> None:
    good = images.layer({"f": b"1"})
    registry.add("team/app", images.image([good, images.layer(data, compression)]), "latest")
    box.refused("invalid", "layer 1", registry)


def test_a_layer_that_is_not_compressed_as_it_says(box: Box, registry: LocalRegistry) -> None:
    plain = images.layer({"f": b"1"}, "")
    lie = images.Layer(plain.tar, plain.blob, plain.descriptor | {"mediaType": f"{mediatypes.LAYER}+gzip"})
    registry.add("team/app", images.image([lie]), "latest")
    box.refused("invalid", "layer 0", registry)


def test_no_such_tag(box: Box, registry: LocalRegistry) -> None:
    box.refused("not-found", "has no tag latst: MANIFEST_UNKNOWN", ref(registry, "team/app:latst"))
    box.refused("not-found", "has no tag latest", ref(registry, "nobody/nothing"))


def test_nobody_listens(box: Box, registry: LocalRegistry) -> None:
    registry.close()
    box.refused("unavailable", "refuses the connection", Reference.parse(f"{registry.address}/team/app"))
