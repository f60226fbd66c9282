"""What each fault of a registry comes to when it is pushed to: mended, or an error that says what happened.

Whatever it is, no upload is left under way, and no tag stands for an image that is not there whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ocirt_images import events
from ocirt_images.digest import Digest
from ocirt_images.push import push
from ocirt_images.reference import Reference
from ocirt_images.registry.hosts import Hosts
from ocirt_images.store import Store
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.certificates import Authority
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Fault
from tests.unit.images.push.conftest import NAME, MakeClient, Pushing, keep
from tests.unit.images.registry.asking import refused

OTHER = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def image() -> images.Image:
    """One layer that is sent by PUT; the configuration goes along with POST."""
    return images.random_image(1, layers=1)


# What a push asks
ASKED = {
    "whether a blob is there": ("HEAD", "/blobs/"),
    "to begin an upload": ("POST", "/uploads/"),
    "to take a blob": ("PUT", "/uploads/"),
    "how far an upload is": ("GET", "/uploads/"),
    "what a tag stands for": ("HEAD", "/manifests/"),
    "to take a manifest": ("PUT", "/manifests/"),
}
TRANSIENT = {
    "500": faults.status(500),
    "502": faults.status(502),
    "503, after a while": faults.status(503, Retry_After="0"),
    "504": faults.status(504),
    "408": faults.status(408),
    "429": faults.too_many("0"),
    "nothing": faults.hang_up(),
    "a reset": faults.hang_up(reset=True),
    "half a status": faults.cut_head(5),
}


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT)
@pytest.mark.parametrize("asked", ASKED)
def test_mended(pushing: Pushing, image: images.Image, asked: str, fault: Fault, done: bool) -> None:
    """Each of these goes away when it is asked again, whether what was asked for was done or not."""
    method, path = ASKED[asked]
    if asked == "how far an upload is":
        pushing.registry.break_off(50_000)
    pushing.registry.plant(fault, method=method, path=path, instead=not done)
    assert pushing(image) == image.digest
    if asked == "to begin an upload" and done:
        pushing.registry.uploads.running.clear()  # nobody knows where it is
    assert pushing.has(image)
    assert any(one.method == method and path in one.path for one in pushing.registry.seen)


@pytest.mark.parametrize("asked", ASKED)
def test_half_a_head(pushing: Pushing, image: images.Image, asked: str) -> None:
    """A status counts, if there is nothing more to know."""
    method, path = ASKED[asked]
    if asked == "how far an upload is":
        pushing.registry.break_off(50_000)
    pushing.registry.plant(faults.cut_head(30), method=method, path=path)
    pushing(image)
    pushing.registry.uploads.running.clear()
    assert pushing.has(image)


LASTING = {
    "500": (faults.status(500, "BOOM", "of course"), "unavailable", "HTTP 500"),
    "501": (faults.status(501), "unavailable", "HTTP 501"),
    "507": (faults.status(507), "unavailable", "HTTP 507"),
    "429": (faults.too_many("86400"), "unavailable", "asked too often (HTTP 429)"),
    "400": (faults.status(400, "NAME_INVALID", "bad"), "invalid", "HTTP 400"),
    "401": (faults.status(401), "unauthorized", "(HTTP 401)"),
    "403": (faults.status(403, "DENIED", "no"), "unauthorized", "(HTTP 403)"),
    "206": (faults.status(206), "invalid", "HTTP 206"),
    "302": (faults.status(302), "unavailable", "HTTP 302"),
    "nothing": (faults.hang_up(), "unavailable", "the connection to {host} broke"),
    "a reset": (faults.hang_up(reset=True), "unavailable", "the connection to {host} broke"),
}


@pytest.mark.parametrize("lasting", LASTING)
@pytest.mark.parametrize("asked", ASKED)
def test_lasting(pushing: Pushing, image: images.Image, asked: str, lasting: str) -> None:
    """An error that names what was pushed; nothing is left behind, and when it has passed, all is well."""
    fault, code, text = LASTING[lasting]
    method, path = ASKED[asked]
    if asked == "how far an upload is":
        pushing.registry.break_off(50_000)
        if lasting == "400":
            return  # an upload that is not known any more: it begins anew
    pushing.registry.plant(fault, method=method, path=path, times=None, instead=True)
    err = refused(code, text.format(host=pushing.registry.address), lambda: pushing(image))
    assert err.subject == str(pushing.reference())
    assert pushing.registry.manifests == {}
    assert pushing.registry.uploads.running == {}
    pushing.registry.heal()
    assert pushing(image) == image.digest
    assert pushing.has(image)


@pytest.mark.parametrize("path", ["/uploads/", "/manifests/"])
def test_a_body_is_not_sent_on_to_another_host(pushing: Pushing, image: images.Image, path: str) -> None:
    """By a redirect, that is: an upload's Location may be one."""
    with LocalRegistry() as other:
        pushing.registry.plant(faults.redirect(f"{other.url}/v2/x"), method="PUT", path=path, times=None, instead=True)
        refused("unavailable", "HTTP 307", lambda: pushing(image))
        assert other.seen == []


# Wrong answers


@pytest.mark.parametrize(
    ("method", "path", "what"),
    [
        ("PUT", "/uploads/", "took the blob for another one"),
        ("POST", "/uploads/", "took the blob for another one"),
        ("PUT", "/manifests/", "took the manifest for another one"),
    ],
)
def test_another_digest(pushing: Pushing, image: images.Image, method: str, path: str, what: str) -> None:
    pushing.registry.plant(faults.header("Docker-Content-Digest", OTHER), method=method, path=path, times=None)
    err = refused("corrupt", f"{what}, {OTHER}", lambda: pushing(image))
    assert err.subject == str(pushing.reference())


def test_another_digest_for_a_mount(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.add("base", image)
    keep(pushing.store, image, f"{pushing.registry.address}/base:1")
    pushing.registry.plant(faults.header("Docker-Content-Digest", OTHER), method="POST", path="/uploads/", times=None)
    refused("corrupt", f"took the blob for another one, {OTHER}", lambda: pushing(image))


@pytest.mark.parametrize("value", [None, "nonsense", "sha512:" + "0" * 128, "md5:0"])
def test_digests_that_cannot_be_compared(pushing: Pushing, image: images.Image, value: str | None) -> None:
    """A registry need not say, and may have a digest of another algorithm for a blob."""
    pushing.registry.plant(faults.header("Docker-Content-Digest", value), method="PUT", path="/uploads/", times=None)
    pushing(image)
    assert pushing.has(image)


@pytest.mark.parametrize(
    ("location", "code", "text"),
    [
        (None, "invalid", "does not say where (no Location)"),
        ("", "invalid", "does not say where"),
        ("ftp://elsewhere/", "invalid", "not an http or https URL"),
        ("http://[", "invalid", "is no URL"),
        ("http://127.0.0.1:1/x", "unavailable", "127.0.0.1:1 refuses the connection"),
    ],
)
def test_locations_that_are_none(pushing: Pushing, image: images.Image, location: str | None, code: str, text: str) -> None:
    pushing.registry.uploads.single_post = False
    pushing.registry.plant(faults.header("Location", location), method="POST", path="/uploads/", times=None)
    refused(code, text, lambda: pushing(image))


def test_a_blob_of_another_size(pushing: Pushing, image: images.Image) -> None:
    """By the same digest: one of the two is damaged."""
    layer = image.layers[0]
    pushing.registry.put_blob("team/app", layer.digest, b"x" * 10)
    text = f"has a blob of 10 bytes by this digest, and {len(layer.blob)} are to be sent"
    refused("corrupt", text, lambda: pushing(image))


@pytest.mark.parametrize("method", ["HEAD", "none"])
def test_a_registry_without_head(pushing: Pushing, image: images.Image, method: str) -> None:
    pushing.registry.plant(faults.status(405), method=method, path="", times=None)
    pushing(image)
    pushing(image)
    assert pushing.has(image)


def test_odd_headers(pushing: Pushing, image: images.Image) -> None:
    for method in ("HEAD", "POST", "PUT", "PATCH"):
        pushing.registry.plant(faults.header("X-Odd", "\xe4\xf6\xfc \t ;;,,=="), method=method, path="", times=None)
        pushing.registry.plant(faults.header("OCI-Chunk-Min-Length", "many"), method=method, path="", times=None)
        pushing.registry.plant(faults.header("Content-Type", None), method=method, path="", times=None)
    pushing.registry.break_off(50_000)
    pushing(image)
    assert pushing.has(image)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_answers_in_chunks_without_a_size(pushing: Pushing, image: images.Image, method: str) -> None:
    """An empty body with Transfer-Encoding is a whole one."""
    pushing.registry.plant(faults.chunked(), method=method, path="", times=None)
    pushing(image)
    assert pushing.has(image)


def test_ranges_beyond_the_end(pushing: Pushing, image: images.Image) -> None:
    """A registry that says it has more than there is begins anew."""
    pushing.registry.break_off(50_000)
    pushing.registry.plant(faults.header("Range", "0-99999999"), method="GET", path="/uploads/")
    pushing(image)
    assert pushing.has(image)
    assert pushing.registry.asked("POST") == 3


def test_a_very_large_manifest(pushing: Pushing) -> None:
    """Five megabytes."""
    image = images.image([images.layer({"a": b"b"})], annotations={f"a{number}": "x" * 1000 for number in range(5000)})
    pushing(image)
    assert pushing.has(image)


def test_a_manifest_that_is_too_large_for_the_registry(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.plant(faults.status(413, "SIZE_INVALID"), method="PUT", path="/manifests/")
    refused("invalid", "answers HTTP 413 when asked for manifest 1: SIZE_INVALID", lambda: pushing(image))


# Ours


def damage(store: Store, digest: str, data: bytes) -> None:
    path = store.content.path(Digest(digest))
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_layer_of_ours_that_is_damaged(pushing: Pushing, image: images.Image) -> None:
    """The registry refuses it, and the reason is found here."""
    record = keep(pushing.store, image)
    layer = image.layers[0]
    damage(pushing.store, layer.digest, bytes(len(layer.blob)))
    err = refused("corrupt", f"{layer.digest}: its file has other bytes", lambda: pushing.push(record))
    assert err.hint == "ocirt fsck --repair, then pull again"
    assert pushing.registry.uploads.running == {}
    assert layer.digest not in pushing.registry.blobs


def test_a_manifest_of_ours_that_is_damaged(pushing: Pushing, image: images.Image) -> None:
    record = keep(pushing.store, image)
    damage(pushing.store, image.digest, bytes(len(image.manifest)))
    refused("corrupt", "its file has other bytes", lambda: pushing.push(record))
    assert pushing.registry.seen == []


def test_one_failure_ends_the_others(pushing: Pushing) -> None:
    image = images.random_image(5, layers=6)
    pushing.registry.plant(faults.status(400, "BLOB_INVALID"), method="PUT", path="/uploads/", skip=1, times=None)
    refused("invalid", "BLOB_INVALID", lambda: pushing(image, connections=2))
    assert pushing.registry.asked("PUT") <= 3, "not all six were tried"


# TLS


def test_a_location_without_tls(store: Store, make_client: MakeClient, image: images.Image, tmp_path: Path) -> None:
    """A registry behind a proxy does not know that it is asked by TLS; another host without TLS gets nothing."""
    authority = Authority(tmp_path)
    with LocalRegistry(tls=authority.server("127.0.0.1")) as registry:
        folder = tmp_path / "certs.d" / registry.address
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(authority.certificate.read_bytes())
        pushing = Pushing(store, registry, make_client(hosts=Hosts(folders=(tmp_path / "certs.d",))))
        registry.uploads.elsewhere = f"http://{registry.address}"
        pushing(image)
        assert pushing.has(image)
        registry.links.clear()
        registry.uploads.elsewhere = "http://127.0.0.1:1"
        refused("unavailable", "wants the upload in plain HTTP, at 127.0.0.1:1", lambda: pushing(image))


# Several hosts


def test_which_host_is_pushed_to(store: Store, make_client: MakeClient, image: images.Image, tmp_path: Path) -> None:
    """The first with `push` that answers; a mirror for reading gets nothing."""
    with LocalRegistry() as mirror, LocalRegistry() as registry:
        folder = tmp_path / "registry.example"
        folder.mkdir()
        (folder / "hosts.toml").write_text(
            f'server = "{registry.url}"\n[host."{mirror.url}"]\ncapabilities = ["pull", "resolve"]\n'
            '[host."http://127.0.0.1:1"]\ncapabilities = ["push"]\n'
        )
        pushing = Pushing(store, registry, make_client(hosts=Hosts(folders=(tmp_path,))))
        push(store, pushing.client, keep(store, image), Reference.parse(NAME), on_event=pushing.events.append)
        assert pushing.has(image)
        assert mirror.seen == []
        assert pushing.events[0] == events.Resolved(NAME, Digest(image.digest), "", registry.address)


def test_nobody_to_push_to(pushing: Pushing, make_client: MakeClient, image: images.Image, tmp_path: Path) -> None:
    (tmp_path / "_default").mkdir()
    (tmp_path / "_default/hosts.toml").write_text('server = "http://127.0.0.1:1"\n')
    pushing.client = make_client(hosts=Hosts(folders=(tmp_path,)))
    err = refused("unavailable", "127.0.0.1:1 refuses the connection", lambda: pushing(image))
    assert err.subject == str(pushing.reference())


def test_no_host_for_pushes(pushing: Pushing, make_client: MakeClient, image: images.Image, tmp_path: Path) -> None:
    (tmp_path / "_default").mkdir()
    (tmp_path / "_default/hosts.toml").write_text('server = "http://127.0.0.1:1"\ncapabilities = ["pull"]\n')
    pushing.client = make_client(hosts=Hosts(folders=(tmp_path,)))
    refused("unavailable", "no host is left that may be asked to push", lambda: pushing(image))
