"""What each fault of a registry comes to: mended, or an error that says what happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Fault
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import FAST

SIZE = 100_000
SAME = images.random_image(1, layers=2).layers[0].descriptor["size"]


# Mended: the manifest and the blob come as they should, with so many GETs

MENDED = [
    (faults.status(500), 2),
    (faults.status(502), 2),
    (faults.status(503, Retry_After="0"), 2),
    (faults.status(504), 2),
    (faults.status(408), 2),
    (faults.too_many(), 2),
    (faults.too_many("0"), 2),
    (faults.too_many(format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)), 2),
    (faults.too_many("nonsense"), 2),
    (faults.hang_up(), 2),
    (faults.hang_up(reset=True), 2),
    (faults.cut_head(40), 2),
    (faults.cut(0), 2),
    (faults.cut(100), 2),
    (faults.cut(100, reset=True), 2),
    (faults.chunked(7), 1),
    (faults.header("Content-Type", "text/html"), 1),
    (faults.header("X-Odd", "\xe4\xf6\xfc \t ;;,,=="), 1),
]


@pytest.mark.parametrize(("fault", "count"), MENDED)
def test_mended(registry: LocalRegistry, client: Registry, image: images.Image, fault: Fault, count: int) -> None:
    registry.plant(fault, path="/manifests/")
    assert client.resolve(ref(registry)).data == image.manifest
    assert registry.asked("GET") == count
    registry.forget()
    registry.plant(fault)
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert registry.asked("GET") == count


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, SIZE), max_size=2), start=st.integers(0, SIZE), resets=st.booleans())
def test_cut_anywhere(
    registry: LocalRegistry, client: Registry, image: images.Image, cuts: list[int], start: int, resets: bool
) -> None:
    """What comes is what was asked for, and no byte is asked for twice that has come."""
    registry.heal()
    registry.forget()
    for number, at in enumerate(cuts):
        registry.plant(faults.cut(at, reset=resets), skip=number)
    blob = image.layers[0].blob
    assert drain(client.blob(ref(registry), layer(image), start)) == blob[start:]
    if resets:
        return  # a reset throws away what was under way, so there is no telling where it goes on
    at = start
    for seen, cut in zip(registry.seen, [*cuts, SIZE * 2], strict=False):
        assert seen.range == (f"bytes={at}-{len(blob) - 1}" if at else "")
        at += cut


def test_a_part_from_a_server_without_ranges(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.ranges = False
    blob = image.layers[0].blob
    body = client.blob(ref(registry), layer(image), 1000, 2000)
    assert (body.start, body.stop) == (0, 2000)
    assert drain(body) == blob[:2000]
    # After a cut it is read anew from its beginning, and what had come is skipped.
    registry.plant(faults.cut(50_000))
    assert drain(client.blob(ref(registry), layer(image))) == blob


@pytest.mark.parametrize(
    ("fault", "start"),
    [(faults.ignored_range, 0), (faults.refused_range(), 0), (faults.refused_range(SAME), 0), (faults.short_range(300), 1000)],
)
def test_ranges_that_are_not_taken_as_asked(
    registry: LocalRegistry, client: Registry, image: images.Image, fault: Fault, start: int
) -> None:
    registry.plant(fault)
    body = client.blob(ref(registry), layer(image), 1000)
    assert body.start == start
    assert drain(body) == image.layers[0].blob[start:]


# Not mended


REFUSED = [
    (faults.status(400, "NAME_INVALID", "bad"), "invalid", "answers HTTP 400 when asked for {what}: NAME_INVALID: bad", 1),
    (faults.status(403, "DENIED", "no"), "unauthorized", "refuses {what} (HTTP 403): DENIED: no (no credentials were found)", 1),
    (faults.status(404, "X_UNKNOWN"), "not-found", "has no {what}: X_UNKNOWN", 1),
    (faults.status(410), "invalid", "answers HTTP 410", 1),
    (faults.status(204), "invalid", "answers HTTP 204", 1),
    (faults.status(500, "BOOM", "of course"), "unavailable", "answers HTTP 500 when asked for {what}: BOOM: of course", 3),
    (faults.status(501), "unavailable", "answers HTTP 501", 1),
    (faults.too_many("0"), "unavailable", "was asked too often (HTTP 429): TOOMANYREQUESTS: slow down (it limits", 3),
    (faults.too_many("86400"), "unavailable", "(it asks to wait for 86400 seconds)", 1),
    (faults.hang_up(), "unavailable", "the connection to {host} broke", 3),
    (faults.hang_up(reset=True), "unavailable", "the connection to {host} broke: Connection reset by peer", 3),
    (faults.redirect("/v2/team/app/blobs/loop"), "unavailable", "sends us in circles: more than 10 redirects", 11),
    (faults.redirect("ftp://elsewhere/"), "invalid", "not an http or https URL", 1),
    (faults.status(302), "unavailable", "answers HTTP 302", 1),
]


@pytest.mark.parametrize(("fault", "code", "text", "count"), REFUSED)
def test_refused(
    registry: LocalRegistry, client: Registry, image: images.Image, fault: Fault, code: str, text: str, count: int
) -> None:
    registry.plant(fault, path="/(manifests|blobs)/", times=None)
    for ask, what in (
        (lambda: client.resolve(ref(registry)), "tag latest"),
        (lambda: client.blob(ref(registry), layer(image)), f"blob {layer(image).digest}"),
    ):
        registry.forget()
        err = refused(code, text.format(what=what, host=registry.address), ask)
        assert err.subject.startswith(f"{registry.address}/team/app") or err.subject.startswith("ftp:")
        assert registry.asked("GET", "/(manifests|blobs)/") == count


@pytest.mark.parametrize("by", [-1, -1000, 1, 1000])
def test_wrong_size(registry: LocalRegistry, client: Registry, image: images.Image, by: int) -> None:
    registry.plant(faults.wrong_size(by), times=None)
    size = layer(image).size
    text = f"sends {size + by} bytes, where {size} bytes were announced"
    refused("corrupt", text, lambda: client.blob(ref(registry), layer(image)))


def test_wrong_size_of_a_whole_while_a_part_is_asked_for(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.put_blob("team/app", "sha256:" + "c" * 64, b"x" * 500)
    descriptor = Descriptor(media_type="x", digest=Digest("sha256:" + "c" * 64), size=1000)
    refused("corrupt", "bytes 100-499/500, where 1000 bytes", lambda: client.blob(ref(registry), descriptor, 100))
    refused("corrupt", "has a blob of 500 bytes, where 1000 were announced", lambda: client.blob(ref(registry), descriptor, 600))


def test_too_much_without_a_size(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.wrong_size(1))
    registry.plant(faults.chunked())
    refused("corrupt", f"sends more than {layer(image).size} bytes", lambda: drain(client.blob(ref(registry), layer(image))))


def test_too_little_without_a_size(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.wrong_size(-5), times=None)
    registry.plant(faults.chunked(), times=None)
    # What is missing is asked for again, and never comes.
    refused("unavailable", "and then no more", lambda: drain(client.blob(ref(registry), layer(image))))


def test_another_part_than_was_asked_for(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.shifted_range(7), times=None)
    refused("corrupt", "sends bytes 1007-", lambda: client.blob(ref(registry), layer(image), 1000))


def test_wrong_bytes_of_a_manifest(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.wrong_bytes, path="/manifests/", times=None)
    by_digest = Reference.parse(f"{registry.address}/team/app@{image.digest}")
    refused("corrupt", "sends content whose digest is sha256:", lambda: client.resolve(by_digest))
    refused("corrupt", "sends content", lambda: client.manifest(ref(registry), Descriptor.parse(image.descriptor, "x")))


def test_wrong_bytes_of_a_blob_are_handed_on(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    """Who keeps them compares the digest."""
    registry.plant(faults.wrong_bytes)
    assert drain(client.blob(ref(registry), layer(image))) != image.layers[0].blob


def test_content_encodings_are_not_undone(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.header("Content-Encoding", "gzip"), times=None, path="")
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert {one.headers["Accept-Encoding"] for one in registry.seen} == {"identity"}
    refused("invalid", "answers in Content-Encoding gzip", lambda: client.resolve(ref(registry)))
    registry.plant(faults.wrong_size(-9), times=None)
    refused("corrupt", "it is sent in Content-Encoding gzip", lambda: client.blob(ref(registry), layer(image)))


def test_always_cut(registry: LocalRegistry, client: Registry, image: images.Image) -> None:
    registry.plant(faults.cut(100), times=None)
    err = refused("unavailable", "the connection to", lambda: drain(client.blob(ref(registry), layer(image))))
    assert err.subject == f"{registry.address}/team/app@{layer(image).digest}"
    assert registry.asked("GET") == FAST.attempts


def test_cuts_with_progress_between_are_forgiven(registry: LocalRegistry, client: Registry) -> None:
    big = images.random_layer(7, 3_000_000, "")
    registry.put_blob("team/app", big.digest, big.blob)
    registry.plant(faults.cut(300_000), times=None)
    assert drain(client.blob(ref(registry), Descriptor.parse(big.descriptor, "x"))) == big.blob
    assert registry.asked("GET") > 2 * FAST.attempts
