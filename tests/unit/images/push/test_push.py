"""What a push sends, and what it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ocirt_images import events, mediatypes
from ocirt_images.cancel import Cancel
from ocirt_images.digest import Digest
from ocirt_images.platforms import Platform
from ocirt_images.registry.credentials import Credential, Credentials
from ocirt_images.store import Store
from tests.support import images
from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Bearer
from tests.unit.images.push.conftest import MakeClient, Pushing, keep
from tests.unit.images.registry.asking import refused

AMD, ARM = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}


@pytest.fixture(scope="module")
def image() -> images.Image:
    """Three layers of 100,000 bytes."""
    return images.random_image(1)


@pytest.fixture(scope="module")
def both() -> images.Image:
    """An index for two platforms."""
    one = images.image([images.random_layer(1)], platform=AMD)
    other = images.image([images.random_layer(2)], platform=ARM)
    return images.index([(AMD, one), (ARM, other)])


def test_to_an_empty_registry(pushing: Pushing, image: images.Image) -> None:
    assert pushing(image) == image.digest
    assert pushing.has(image)
    assert pushing.done == {one.digest: "" for one in image.layers}
    # Each layer by POST and PUT; the configuration, which is small, along with POST; the manifest.
    sizes = [one.descriptor["size"] for one in image.layers]
    assert sorted(pushing.sent()) == sorted(
        [*(("PUT", size) for size in sizes), ("POST", len(image.config)), ("PUT", len(image.manifest))]
    )
    assert pushing.registry.asked("POST") == len(image.layers) + 1


def test_events(pushing: Pushing, image: images.Image) -> None:
    pushing(image)
    name = str(pushing.reference())
    first, *rest, last = pushing.events
    assert first == events.Resolved(name, Digest(image.digest), "", pushing.registry.address)
    assert last == events.Done(name, Digest(image.digest), Digest(images.digest(image.config)))
    assert rest[:3] == [events.LayerKnown(Digest(one.digest), one.descriptor["size"]) for one in image.layers]
    layers = {one.digest: one.descriptor["size"] for one in image.layers}
    moved = [one for one in rest if isinstance(one, events.LayerProgress)]
    assert {one.layer for one in moved} == set(layers), "not of the configuration"
    assert {one.layer: one.moved for one in moved} == layers, "at last, of each, all"


def test_a_second_push_sends_nothing(pushing: Pushing, image: images.Image) -> None:
    pushing(image)
    assert pushing(image) == image.digest
    assert {one.method for one in pushing.registry.seen} == {"HEAD"}
    assert pushing.sent() == []
    assert pushing.done == {one.digest: "exists" for one in image.layers}


def test_only_what_is_missing(pushing: Pushing, image: images.Image) -> None:
    """Of a blob that got lost at the registry, too."""
    pushing(image)
    lost = image.layers[1]
    pushing.registry.links.discard(("team/app", lost.digest))
    pushing(image)
    assert pushing.sent() == [("PUT", len(lost.blob))]
    assert pushing.has(image)
    # Another tag is a manifest alone.
    pushing(image, "team/app:2")
    assert pushing.sent() == [("PUT", len(image.manifest))]
    assert pushing.has(image, "team/app", "1", "2")


def test_a_tag_moves(pushing: Pushing, image: images.Image) -> None:
    pushing(image)
    other = images.random_image(2)
    pushing(other)
    assert pushing.has(other)


def test_by_digest(pushing: Pushing, image: images.Image) -> None:
    record = keep(pushing.store, image)
    pushing.push(record, f"team/app@{image.digest}")
    assert ("team/app", image.digest) in pushing.registry.manifests
    assert pushing.registry.tags == {"team/app": {}}
    pushing.push(record, f"team/app:both@{image.digest}")
    assert pushing.has(image, "team/app", "both")
    err = refused("invalid", f"the image has the digest {image.digest}", lambda: pushing.push(record, f"a@sha256:{'0' * 64}"))
    assert err.subject.startswith(pushing.registry.address)
    assert pushing.registry.seen == []


@pytest.mark.parametrize("docker", [False, True])
def test_types_and_bytes_are_kept(pushing: Pushing, docker: bool) -> None:
    one = images.image([images.layer({"a": b"b"}, docker=docker)], docker=docker, platform=AMD)
    many = images.index([(AMD, one)], docker=docker)
    pushing(many)
    assert pushing.has(many)
    kind = mediatypes.DOCKER_LIST if docker else mediatypes.INDEX
    assert pushing.registry.manifests["team/app", many.digest] == (kind, many.manifest)


# Indexes


def test_an_index(pushing: Pushing, both: images.Image) -> None:
    """Children first."""
    pushing(both)
    assert pushing.has(both)
    puts = [one.path.rpartition("/")[2] for one in pushing.registry.seen if one.method == "PUT" and "/manifests/" in one.path]
    assert set(puts[:2]) == set(both.manifests) - {both.digest}
    assert puts[2:] == ["1"]


def test_nested_indexes_that_share(pushing: Pushing, both: images.Image) -> None:
    nested = images.index([(None, both), (None, images.index([(None, both)], annotations={"a": "b"}))])
    pushing(nested)
    assert pushing.has(nested)
    assert sum(1 for method, _ in pushing.sent() if method == "PUT") == 2 + 5, "each layer and each manifest once"


def test_one_platform_of_an_index(pushing: Pushing, both: images.Image) -> None:
    (arm,) = [digest for digest, (_, data) in both.manifests.items() if images.random_layer(2).digest.encode() in data]
    assert pushing(both, platform=Platform.named("arm64")) == arm
    assert pushing.registry.tags == {"team/app": {"1": arm}}
    assert list(pushing.done) == [images.random_layer(2).digest]
    refused("not-found", "nothing for linux/s390x is here", lambda: pushing(both, platform=Platform.named("s390x")))


def part(both: images.Image) -> tuple[str, ...]:
    """What is missing if only amd64 was pulled."""
    layer = images.random_layer(2)
    (arm,) = [digest for digest, (_, data) in both.manifests.items() if layer.digest.encode() in data and digest != both.digest]
    config = json.loads(both.manifests[arm][1])["config"]["digest"]
    return arm, layer.digest, config


def test_an_index_with_a_part_of_its_manifests(pushing: Pushing, both: images.Image) -> None:
    """It is sent as it is, if the registry takes it."""
    record = keep(pushing.store, both, without=part(both))
    err = refused("invalid", "MANIFEST_BLOB_UNKNOWN", lambda: pushing.push(record))
    assert err.hint == "not here: linux/arm64. `ocirt pull --all-platforms` brings them; --platform pushes one alone"
    assert pushing.push(record, platform=Platform.named("amd64")) == record.manifest
    assert pushing.sent() == [("PUT", pushing.store.content.size(record.manifest))], "all but the tag was sent before"
    pushing.registry.sparse = True
    assert pushing.push(record) == both.digest
    assert pushing.registry.tags["team/app"]["1"] == both.digest


def test_what_is_missing_may_be_at_the_registry(pushing: Pushing, both: images.Image) -> None:
    pushing.registry.add("team/app", both)
    record = keep(pushing.store, both, without=part(both)[1:])
    assert pushing.push(record) == both.digest
    assert pushing.has(both)


def test_an_image_that_is_not_here_whole(pushing: Pushing, image: images.Image, both: images.Image) -> None:
    record = keep(pushing.store, image, without=(image.layers[1].digest,))
    refused("not-found", "not all of its content is here (pull it again)", lambda: pushing.push(record))
    amd = next(one for one in both.blobs if images.random_layer(1).digest == one)
    record = keep(pushing.store, both, without=(*part(both), amd))
    refused("not-found", "not all of its content is here (pull it again)", lambda: pushing.push(record))
    assert pushing.registry.seen == []


# Layers that must not be handed out


@pytest.mark.parametrize("here", [True, False])
def test_nondistributable_layers(pushing: Pushing, here: bool) -> None:
    """They are only referred to, whether they are here or not."""
    foreign = images.random_layer(1)
    foreign.descriptor.update(mediaType=mediatypes.DOCKER_FOREIGN, urls=["https://layers.example/1"])
    image = images.image([foreign, images.random_layer(2)])
    pushing.push(keep(pushing.store, image, without=() if here else (foreign.digest,)))
    assert foreign.digest not in pushing.registry.blobs
    assert ("team/app", image.digest) in pushing.registry.manifests
    assert list(pushing.done) == [images.random_layer(2).digest]
    assert not any(foreign.digest in one.path for one in pushing.registry.seen)


# Mounts


def test_mounts(pushing: Pushing, image: images.Image) -> None:
    """From a repository of the registry by whose name the store has an image with the same layer."""
    old = images.image([*image.layers[:2]])
    pushing.registry.add("base/os", old, "1")
    keep(pushing.store, old, f"{pushing.registry.address}/base/os:1")
    keep(pushing.store, image, "other.example/base/os:1")
    pushing(image)
    assert pushing.has(image)
    assert pushing.done == {image.layers[0].digest: "mounted", image.layers[1].digest: "mounted", image.layers[2].digest: ""}
    mounts = [one.query for one in pushing.registry.seen if "mount" in one.query]
    assert sorted(one["mount"] for one in mounts) == sorted(one.digest for one in image.layers[:2])
    assert {one["from"] for one in mounts} == {"base/os"}
    assert [size for method, size in pushing.sent() if method == "PUT"][:-1] == [len(image.layers[2].blob)]


def test_mounts_that_fail(pushing: Pushing, image: images.Image) -> None:
    """The upload that was begun in its place is used; an earlier one is given up."""
    for number in range(5):
        keep(pushing.store, image, f"{pushing.registry.address}/base/{number}:1", pulled_by="x" if number == 4 else "")
    pushing(image)
    assert pushing.has(image)
    assert pushing.done == {one.digest: "" for one in image.layers}
    first = image.layers[0].digest
    asked = [one.query.get("from") for one in pushing.registry.seen if one.method == "POST" and one.query.get("mount") == first]
    assert asked == ["base/4", "base/0", "base/1"], "what was pulled from there comes first"
    assert pushing.registry.asked("DELETE") == 4 * 2
    assert pushing.registry.asked("POST") == 4 * 3


def test_a_registry_that_cannot_mount(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.add("base", image, "1")
    keep(pushing.store, image, f"{pushing.registry.address}/base:1")
    pushing.registry.uploads.mounts = False
    pushing(image)
    assert pushing.has(image)
    assert pushing.registry.asked("POST") == 4


# Tokens


@pytest.fixture
def guarded(store: Store, make_client: MakeClient) -> Any:
    """A registry with tokens, and who may push there."""
    with LocalRegistry(auth=Bearer(users={"ann": "secret"})) as registry:
        credential = Credential(username="ann", password="secret", source="the test")
        client = make_client(credentials=Credentials(given={registry.address: credential}))
        yield Pushing(store, registry, client)


def test_one_token(guarded: Pushing, image: images.Image) -> None:
    guarded(image, connections=1)
    assert guarded.has(image)
    asked = [one.scopes for one in guarded.registry.seen if one.path == "/token"]
    assert asked == [["repository:team/app:pull,push"]]


def test_the_token_of_a_mount_names_both(guarded: Pushing, image: images.Image) -> None:
    guarded.registry.add("base", image)
    keep(guarded.store, image, f"{guarded.registry.address}/base:1")
    guarded(image, connections=1)
    assert guarded.has(image)
    assert set(guarded.done.values()) == {"mounted"}
    asked = [one.scopes for one in guarded.registry.seen if one.path == "/token"]
    assert asked == [["repository:team/app:pull,push"], ["repository:base:pull", "repository:team/app:pull,push"]]


def test_who_may_only_read(guarded: Pushing, make_client: MakeClient, image: images.Image) -> None:
    guarded.client = make_client()
    err = refused("unauthorized", "refuses the upload of blob", lambda: guarded(image))
    assert "no credentials were found" in err.hint
    assert guarded.registry.blobs == {}


def test_a_source_that_may_not_be_read(guarded: Pushing, image: images.Image) -> None:
    """Without a mount, then."""
    keep(guarded.store, image, f"{guarded.registry.address}/secret:1")
    bearer = guarded.registry.auth
    assert isinstance(bearer, Bearer)
    bearer.refused = frozenset(("repository:secret",))
    guarded(image, connections=1)
    assert guarded.has(image)
    asked = [one for one in guarded.registry.seen if one.path == "/token" and "repository:secret:pull" in one.scopes]
    assert len(asked) == 1, "once for all layers"


# sha512


def test_sha512(pushing: Pushing) -> None:
    """Blobs and manifests keep the digests that they have."""
    layer = images.random_layer(1)
    digest = images.digest(layer.blob, "sha512")
    config = images.image([layer]).config
    manifest: images.Json = json.loads(images.image([layer]).manifest)
    manifest["layers"][0]["digest"] = digest
    manifest["config"]["digest"] = images.digest(config, "sha512")
    data = images.encode(manifest)
    child = images.Image(data, mediatypes.MANIFEST, {digest: layer.blob, manifest["config"]["digest"]: config})
    child.manifests[images.digest(data, "sha512")] = (mediatypes.MANIFEST, data)
    value = {"schemaVersion": 2, "mediaType": mediatypes.INDEX}
    entry = child.descriptor | {"digest": images.digest(data, "sha512")}
    top = images.encode({**value, "manifests": [entry]})
    whole = images.Image(top, mediatypes.INDEX, child.blobs, {**child.manifests, images.digest(top): (mediatypes.INDEX, top)})
    pushing(whole)
    assert pushing.has(whole)
    begun = [one.query for one in pushing.registry.seen if one.method == "POST"]
    assert {one["digest-algorithm"] for one in begun} == {"sha512"}


def test_a_tag_for_a_sha512(pushing: Pushing, image: images.Image) -> None:
    """The registry is asked to name the digest that was pushed; if it cannot, the tag stands for a sha256 of the same bytes."""
    pushing(image)
    registry = pushing.registry
    data, digest = image.manifest, Digest.of(image.manifest, "sha512")
    destination = pushing.client.destination(pushing.reference())
    assert not destination.put_manifest(data, image.media_type, digest, "new")
    assert registry.tags["team/app"]["new"] == digest
    registry.multiple_tags = False
    destination.put_manifest(data, image.media_type, digest, "other")
    assert registry.tags["team/app"]["other"] == image.digest
    assert ("team/app", digest) in registry.manifests


# Giving up


def test_cancelled_before(pushing: Pushing, image: images.Image) -> None:
    cancel = Cancel()
    cancel.set()
    refused("cancelled", "given up", lambda: pushing(image, cancel=cancel))
    assert pushing.registry.asked("P") == 0


def test_cancelled_while_it_sends(pushing: Pushing) -> None:
    """The upload is given up at the registry, and the next push sends what is missing."""
    image = images.random_image(1, size=1_000_000)
    record = keep(pushing.store, image)
    cancel = Cancel()

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.LayerProgress):
            cancel.set()

    # One at a time: of an upload that is just being begun, nobody knows where it is.
    refused("cancelled", "given up", lambda: pushing.push(record, on_event=on_event, cancel=cancel, connections=1))
    assert pushing.registry.uploads.running == {}
    assert pushing.registry.asked("DELETE") == 1
    assert pushing.push(record) == image.digest
    assert pushing.has(image)
