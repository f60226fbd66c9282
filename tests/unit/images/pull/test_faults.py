"""A registry that fails, once or for good: what a pull makes of it, what it keeps, and what the next one has to ask for."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from ocirt_images.registry.credentials import Credential, Credentials
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_auth import Basic, Bearer
from tests.support.registry_http import Fault, Reply, Seen
from tests.unit.images.conftest import MakeRegistry
from tests.unit.images.pull.box import FAST, Box, blob_requests

QUICK = Limits(backoff=0.001, attempts=2, stall=0.3, dial=10, patience=1)


@pytest.fixture
def event() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


def fault_of(name: str, event: threading.Event) -> Fault:
    """By name: some of them need an event of the test's own."""
    table: dict[str, Fault] = {
        "cut at once": faults.cut(0),
        "cut": faults.cut(10_000),
        "cut before the last byte": faults.cut(99_999),
        "reset": faults.cut(10_000, reset=True),
        "no answer": faults.hang_up(),
        "reset for an answer": faults.hang_up(reset=True),
        "cut in the head": faults.cut_head(30),
        "500": faults.status(500),
        "502": faults.status(502),
        "503": faults.status(503),
        "408": faults.status(408),
        "429": faults.too_many("0"),
        "429 without a time": faults.too_many(),
        "stuck": faults.stuck(10_000, event),
        "stuck at the head": faults.held(event),
        "no answer, and no end": faults.unanswered(event),
        "slow": faults.slow(1, 0.02),
    }
    return table[name]


LASTING = {
    "401": (faults.status(401, "UNAUTHORIZED"), "unauthorized", "HTTP 401"),
    "403": (faults.status(403, "DENIED"), "unauthorized", "HTTP 403"),
    "404": (faults.status(404, "BLOB_UNKNOWN"), "not-found", "has no blob sha256:"),
    "418": (faults.status(418), "invalid", "HTTP 418"),
    "429 for long": (faults.too_many("3600"), "unavailable", "it asks to wait for 3600 seconds"),
    "redirected to nowhere": (faults.redirect("ftp://elsewhere/"), "invalid", "not an http or https URL"),
    "redirected in circles": (faults.redirect("/v2/team/app/blobs/{digest}"), "unavailable", "sends us in circles"),
    "too short": (faults.wrong_size(-10), "corrupt", "bytes were announced"),
    "too long": (faults.wrong_size(10), "corrupt", "bytes were announced"),
    "wrong bytes": (faults.wrong_bytes, "corrupt", "have the digest sha256:"),
    "another Content-Length": (faults.wrong_length(1000), "corrupt", "bytes were announced"),
    "another body": (faults.content(b"x" * 50), "corrupt", "50 bytes, where"),
}
PASSING = ["cut at once", "cut", "cut before the last byte", "reset", "no answer", "reset for an answer", "cut in the head"]
PASSING += [
    "500",
    "502",
    "503",
    "408",
    "429",
    "429 without a time",
    "stuck",
    "stuck at the head",
    "no answer, and no end",
    "slow",
]


def limits_for(name: str) -> Limits:
    return QUICK if name in ("stuck", "stuck at the head", "no answer, and no end", "slow") else FAST


@pytest.mark.parametrize("path", ["/blobs/", "/manifests/"])
@pytest.mark.parametrize("name", PASSING)
def test_what_happens_once_is_got_over(
    box: Box, registry: LocalRegistry, image: images.Image, event: threading.Event, name: str, path: str
) -> None:
    if path == "/manifests/" and name.startswith("cut") and name != "cut in the head":
        fault = faults.cut(10)
    elif name == "stuck" and path == "/manifests/":
        fault = faults.stuck(10, event)
    else:
        fault = fault_of(name, event)
    registry.plant(fault, path=path)
    box.holds(box.pull(registry, limits=limits_for(name)), image)


@pytest.mark.parametrize("name", [one for one in PASSING if one != "cut before the last byte"])
def test_what_lasts_fails_and_what_came_is_kept(
    box: Box, registry: LocalRegistry, image: images.Image, event: threading.Event, name: str
) -> None:
    layer = image.layers[1]
    registry.plant(fault_of(name, event), path=layer.digest, times=None)
    box.refused("unavailable", "", registry, limits=limits_for(name))
    kept = box.kept(layer.blob)
    # A reset may take with it what had come.
    assert kept == {"cut": 30_000, "stuck": 20_000}.get(name, kept)
    assert name in ("cut", "stuck", "reset", "slow") or kept == 0
    registry.heal()
    event.set()
    registry.forget()
    box.holds(box.pull(registry), image)
    mine = [range_ for digest, range_ in blob_requests(registry) if digest == layer.digest]
    assert mine == ([f"bytes={kept}-{len(layer.blob) - 1}"] if 0 < kept < len(layer.blob) else [""] if kept == 0 else [])


@pytest.mark.parametrize("name", LASTING)
def test_what_no_attempt_mends(box: Box, registry: LocalRegistry, image: images.Image, name: str) -> None:
    fault, code, text = LASTING[name]
    layer = image.layers[0]
    registry.plant(fault, path=layer.digest, times=None)
    box.refused(code, text, registry)
    assert box.kept(layer.blob) == 0
    registry.heal()
    box.holds(box.pull(registry), image)


@pytest.mark.parametrize("name", LASTING)
def test_a_configuration_that_cannot_be_had(box: Box, registry: LocalRegistry, image: images.Image, name: str) -> None:
    fault, code, text = LASTING[name]
    registry.plant(fault, path=images.digest(image.config), times=None)
    box.refused(code, text, registry)
    assert registry.asked("GET", image.layers[0].digest) == 0
    registry.heal()
    box.holds(box.pull(registry), image)


def test_cut_anywhere(box: Box, make_registry: MakeRegistry) -> None:
    """At each of some offsets: the pull that is cut goes on; and one that fails there leaves what the next one begins with."""
    registry = make_registry()
    chance = random.Random(7)
    for number, seed in enumerate(range(100, 116)):
        layer = images.random_layer(seed, 5000)
        found = images.image([layer])
        size = len(layer.blob)
        at = [0, 1, 2, 511, 512, size // 2, size - 2, size - 1][number] if number < 8 else chance.randrange(size)
        registry.add("team/app", found, "latest")
        registry.forget()
        # Once it is cut and then refused: that ends this pull, and not a byte is lost.
        registry.plant(faults.cut(at), path=layer.digest)
        registry.plant(faults.status(404), path=layer.digest, skip=1)
        box.refused("not-found", "", registry)
        assert box.kept(layer.blob) == at
        # And once more it is cut, and goes on by itself.
        again = chance.randrange(size - at)
        registry.plant(faults.cut(again), path=layer.digest)
        box.holds(box.pull(registry), found)
        wanted = [f"bytes={start}-{size - 1}" if start else "" for start in (0, at, at, at + again)]
        assert [range_ for digest, range_ in blob_requests(registry) if digest == layer.digest] == wanted, at


@pytest.mark.parametrize("header", ["Docker-Content-Digest", "Content-Type"])
@pytest.mark.parametrize("value", [None, "", "nonsense", "\xff\xfe", "sha256:" + "0" * 64, "x" * 5000])
def test_odd_headers(box: Box, registry: LocalRegistry, image: images.Image, header: str, value: str | None) -> None:
    """What a header says of a manifest or blob is only a hint."""
    for method in ("GET", "HEAD"):
        registry.plant(faults.header(header, value), method=method, path="", times=None)
    box.holds(box.pull(registry), image)
    box.holds(box.pull(registry), image)


def test_without_a_length(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    registry.plant(faults.chunked(), path="", times=None)
    box.holds(box.pull(registry), image)


def test_more_than_was_announced_in_chunks(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """Only the bytes themselves say so: the first ones are right, and kept."""
    layer = image.layers[0]

    def longer(reply: Reply, seen: Seen) -> None:
        faults.wrong_size(10)(reply, seen)
        faults.chunked(50_000)(reply, seen)

    registry.plant(longer, path=layer.digest, times=None)
    box.refused("corrupt", f"sends more than {len(layer.blob)} bytes", registry)
    registry.heal()
    registry.forget()
    box.holds(box.pull(registry), image)
    assert layer.digest not in {digest for digest, _ in blob_requests(registry)}


def known(registry: LocalRegistry, password: str) -> Credentials:
    return Credentials(given={registry.address: Credential(username="me", password=password, source="the test")})


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirected_to_a_storage_service(box: Box, make_registry: MakeRegistry, image: images.Image, code: int) -> None:
    """Without credentials, which such a service refuses."""
    registry = make_registry(auth=Basic({"me": "secret"}))
    store = make_registry()
    registry.plant(faults.redirect(f"{store.url}/data/{{digest}}", code), times=None)
    credentials = known(registry, "secret")
    box.holds(box.pull(registry, credentials=credentials), image)
    assert store.asked("GET", "/data/") == 3
    assert {one.authorization for one in store.seen} == {""}


@pytest.mark.parametrize("auth", [Basic({"me": "secret"}), Bearer(users={"me": "secret"}, anonymous=())])
def test_credentials(box: Box, make_registry: MakeRegistry, image: images.Image, auth: Basic | Bearer) -> None:
    registry = make_registry(auth=auth)
    box.refused("unauthorized", "no credentials", registry)
    wrong = known(registry, "guess")
    box.refused("unauthorized", registry.address, registry, credentials=wrong)
    assert blob_requests(registry) == []
    right = known(registry, "secret")
    box.holds(box.pull(registry, credentials=right), image)


def test_a_token_that_ends_in_the_middle(box: Box, make_registry: MakeRegistry, image: images.Image) -> None:
    auth = Bearer()
    registry = make_registry(auth=auth)

    def revoke(_reply: object, _seen: object) -> None:
        auth.revoke()

    registry.plant(revoke, skip=1)
    box.holds(box.pull(registry, connections=1), image)
    assert registry.asked("GET", "/token") == 2


def test_a_manifest_that_is_shorter_than_its_length(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    registry.plant(faults.wrong_length(1000), path="/manifests/")
    box.holds(box.pull(registry), image)
