"""The ways of a blob: in one piece, in chunks, on after a break, anew."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocirt_images import events
from ocirt_images.cancel import Cancel
from ocirt_images.registry.destination import with_query
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.unit.images.push.conftest import FAST, MakeClient, Pushing
from tests.unit.images.registry.asking import refused

SIZE = 100_000


@pytest.fixture(scope="module")
def image() -> images.Image:
    """One layer of SIZE bytes, as they are, without compression."""
    return images.image([images.layer(images.random_layer(1, 80_000, "").tar[:SIZE].ljust(SIZE, b"x"), "")])


@pytest.fixture(autouse=True)
def _small(small: None) -> None:
    pass


def bodies(registry: LocalRegistry) -> list[tuple[str, str, int]]:
    """Requests of the layer's upload that had bytes: method, Content-Range, how many bytes came."""
    found = [one for one in registry.seen if "/uploads/" in one.path and one.method in ("PUT", "PATCH") and one.length]
    return [(one.method, one.headers.get("Content-Range", ""), len(one.body)) for one in found]


def test_in_one_piece(pushing: Pushing, image: images.Image) -> None:
    pushing(image)
    assert pushing.has(image)
    assert bodies(pushing.registry) == [("PUT", "", SIZE)]


@pytest.mark.parametrize("single_post", [True, False])
def test_a_small_blob_goes_along(pushing: Pushing, image: images.Image, single_post: bool) -> None:
    """With the first request; by PUT, where the registry does not take that."""
    pushing.registry.uploads.single_post = single_post
    pushing(image)
    assert pushing.has(image)
    config = len(image.config)
    assert pushing.sent().count(("POST", config)) == 1
    assert pushing.sent().count(("PUT", config)) == (0 if single_post else 1)


@pytest.mark.parametrize("code", [400, 404, 405])
def test_a_registry_that_refuses_a_blob_with_post(pushing: Pushing, image: images.Image, code: int) -> None:
    pushing.registry.plant(faults.status(code), method="POST", skip=0)
    pushing(images.image([]))
    assert pushing.has(images.image([]))


def test_an_empty_blob(pushing: Pushing) -> None:
    layer = images.Layer(
        b"", b"", {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": images.digest(b""), "size": 0}
    )
    image = images.image([layer])
    pushing(image)
    pushing.registry.links.clear()
    pushing.registry.uploads.single_post = False
    pushing(image)
    assert pushing.has(image)


@pytest.mark.parametrize("absolute", [False, True])
def test_locations(pushing: Pushing, image: images.Image, absolute: bool) -> None:
    """They are used as they stand, and always the newest."""
    pushing.registry.uploads.absolute = absolute
    pushing.registry.break_off(50_000)
    pushing(image)
    assert pushing.has(image)


def test_a_location_at_another_host(pushing: Pushing, image: images.Image) -> None:
    """It gets the bytes, and no credentials."""
    with LocalRegistry() as other:
        other.uploads = pushing.registry.uploads
        other.blobs, other.links = pushing.registry.blobs, pushing.registry.links
        pushing.registry.uploads.elsewhere = other.url
        pushing(image)
        assert pushing.has(image)
        assert other.asked("PUT") == 1
        assert pushing.registry.asked("PUT", "/uploads/") == 0


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://a/b", "http://a/b?d=x%3Ay"),
        ("http://a/b?", "http://a/b?d=x%3Ay"),
        ("http://a/b?c=%2F&e", "http://a/b?c=%2F&e&d=x%3Ay"),
    ],
)
def test_a_query_is_kept(url: str, wanted: str) -> None:
    assert with_query(url, "d", "x:y") == wanted


# What breaks off


@pytest.mark.parametrize("at", [0, 1, 1000, 50_000, SIZE - 1])
def test_on_after_a_break(pushing: Pushing, image: images.Image, at: int) -> None:
    """Where the registry has got to, in chunks; nothing it has is sent again."""
    pushing.registry.break_off(at)
    pushing(image)
    assert pushing.has(image)
    first, *rest = bodies(pushing.registry)
    assert first == ("PUT", "", at)
    if at == 1:
        return  # it looks like none
    starts = list(range(at, SIZE, 30_000))
    stops = [*starts[1:], SIZE]
    assert rest == [("PATCH", f"{start}-{stop - 1}", stop - start) for start, stop in zip(starts, stops, strict=True)]
    assert [one for one in pushing.events if isinstance(one, events.Retrying)]


def test_a_chunk_that_breaks_off(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.break_off(10_000)
    pushing.registry.break_off(20_000, method="PATCH", skip=1)
    pushing(image)
    assert pushing.has(image)
    assert [one[1] for one in bodies(pushing.registry)] == [
        "", "10000-39999", "40000-69999", "60000-89999", "90000-99999",
    ]  # fmt: skip


def test_a_registry_that_keeps_nothing(pushing: Pushing, image: images.Image) -> None:
    """It begins anew, in chunks."""
    pushing.registry.uploads.forgets = True
    pushing.registry.break_off(50_000)
    pushing(image)
    assert pushing.has(image)
    assert [one[1] for one in bodies(pushing.registry)] == ["", "0-29999", "30000-59999", "60000-89999", "90000-99999"]


def test_breaks_with_progress_between_are_forgiven(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.break_off(8000)
    pushing.registry.break_off(8000, method="PATCH", times=None)
    pushing(image)
    assert pushing.has(image)
    assert len(bodies(pushing.registry)) > 2 * FAST.attempts


def test_breaks_without_progress_are_not(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.break_off(100)
    pushing.registry.break_off(0, method="PATCH", times=None)
    err = refused("unavailable", f"the connection to {pushing.registry.address} broke", lambda: pushing(image))
    assert err.subject == str(pushing.reference())
    assert len(bodies(pushing.registry)) == FAST.attempts
    assert pushing.registry.uploads.running == {}, "it was given up"
    assert pushing.registry.manifests == {}


def test_an_answer_that_is_lost(pushing: Pushing, image: images.Image) -> None:
    """The upload is done, and nobody said so: the blob is looked for before it is sent again."""
    pushing.registry.plant(faults.hang_up(), method="PUT", path="/uploads/")
    pushing(image)
    assert pushing.has(image)
    assert len(bodies(pushing.registry)) == 1


def test_the_answer_to_a_chunk_is_lost(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.break_off(10_000)
    pushing.registry.plant(faults.hang_up(), method="PATCH", path="/uploads/")
    pushing(image)
    assert pushing.has(image)
    assert [one[1] for one in bodies(pushing.registry)] == ["", "10000-39999", "40000-69999", "70000-99999"]


@settings(max_examples=25)
@given(
    first=st.integers(2, SIZE - 1),
    later=st.lists(st.tuples(st.integers(0, 29_999), st.integers(0, 3)), max_size=1),
    forgets=st.booleans(),
    minimum=st.sampled_from([0, 1000, 45_000]),
    ranges=st.booleans(),
)
def test_breaks_anywhere(
    pushing: Pushing,
    image: images.Image,
    first: int,
    later: list[tuple[int, int]],
    forgets: bool,
    minimum: int,
    ranges: bool,
) -> None:
    registry = pushing.registry
    registry.heal()
    registry.links.clear()
    registry.blobs.clear()
    uploads = registry.uploads
    uploads.forgets, uploads.chunk_minimum, uploads.ranges = forgets, minimum, ranges
    registry.break_off(first)
    for at, skip in later:
        registry.break_off(at, method="PATCH", skip=skip)
    pushing(image)
    assert pushing.has(image)


# What a registry asks for


def test_a_least_size_of_chunks(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.uploads.chunk_minimum = 45_000
    pushing.registry.break_off(1000)
    pushing(image)
    assert pushing.has(image)
    assert [one[1] for one in bodies(pushing.registry)] == ["", "1000-45999", "46000-90999", "91000-99999"]


def test_a_limit_of_bodies(pushing: Pushing, image: images.Image) -> None:
    """Smaller chunks, until they are taken."""
    pushing.registry.uploads.limit = 5000
    pushing(image)
    assert pushing.has(image)
    sizes = [
        int(one.headers["Content-Length"])
        for one in pushing.registry.seen
        if one.method in ("PUT", "PATCH") and "/uploads/" in one.path
    ]
    assert sizes[:3] == [SIZE, 25_000, 6250]
    assert max(sizes[3:]) <= 5000


def test_a_limit_that_is_too_low(pushing: Pushing, image: images.Image) -> None:
    pushing.registry.uploads.limit = 1000
    err = refused("invalid", "refuses 2000 bytes at once (HTTP 413)", lambda: pushing(image))
    assert "a proxy before it" in err.hint
    assert pushing.registry.uploads.running == {}


@pytest.mark.parametrize("at", [1, 20_000])
def test_chunks_that_are_refused(pushing: Pushing, image: images.Image, at: int) -> None:
    """416: with a look at where the registry is, and anew where that is no use."""
    uploads = pushing.registry.uploads
    uploads.refusals = 1
    pushing.registry.break_off(at)
    pushing(image)
    assert pushing.has(image)
    assert pushing.registry.asked("GET", "/uploads/") == 2
    uploads.refusals = 100
    pushing.registry.links.clear()
    pushing.registry.break_off(at)
    refused("invalid", "does not take the bytes from 0 on (HTTP 416)", lambda: pushing(image))
    assert uploads.running == {}


def test_a_registry_that_took_less_of_a_chunk(pushing: Pushing, image: images.Image) -> None:
    """It goes on where the answer says, or is told by 416 where that is."""
    pushing.registry.break_off(20_000)
    pushing.registry.plant(faults.header("Range", "0-29999"), method="PATCH", path="/uploads/")
    pushing(image)
    assert pushing.has(image)
    assert ("PATCH", "30000-59999", 30_000) in bodies(pushing.registry), "refused, as it has 50,000"


@pytest.mark.parametrize("said", ["0-0", "0-99999999", "nothing"])
def test_a_registry_that_says_nothing_of_use(pushing: Pushing, image: images.Image, said: str) -> None:
    """Of how far it is: that chunks were taken will do."""
    pushing.registry.break_off(20_000)
    pushing.registry.plant(faults.header("Range", said), method="PATCH", path="/uploads/", times=None)
    pushing(image)
    assert pushing.has(image)
    assert [one[1] for one in bodies(pushing.registry)] == ["", "20000-49999", "50000-79999", "80000-99999"]


def test_a_registry_that_reads_late(pushing: Pushing, make_client: MakeClient) -> None:
    """It has the time of a stall, not that of making a connection."""
    pushing.client = make_client(limits=replace(FAST, dial=0.3))
    pushing.registry.reads = threading.Event()
    # More than all buffers on the way hold.
    image = images.image([images.layer(bytes(24 << 20), "")])
    threading.Timer(1.5, pushing.registry.reads.set).start()
    pushing(image)
    assert pushing.has(image)
    assert len(bodies(pushing.registry)) == 1


def test_a_registry_that_reads_nothing(pushing: Pushing, make_client: MakeClient) -> None:
    pushing.client = make_client(limits=replace(FAST, stall=0.3, attempts=1))
    pushing.registry.reads = threading.Event()
    image = images.image([images.layer(bytes(24 << 20), "")])
    try:
        refused("unavailable", pushing.registry.address, lambda: pushing(image))
    finally:
        pushing.registry.reads.set()


def test_given_up_while_a_registry_reads_nothing(pushing: Pushing) -> None:
    """At once, though a request waits."""
    cancel = Cancel()
    pushing.registry.reads = threading.Event()
    image = images.image([images.layer(bytes(24 << 20), "")])

    def on_event(event: events.Event) -> None:
        if isinstance(event, events.LayerProgress):
            threading.Timer(0.2, cancel.set).start()

    try:
        refused("cancelled", "given up", lambda: pushing(image, cancel=cancel, on_event=on_event))
    finally:
        pushing.registry.reads.set()
