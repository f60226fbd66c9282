"""The client against a registry of ours: what is resolved, fetched and listed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ocirt_images import mediatypes
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credential, Credentials
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Basic
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import MakeClient

D = "sha256:" + "a" * 64
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def given(registry: LocalRegistry, name: str, password: str) -> Credentials:
    return Credentials(given={registry.address: Credential(username=name, password=password, source="the test")})


# Resolving


def test_tag_digest_and_both(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    for rest in ("team/app", "team/app:1.3", f"team/app@{image.digest}", f"team/app:none@{image.digest}"):
        found = client.resolve(ref(registry, rest))
        assert (found.data, found.descriptor.json(), found.host) == (image.manifest, image.descriptor, registry.address)


def test_sha512(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    digest = images.digest(image.manifest, "sha512")
    registry.put_manifest("team/app", image.manifest, image.media_type, digest=digest)
    found = client.resolve(ref(registry, f"team/app@{digest}"))
    assert (found.descriptor.digest, found.data) == (digest, image.manifest)


def test_an_index_and_what_it_names(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    whole = images.index([({"os": "linux", "architecture": "amd64"}, image)], docker=True)
    registry.add("team/app", whole, "many")
    found = client.resolve(ref(registry, "team/app:many"))
    assert found.descriptor.media_type == mediatypes.DOCKER_LIST
    assert client.manifest(ref(registry, "team/app:many"), Descriptor.parse(image.descriptor, "x")) == image.manifest


def test_all_types_are_accepted(registry: LocalRegistry, client: Registry) -> None:
    client.resolve(ref(registry))
    accept = registry.seen[0].headers["Accept"]
    assert all(one in accept for one in (*mediatypes.INDEXES, *mediatypes.MANIFESTS))


@pytest.mark.parametrize(
    "kind", ["", "application/json", "text/plain; charset=utf-8", f"{mediatypes.MANIFEST.upper()}; charset=utf-8"]
)
def test_odd_content_types(registry: LocalRegistry, client: Registry, image: images.Image, kind: str) -> None:
    registry.plant(faults.header("Content-Type", kind or None), path="/manifests/")
    assert client.resolve(ref(registry)).descriptor.json() == image.descriptor


def test_what_is_known_is_not_fetched(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    asked: list[Digest] = []

    def known(digest: Digest) -> bytes | None:
        asked.append(digest)
        return image.manifest

    for rest in ("team/app", f"team/app@{image.digest}"):
        found = client.resolve(ref(registry, rest), known)
        assert (found.data, found.descriptor.json()) == (image.manifest, image.descriptor)
    assert asked == [image.digest] * 2
    assert (registry.asked("HEAD"), registry.asked("GET")) == (2, 0)


@pytest.mark.parametrize("held", [None, b"something else"])
def test_what_is_not_known_is_fetched(registry: LocalRegistry, client: Registry, image: images.Image, held: bytes | None) -> None:
    assert client.resolve(ref(registry), lambda digest: held).data == image.manifest
    assert (registry.asked("HEAD"), registry.asked("GET")) == (1, 1)


@pytest.mark.parametrize("header", [None, "sha256:short", "md5:" + "a" * 32])
def test_a_registry_that_names_no_digest(
    registry: LocalRegistry, client: Registry, image: images.Image, header: str | None
) -> None:
    registry.plant(faults.header("Docker-Content-Digest", header), method="HEAD", path="")
    assert client.resolve(ref(registry), lambda digest: image.manifest).data == image.manifest
    assert registry.asked("GET") == 1


@pytest.mark.parametrize("status", [404, 405])
def test_a_registry_without_head(registry: LocalRegistry, client: Registry, image: images.Image, status: int) -> None:
    registry.plant(faults.status(status), method="HEAD", path="")
    assert client.resolve(ref(registry), lambda digest: image.manifest).data == image.manifest


def test_a_digest_in_a_header_is_only_a_hint(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.header("Docker-Content-Digest", D), path="/manifests/")
    assert client.resolve(ref(registry)).descriptor.digest == image.digest


def test_near_tags(registry: LocalRegistry, client: Registry) -> None:
    refused(
        "not-found",
        "has no tag 1.2.4: MANIFEST_UNKNOWN: manifest unknown (there are: 1.2.3",
        lambda: client.resolve(ref(registry, "team/app:1.2.4")),
    )
    refused("not-found", "(there are: ", lambda: client.resolve(ref(registry, "team/app:zzz")))
    registry.tags["team/app"].clear()
    refused("not-found", "(the repository has no tags)", lambda: client.resolve(ref(registry)))
    registry.plant(faults.status(403), path="/tags/")
    assert refused("not-found", "has no tag", lambda: client.resolve(ref(registry))).hint == ""


def test_what_is_not_there(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    refused("not-found", "NAME_UNKNOWN", lambda: client.resolve(ref(registry, "no/such")))
    refused("not-found", f"has no manifest {D}", lambda: client.resolve(ref(registry, f"team/app@{D}")))
    missing = Descriptor(media_type="x", digest=Digest(D), size=5)
    refused("not-found", f"has no blob {D}: BLOB_UNKNOWN", lambda: client.blob(ref(registry), missing))
    refused("not-found", "no/such: ", lambda: client.tags(ref(registry, "no/such")))


@pytest.mark.parametrize(
    ("data", "kind", "code", "text"),
    [
        (
            b'{"schemaVersion": 1, "signatures": []}',
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "unsupported",
            "schema 1",
        ),
        (b'{"schemaVersion": 1}', "application/json", "unsupported", "schema 1"),
        (b"{", mediatypes.MANIFEST, "invalid", "not JSON"),
        (b"<html>", "text/html", "invalid", "not JSON"),
        (b"[]", mediatypes.MANIFEST, "invalid", "an object is wanted"),
        (b"", mediatypes.MANIFEST, "invalid", "not JSON"),
        (
            b'{"schemaVersion": 2, "mediaType": "%s"}' % mediatypes.INDEX.encode(),
            mediatypes.MANIFEST,
            "invalid",
            "was announced as",
        ),
    ],
)
def test_manifests_that_cannot_be_used(
    registry: LocalRegistry, client: Registry, data: bytes, kind: str, code: str, text: str
) -> None:
    registry.put_manifest("team/app", data, kind, "bad")
    err = refused(code, text, lambda: client.resolve(ref(registry, "team/app:bad")))
    assert str(err).startswith(images.digest(data))


def test_a_manifest_of_5_mb(registry: LocalRegistry, client: Registry) -> None:
    whole = images.image([], annotations={"x": "y" * (5 << 20)})
    registry.add("team/app", whole, "big")
    assert client.resolve(ref(registry, "team/app:big")).data == whole.manifest


@pytest.mark.parametrize("chunked", [False, True])
def test_a_manifest_without_end(registry: LocalRegistry, client: Registry, chunked: bool) -> None:
    whole = images.image([], annotations={"x": "y" * (8 << 20)})
    registry.add("team/app", whole, "big")
    if chunked:
        registry.plant(faults.chunked(1 << 20), path="/manifests/")
    refused("invalid", "sends more than 8388608 bytes", lambda: client.resolve(ref(registry, "team/app:big")))
    assert registry.asked("GET") == 1


def test_another_size_than_an_index_says(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    wrong = Descriptor(media_type=image.media_type, digest=Digest(image.digest), size=5)
    refused("corrupt", "where 5 were announced", lambda: client.manifest(ref(registry), wrong))


# Blobs


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 1), (1, None), (10, 500), (99_999, None), (500, 500)])
def test_parts_of_blobs(registry: LocalRegistry, client: Registry, image: images.Image, start: int, stop: int | None) -> None:
    blob = image.layers[0].blob
    body = client.blob(ref(registry), layer(image), start, stop)
    assert (body.start, body.stop) == (start, len(blob) if stop is None else stop)
    assert drain(body) == blob[start:stop]
    whole = start == 0 and stop is None
    expected = [] if start == stop else ["" if whole else f"bytes={start}-{(stop or len(blob)) - 1}"]
    assert [one.range for one in registry.seen] == expected


def test_readinto(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    buffer = bytearray(7000)
    found = bytearray()
    with client.blob(ref(registry), layer(image)) as body:
        while count := body.readinto(memoryview(buffer)[:6000]):
            found += buffer[:count]
    assert found == image.layers[0].blob


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 4), (0, 1 << 30)])
def test_a_part_that_is_outside(
    registry: LocalRegistry, client: Registry, image: images.Image, start: int, stop: int | None
) -> None:
    refused("internal", f"bytes {start} to ", lambda: client.blob(ref(registry), layer(image), start, stop))


def test_connections_are_used_again(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    client.resolve(ref(registry))
    for number in (0, 1):
        drain(client.blob(ref(registry), layer(image, number)))
    assert registry.connections == 1


def test_a_blob_read_in_part_leaves_no_trouble(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    with client.blob(ref(registry), layer(image)) as body:
        assert body.read(10) == image.layers[0].blob[:10]
    refused("cancelled", "closed", lambda: body.read(10))
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob


@pytest.fixture
def foreign(image: images.Image) -> Iterator[tuple[LocalRegistry, Descriptor]]:
    """A server that has a layer which the registry has not, and the layer's descriptor: its first URL leads nowhere."""
    lost = images.random_layer(99)
    with LocalRegistry() as server:
        server.blobs[lost.digest] = lost.blob
        urls = [f"{server.url}/data/sha256:none", f"{server.url}/data/{lost.digest}"]
        yield server, Descriptor.parse({**lost.descriptor, "urls": urls}, "layer")


def test_a_layer_from_elsewhere(
    registry: LocalRegistry, make_client: MakeClient, foreign: tuple[LocalRegistry, Descriptor]
) -> None:
    server, descriptor = foreign
    client = make_client(insecure=True)
    registry.auth = Basic({"bob": "secret"})
    client = make_client(insecure=True, credentials=given(registry, "bob", "secret"))
    server.plant(faults.cut(500), path="/data/sha256:[^n]")
    assert Digest.of(drain(client.blob(ref(registry), descriptor))) == descriptor.digest
    assert [one.authorization for one in server.seen] == [""] * 4
    assert server.seen[-1].range.startswith("bytes=500-")


def test_a_layer_from_elsewhere_is_not_asked_for_in_the_clear(
    registry: LocalRegistry, client: Registry, foreign: tuple[LocalRegistry, Descriptor]
) -> None:
    server, descriptor = foreign
    refused("not-found", "neither in the registry nor at its URLs", lambda: client.blob(ref(registry), descriptor))
    assert server.seen == []


def test_a_layer_that_the_registry_has_is_asked_for_there(
    registry: LocalRegistry, client: Registry, foreign: tuple[LocalRegistry, Descriptor]
) -> None:
    server, descriptor = foreign
    registry.put_blob("team/app", descriptor.digest, images.random_layer(99).blob)
    assert Digest.of(drain(client.blob(ref(registry), descriptor))) == descriptor.digest
    assert server.seen == []


# Lists


def test_tags(registry: LocalRegistry, client: Registry) -> None:
    registry.tags["team/app"] |= {f"t{number:04}": D for number in range(2500)}
    registry.page = 400
    assert client.tags(ref(registry)) == sorted(registry.tags["team/app"])
    assert registry.asked("GET", "/tags/list") == 7


@pytest.mark.parametrize("body", [b'{"name": "a", "tags": null}', b'{"name": "a"}', b'{"tags": []}'])
def test_no_tags(registry: LocalRegistry, client: Registry, body: bytes) -> None:
    registry.plant(faults.content(body), path="/tags/")
    assert client.tags(ref(registry)) == []


@pytest.mark.parametrize(
    ("link", "text"),
    [
        ("<http://127.0.0.1:1/v2/team/app/tags/list?last=a>; rel=next", "continues its list of tags elsewhere, at 127.0.0.1:1"),
        ("</v2/team/app/tags/list?n=1000>; rel=next", "goes in circles"),
    ],
)
def test_lists_that_lead_astray(registry: LocalRegistry, client: Registry, link: str, text: str) -> None:
    registry.plant(faults.header("Link", link), path="/tags/", times=None)
    refused("invalid", text, lambda: client.tags(ref(registry)))


def attached(image: images.Image, kind: str, name: str) -> images.Image:
    return images.image([], subject=image.descriptor, artifact_type=kind, annotations={"name": name})


@pytest.mark.parametrize("filters", [True, False])
def test_referrers(registry: LocalRegistry, client: Registry, image: images.Image, filters: bool) -> None:
    several = [attached(image, "a/b", "one"), attached(image, "a/b", "two"), attached(image, "c/d", "three")]
    for one in several:
        registry.add("team/app", one)
    registry.page = 2
    registry.filters = filters
    digest = Digest(image.digest)
    found = client.referrers(ref(registry), digest)
    assert {one.digest for one in found} == {one.digest for one in several}
    assert {one.annotations["name"] for one in client.referrers(ref(registry), digest, "a/b")} == {"one", "two"}
    assert client.referrers(ref(registry), Digest(D)) == []


@pytest.mark.parametrize("page", [False, True])
def test_referrers_by_tag(registry: LocalRegistry, client: Registry, image: images.Image, page: bool) -> None:
    """Registries without the API; one of them answers with a page for people."""
    registry.referrers_api = False
    if page:
        registry.plant(faults.content(b"<html>", "text/html", 200), path="/referrers/", times=None)
    digest = Digest(image.digest)
    assert client.referrers(ref(registry), digest) == []
    one = attached(image, "a/b", "one")
    entry = {**one.descriptor, "artifactType": "a/b"}
    listed = json.dumps({"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": [entry]}).encode()
    registry.put_manifest("team/app", listed, mediatypes.INDEX, image.digest.replace(":", "-"))
    assert [found.digest for found in client.referrers(ref(registry), digest)] == [one.digest]
    assert client.referrers(ref(registry), digest, "c/d") == []
