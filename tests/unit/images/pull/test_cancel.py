"""A pull that is ended from another thread, wherever it stands: soon, with nothing staged, and the next one goes on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from ocirt_images import events
from ocirt_images.cancel import Cancel
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest, chain_ids
from ocirt_images.errors import Error
from ocirt_images.pull import download, unpack
from ocirt_images.registry.limits import Limits
from tests.support import images
from tests.support import registry_faults as faults
from tests.support.registry import LocalRegistry
from tests.unit.images.pull.box import Box, blob_requests, ref

# Whoever waited for any of these to pass would be seen to.
PATIENT = Limits(stall=3600, dial=3600, backoff=3600, patience=3600)


@pytest.fixture
def event() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


class Canceller:
    """Sets a token at the `number`th event, from another thread, and lets the pull go on only then."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self.event: events.Event | None = None  # at which it did
        self.cancel = Cancel()
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            self.count += 1
            now = self.count == self.number
            if now:
                self.event = event
        if now:
            thread = threading.Thread(target=self.cancel.set)
            thread.start()
            thread.join()


@pytest.mark.parametrize("own", [True, False])
def test_at_any_event(box: Box, registry: LocalRegistry, own: bool) -> None:
    first = images.random_image(50, layers=3, size=20_000)
    registry.add("team/app", first, "latest")
    whole = Canceller(0)
    box.pull(registry, on_event=whole)
    assert whole.count >= 14
    ended = 0
    for number in range(1, whole.count, 1 if own else 3):
        found = images.random_image(50 + number, layers=3, size=20_000)
        registry.add("team/app", found, "latest")
        at = Canceller(number)
        try:
            record = box.pull(registry, on_event=at, cancel=at.cancel, workers=None if own else box.workers)
        except Error as err:
            assert (err.code, err.hint) == ("cancelled", "what is done is kept: the next try goes on from there")
            box.check()
            ended += 1
            before = [digest for digest in found.blobs if box.kept(found.blobs[digest]) == len(found.blobs[digest])]
            registry.forget()
            record = box.pull(registry)
            assert not {digest for digest, _ in blob_requests(registry)} & set(before)
        else:
            assert at.event is None or isinstance(at.event, events.Done), "it was cancelled, and went on to the end"
        box.holds(record, found)
    assert ended > 5


@pytest.mark.parametrize("where", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("how", ["unanswered", "held", "stuck", "busy", "down"])
def test_while_it_waits_for_the_registry(
    box: Box, registry: LocalRegistry, event: threading.Event, image: images.Image, how: str, where: str
) -> None:
    """For an answer, a body, or the time at which it may ask again."""
    fault = {
        "unanswered": faults.unanswered(event),
        "held": faults.held(event),
        "stuck": faults.stuck(20, event),
        "busy": faults.too_many("3600"),
        "down": faults.status(500),
    }[how]
    asked = threading.Event()

    def told(reply: object, seen: object) -> None:
        asked.set()

    registry.plant(told, path=where, times=None)
    registry.plant(fault, path=where, times=None)
    cancel = Cancel()

    def later() -> None:
        assert asked.wait(60)
        cancel.set()

    thread = threading.Thread(target=later)
    thread.start()
    box.refused("cancelled", "given up", registry, cancel=cancel, limits=PATIENT)
    thread.join()
    registry.heal()
    event.set()
    box.holds(box.pull(registry), image)


def test_before_it_begins(box: Box, registry: LocalRegistry) -> None:
    cancel = Cancel()
    cancel.set()
    box.refused("cancelled", "given up", registry, cancel=cancel)
    assert registry.seen == []


def test_while_it_waits_for_another_pull(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    with box.store.leases.lease() as lease:
        ingest = box.store.content.ingest(_descriptor(image.layers[0]), lease)
        assert ingest is not None
        with ingest:
            cancel = Cancel()

            def waiting(one: events.Event) -> None:
                if isinstance(one, events.LayerWaiting):
                    cancel.set()

            with pytest.raises(Error, match="given up"):
                box.pull(registry, cancel=cancel, on_event=waiting)
            ingest.write(image.layers[0].blob)
            ingest.commit()
    box.holds(box.pull(registry), image)


def test_a_failure_does_not_end_the_callers_other_work(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    cancel = Cancel()
    registry.plant(faults.status(404), path=image.layers[0].digest)
    box.refused("not-found", "", registry, cancel=cancel)
    assert not cancel.is_set
    box.holds(box.pull(registry, cancel=cancel), image)
    assert not cancel._wakers


@pytest.mark.parametrize("how", ["unanswered", "stuck", "busy"])
def test_one_layer_that_fails_ends_the_others_at_once(
    box: Box, registry: LocalRegistry, image: images.Image, event: threading.Event, how: str
) -> None:
    """Whichever of them it is, and whatever the other waits for."""
    waiting, failing = image.layers
    for one, other in ((waiting, failing), (failing, waiting)):
        asked = threading.Event()

        def hold(reply: object, seen: object, asked: threading.Event = asked) -> None:
            asked.set()

        def after(reply: object, seen: object, asked: threading.Event = asked) -> None:
            assert asked.wait(60)

        fault = {"unanswered": faults.unanswered(event), "stuck": faults.stuck(20, event), "busy": faults.too_many("3000")}[how]
        registry.plant(hold, path=one.digest, times=None)
        registry.plant(fault, path=one.digest, times=None)
        registry.plant(after, path=other.digest, times=None)
        registry.plant(faults.status(403), path=other.digest, times=None)
        box.refused("unauthorized", "HTTP 403", registry, limits=PATIENT)
        registry.heal()
    event.set()
    box.holds(box.pull(registry), image)


def test_a_callback_that_raises(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    """It ends the pull, as a failure of it."""
    for kind in (events.Resolved, events.LayerKnown, events.LayerProgress, events.LayerUnpacking, events.LayerDone):

        def raising(one: events.Event, kind: type = kind) -> None:
            if isinstance(one, kind):
                raise ZeroDivisionError(kind.__name__)

        with pytest.raises(ZeroDivisionError, match=kind.__name__):
            box.pull(registry, on_event=raising)
        box.check()
    box.holds(box.pull(registry), image)


def test_an_interrupt_of_the_main_thread(
    box: Box, registry: LocalRegistry, image: images.Image, event: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: what the threads wait for ends, and what came is kept."""
    main = threading.main_thread().ident
    assert main is not None
    assert main == threading.get_ident()
    monkeypatch.setattr(download, "RANGE", 10_000)
    layer = image.layers[1]
    registry.plant(faults.stuck(5000, event), path=layer.digest, times=None, skip=4)
    seen = threading.Event()

    def enough(one: events.Event) -> None:
        if isinstance(one, events.LayerProgress) and one.layer == layer.digest and one.moved >= 55_000 and not seen.is_set():
            seen.set()
            signal.pthread_kill(main, signal.SIGINT)  # a real one: _thread.interrupt_main does not end a wait for a lock

    with pytest.raises(KeyboardInterrupt):
        box.pull(registry, on_event=enough, limits=PATIENT)
    box.check()
    assert box.kept(layer.blob) >= 55_000
    registry.heal()
    event.set()
    box.holds(box.pull(registry), image)


def test_unpack_can_be_ended(box: Box, registry: LocalRegistry, image: images.Image) -> None:
    record = box.pull(registry)
    box.forget_trees(record)
    at = Canceller(3)
    with pytest.raises(Error, match="given up"):
        unpack(box.store, box.store.images.find(record.name), at, at.cancel)
    box.check()
    box.holds(unpack(box.store, box.store.images.find(record.name)), image)


def test_pulls_of_the_same_layers_at_once(box: Box, registry: LocalRegistry) -> None:
    """Four threads, four images in which the same layers stand in other places: each blob is fetched once."""
    layers = [images.random_layer(900 + number, 30_000) for number in range(4)]
    found = [images.image(layers[number:] + layers[:number]) for number in range(4)]
    for number, one in enumerate(found):
        registry.add("team/app", one, f"t{number}")
    registry.forget()
    records: list[object] = [None] * 4
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            records[number] = box.pull(ref(registry, f"team/app:t{number}"))
        except BaseException as err:  # noqa: BLE001
            failures.append(err)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    assert failures == []
    for number, one in enumerate(found):
        record = box.store.images.get(f"{registry.address}/team/app:t{number}")
        assert record is not None
        box.holds(record, one)
    asked = [digest for digest, _ in blob_requests(registry)]
    assert sorted(asked) == sorted({digest for one in found for digest in one.blobs})


def test_nobody_waits_for_a_tree_with_its_bytes_in_hand(box: Box, registry: LocalRegistry) -> None:
    """The same tree may be made of other bytes elsewhere, by somebody who first waits for these bytes, for a lower layer."""
    layer, below = images.layer({"f": b"1" * 5000}), images.layer({"g": b"2"})
    image = images.image([below, layer])
    registry.add("team/app", image, "latest")
    lower, upper = chain_ids([Digest(one.diff_id) for one in image.layers])
    failures: list[BaseException] = []

    def pulling() -> None:
        try:
            box.pull(registry)
        except BaseException as err:  # noqa: BLE001 -- it is raised below
            failures.append(err)

    thread = threading.Thread(target=pulling)
    with box.store.leases.lease() as lease:
        staged = box.store.layers.stage(upper, parent=lower, diff_id=Digest(layer.diff_id), lease=lease)
        assert staged is not None
        thread.start()
        while (ingest := box.store.content.ingest(_descriptor(layer), lease)) is not None:  # waits for the pull, if it has it
            ingest.__exit__(None, None, None)
        assert thread.is_alive()
        staged.discard()
        thread.join()
    assert failures == []
    box.holds(box.pull(registry), image)


def _descriptor(layer: images.Layer) -> Descriptor:
    return Descriptor.parse(layer.descriptor, "layer")
