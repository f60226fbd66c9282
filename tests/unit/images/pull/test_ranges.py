"""Large blobs: several connections, each for a range; and servers that know no ranges, or think that they do."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.pull import download
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Fault, Reply, Seen
from tests.unit.images.pull.box import Box, blob_requests

RANGE = 10_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RANGE", RANGE)


@pytest.fixture(scope="module")
def image() -> images.Image:
    """One layer of eleven ranges, the last of which is short."""
    found = images.random_image(3, layers=1, size=100_000)
    assert 10 * RANGE < len(found.layers[0].blob) < 11 * RANGE
    return found


def ranges(registry: LocalRegistry, image: images.Image) -> list[str]:
    return [asked for digest, asked in blob_requests(registry) if digest == image.layers[0].digest]


def parts(start: int, stop: int) -> list[str]:
    """What is asked for to get the bytes from `start` to `stop`, several ranges' worth."""
    return [f"bytes={at}-{min(at + RANGE, stop) - 1}" for at in range(start, stop, RANGE)]


def test_each_range_is_asked_for_once(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    box.holds(box.pull(registry), image)
    assert sorted(ranges(registry, image)) == sorted(parts(0, len(image.layers[0].blob)))


@pytest.mark.parametrize("connections", [1, 2, 8])
def test_connections(box: Box, registry: LocalRegistry, image: images.Image, connections: int) -> None:
    """No more than are allowed are at work at any time, though there is more to fetch."""
    lock, gate = threading.Lock(), threading.Semaphore(0)
    now: Counter[str] = Counter()

    def counted(reply: Reply, _: Seen) -> None:
        with lock:
            now["begun"] += 1
            if now["begun"] == connections:
                gate.release(1000)
        assert gate.acquire(timeout=60), "so many connections at once never came"

    registry.plant(counted, path=image.layers[0].digest, times=None)
    box.holds(box.pull(registry, connections=connections), image)
    assert registry.connections <= connections + 1  # the manifest's may be another one


@pytest.mark.parametrize(
    "fault", [faults.ignored_range, faults.refused_range(), faults.refused_range(None)], ids=["200", "416", "416 plain"]
)
def test_a_server_without_ranges(box: Box, registry: LocalRegistry, image: images.Image, fault: Fault) -> None:
    registry.plant(fault, path=image.layers[0].digest, times=None)
    box.holds(box.pull(registry), image)
    # Not always as the last one: the server may see requests later that were given up before it.
    assert "" in ranges(registry, image)


def test_a_registry_that_has_no_ranges_at_all(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    registry.ranges = False
    box.holds(box.pull(registry), image)


@pytest.mark.parametrize("skip", range(0, 11, 2))
def test_ranges_end_in_the_middle(box: Box, registry: LocalRegistry, image: images.Image, skip: int) -> None:
    """Some servers answer the first requests by ranges, and then no more."""
    registry.plant(faults.ignored_range, path=image.layers[0].digest, times=None, skip=skip)
    box.holds(box.pull(registry), image)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (faults.refused_range(5), "has a blob of 5 bytes"),
        (faults.shifted_range(1), "bytes were announced"),
        (faults.header("Content-Range", "bytes 0-9/10"), "bytes were announced"),
        (faults.header("Content-Range", "nonsense"), "bytes were announced"),
    ],
)
def test_ranges_that_cannot_be_right(box: Box, registry: LocalRegistry, image: images.Image, fault: Fault, text: str) -> None:
    registry.plant(fault, path=image.layers[0].digest, times=None, skip=3)
    box.refused("corrupt", text, registry)
    registry.heal()
    box.holds(box.pull(registry), image)


def test_short_ranges_are_filled_up(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """A server may send less than it was asked for, and say so."""
    registry.plant(faults.short_range(RANGE // 2), path=image.layers[0].digest, skip=2, times=2)
    box.holds(box.pull(registry), image)


def test_only_gaps_are_asked_for(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    layer = image.layers[0]
    size = len(layer.blob)
    lasting = f"{RANGE * 4}-"

    def refuse(reply: Reply, seen: Seen) -> None:
        if lasting in seen.range:
            faults.status(404)(reply, seen)

    # One connection: all before this range has come when it fails, and nothing after it.
    registry.plant(refuse, path=layer.digest, times=None)
    box.refused("not-found", "", registry, connections=1)
    assert box.kept(layer.blob) == 4 * RANGE
    registry.heal()
    registry.forget()
    box.holds(box.pull(registry), image)
    assert sorted(ranges(registry, image)) == sorted(parts(4 * RANGE, size))


def test_a_gap_in_the_middle(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """What was left by others, with holes."""
    layer = image.layers[0]
    size = len(layer.blob)
    with box.store.leases.lease() as lease:
        ingest = box.store.content.ingest(Descriptor.parse(layer.descriptor, ""), lease)
        assert ingest is not None
        with ingest:
            for start, stop in ((0, 100), (5000, 60_000), (70_000, size)):
                ingest.write_at(start, layer.blob[start:stop])
    box.holds(box.pull(registry), image)
    assert sorted(ranges(registry, image)) == ["bytes=100-4999", "bytes=60000-69999"]


@pytest.mark.parametrize("liar", [False, True])
def test_what_is_there_is_not_written_over(box: Box, registry: LocalRegistry, image: images.Image, liar: bool) -> None:
    """A server without ranges sends all from the beginning. What it sends of the bytes that are there has been hashed before:
    were it to replace them, wrong bytes would be taken for right ones.
    """
    layer = image.layers[0]
    with box.store.leases.lease() as lease:
        ingest = box.store.content.ingest(Descriptor.parse(layer.descriptor, ""), lease)
        assert ingest is not None
        with ingest:
            ingest.write_at(0, layer.blob[:30_001])
            ingest.write_at(50_000, layer.blob[50_000:70_000])
    registry.ranges = False
    wrong = bytearray(layer.blob)
    if liar:
        wrong[10] ^= 1
        wrong[30_000] ^= 1
        wrong[60_000] ^= 1
    registry.blobs[layer.digest] = bytes(wrong)
    box.holds(box.pull(registry), image)
    assert box.store.content.path(Digest(layer.digest)).read_bytes() == layer.blob


def test_wrong_bytes_left_by_an_earlier_attempt(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """They are nobody's fault of those who are asked now: all is fetched anew."""
    layer = image.layers[0]
    with box.store.leases.lease() as lease:
        ingest = box.store.content.ingest(Descriptor.parse(layer.descriptor, ""), lease)
        assert ingest is not None
        with ingest:
            ingest.write_at(20_000, b"\0" * 1000)
    box.holds(box.pull(registry), image)
    assert len(ranges(registry, image)) > 11
