"""How long is waited, and for what: back-off, Retry-After, stalls, and `close` from another thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ocirt_images.cancel import Cancel
from ocirt_images.registry.client import Registry
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.unit.images.registry.asking import drain, layer, ref, refused
from tests.unit.images.registry.conftest import MakeClient

# On a machine at work not even the head may come in time.
STALLED = re.compile(r"sent \d+ bytes in [\d.]+ seconds|kept us waiting for [\d.]+ seconds")


def test_retry_after_is_waited_for(registry: LocalRegistry, make_client: MakeClient, image: images.Image) -> None:
    waits: list[float] = []
    client = make_client()
    client.session._sleep = waits.append
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    for value in ("3", when, ""):
        registry.plant(faults.too_many(value), path="/manifests/")
        assert client.resolve(ref(registry)).data == image.manifest
    seconds, date, backoff = waits
    assert (seconds, 0 < date <= 4, 0 < backoff <= 0.002) == (3, True, True)


def test_backoff_doubles_with_jitter(registry: LocalRegistry, make_client: MakeClient, image: images.Image) -> None:
    waits: list[float] = []
    client = make_client(limits=Limits(backoff=1, attempts=4))
    client.session._sleep = waits.append
    registry.plant(faults.status(500), path="/manifests/", times=3)
    client.resolve(ref(registry))
    assert all(low <= wait <= 3 * low for wait, low in zip(waits, (0.5, 1, 2), strict=True))


@pytest.fixture
def event() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


@pytest.mark.parametrize("at", [0, 100])
def test_a_stall_ends(
    registry: LocalRegistry, make_client: MakeClient, image: images.Image, event: threading.Event, at: int
) -> None:
    client = make_client(limits=Limits(stall=0.2, attempts=2, backoff=0.001))
    registry.plant(faults.stuck(at, event), times=None)
    refused("unavailable", "kept us waiting for 0.2 seconds", lambda: drain(client.blob(ref(registry), layer(image))))
    registry.plant(faults.stuck(at, event), path="/manifests/", times=None)
    refused("unavailable", "kept us waiting for 0.2 seconds", lambda: client.resolve(ref(registry)))


def test_a_slow_loris_is_no_progress(registry: LocalRegistry, make_client: MakeClient, image: images.Image) -> None:
    """A byte now and then keeps no pull alive."""
    client = make_client(limits=Limits(stall=0.3, slowest=10_000, attempts=2, backoff=0.001))
    registry.plant(faults.slow(1, 0.02), times=None)
    err = refused("unavailable", "", lambda: drain(client.blob(ref(registry), layer(image))))
    assert STALLED.search(str(err))


def test_a_slow_head_is_no_progress(registry: LocalRegistry, make_client: MakeClient) -> None:
    client = make_client(limits=Limits(stall=0.3, attempts=2, backoff=0.001))
    registry.plant(faults.slow_head(0.02), path="/manifests/", times=None)
    refused("unavailable", "kept us waiting for 0.3 seconds", lambda: client.resolve(ref(registry)))
    assert registry.asked("GET") == 2


def test_a_slow_manifest_is_no_progress(registry: LocalRegistry, make_client: MakeClient) -> None:
    client = make_client(limits=Limits(stall=0.3, attempts=2, backoff=0.001))
    registry.plant(faults.slow(1, 0.02), path="/manifests/", times=None)
    err = refused("unavailable", "", lambda: client.resolve(ref(registry)))
    assert STALLED.search(str(err))
    assert registry.asked("GET") == 2


def test_a_slow_reader_is_no_stall(
    registry: LocalRegistry, client: Registry, image: images.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the caller does between two reads is not the server's time."""
    now = [0.0]
    monkeypatch.setattr("ocirt_images.registry.body.monotonic", lambda: now[0])
    found = bytearray()
    with client.blob(ref(registry), layer(image)) as body:
        while data := body.read(1000):
            found += data
            now[0] += 1000
    assert (bytes(found), registry.asked("GET")) == (image.layers[0].blob, 1)


def test_close_ends_what_waits(
    registry: LocalRegistry, make_client: MakeClient, image: images.Image, event: threading.Event
) -> None:
    client = make_client()
    registry.plant(faults.stuck(10, event))
    body = client.blob(ref(registry), layer(image))
    assert len(body.read(10)) == 10
    timer = threading.Timer(0.05, client.close)
    timer.start()
    refused("cancelled", "closed by us", lambda: body.read(10))
    timer.join()
    refused("cancelled", "closed by us", lambda: client.resolve(ref(registry)))


def test_close_ends_a_request(registry: LocalRegistry, make_client: MakeClient, event: threading.Event) -> None:
    """One whose answer has not begun."""
    client = make_client()
    registry.plant(faults.unanswered(event), path="/manifests/")
    timer = threading.Timer(0.05, client.close)
    timer.start()
    refused("cancelled", "closed by us", lambda: client.resolve(ref(registry)))
    timer.join()


def test_close_ends_a_pause(registry: LocalRegistry, make_client: MakeClient) -> None:
    client = make_client(limits=Limits(backoff=1000))
    registry.plant(faults.status(500), path="/manifests/", times=None)
    timer = threading.Timer(0.05, client.close)
    timer.start()
    refused("cancelled", "closed by us", lambda: client.resolve(ref(registry)))
    timer.join()


def test_a_part_says_who_gave_up(client: Registry) -> None:
    """Not that it was closed: the whole is ended before its parts are."""
    outer = Cancel()
    with client.until(outer) as whole, outer.within() as inner, whole.until(inner) as part:
        part.session._end()  # as the whole does it, when the inner token is not set yet
        outer._set.set()
        refused("cancelled", "given up", part.session.check)
    refused("cancelled", "closed by us", _closed(client).session.check)


def _closed(client: Registry) -> Registry:
    client.close()
    return client


def test_a_part_ends_alone(registry: LocalRegistry, client: Registry, image: images.Image, event: threading.Event) -> None:
    """What is asked for outside of it goes on, by the same connections."""
    cancel, asked = Cancel(), threading.Event()

    def seen(_reply: object, _seen: object) -> None:
        asked.set()

    registry.plant(seen)
    registry.plant(faults.unanswered(event))

    def end() -> None:
        assert asked.wait(60)
        cancel.set()

    thread = threading.Thread(target=end)
    thread.start()
    with client.until(cancel) as part:
        refused("cancelled", "given up", lambda: part.blob(ref(registry), layer(image)))
        refused("cancelled", "given up", lambda: part.resolve(ref(registry)))
    thread.join()
    assert drain(client.blob(ref(registry), layer(image))) == image.layers[0].blob
    assert not client.session._parts
