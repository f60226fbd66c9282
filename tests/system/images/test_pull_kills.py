"""Pulls that are killed: by others who want the same, and at random moments.

OCIRT_TEST_MOMENTS: at how many moments (default: 25); OCIRT_TEST_SEED: of the choice of these.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ocirt_images import platforms
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.store import Store, prune
from ocirt_images.store.checks import fsck
from tests.support import images
from tests.support.build import ROOT
from tests.support.leaks import descendants
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Reply, Seen
from tests.support.runtime import reap_orphans, wait_for

pytestmark = pytest.mark.ocirt_only("peers know nothing of images")

MOMENTS = int(os.environ.get("OCIRT_TEST_MOMENTS", "25"))
SEED = int(os.environ.get("OCIRT_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
RANGE = 20_000
CONNECTIONS = 3
# An operation as a program of its own, which says when it begins and when it is done. Many small ranges, as of a large layer.
PROGRAM = f"""
import sys
from pathlib import Path
from ocirt_images import events
from ocirt_images.pull import download, pull
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.store import Store, prune

download.RANGE = {RANGE}
root, verb, *names = sys.argv[1:]

def seen(event):
    if isinstance(event, events.LayerWaiting):
        print("waiting", flush=True)

print("go", flush=True)
with Store.open(Path(root), sync=False) as store, Registry(hosts=Hosts(), credentials=Credentials(), environ={{}}) as registry:
    for name in names:
        if verb == "pull":
            pull(store, registry, Reference.parse(name), on_event=seen, connections={CONNECTIONS})
        else:
            store.images.delete(name)
    if verb == "prune":
        prune(store)
print("done", flush=True)
"""


@contextmanager
def program(root: Path, verb: str, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Run it; in the end it is killed, with all that it started."""
    command = [sys.executable, "-c", PROGRAM, str(root), verb, *names]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'images'}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        kill(process)
        assert process.stdout is not None
        process.stdout.close()


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9, and wait until its workers are gone too, which the kernel sees to."""
    process.kill()
    process.wait()
    wait_for(lambda: not _workers(), "the workers of who was killed to end", seconds=30)


def _workers() -> list[str]:
    """Orphans among our descendants."""
    reap_orphans()
    own = str(os.getpid())
    found = []
    for pid in descendants():
        try:
            parent = re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            line = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if parent and parent[1] == own and "ocirt_images.apply.server" in line:
            found.append(line)
    return found


def said(process: subprocess.Popen[str], word: str) -> None:
    """Wait until it says this."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    pytest.fail(f"it ended without saying {word!r}")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        yield found


def image(seed: int, layers: list[images.Layer]) -> images.Image:
    """An image of these layers, unlike all of another seed."""
    where = {"os": "linux", "architecture": platforms.host().architecture}
    return images.image(layers, config={"Labels": {"seed": str(seed)}}, platform=where)


def span(seen: Seen, size: int) -> tuple[int, int]:
    """The bytes that were asked for: start and end."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.range)
    return (int(match[1]), int(match[2]) + 1) if match else (0, size)


def blobs_asked(registry: LocalRegistry) -> list[tuple[str, tuple[int, int]]]:
    """Digest, and start and end, of each GET of a blob."""
    found = []
    for seen in list(registry.seen):
        if seen.method == "GET" and "/blobs/" in seen.path:
            digest = seen.path.rpartition("/")[2]
            data = registry.blobs[digest]
            assert isinstance(data, bytes)
            found.append((digest, span(seen, len(data))))
    return found


def test_four_processes_fetch_each_byte_once_though_the_first_is_killed(tmp_path: Path, registry: LocalRegistry) -> None:
    """Four tags that share layers, each process in an order of its own. The first is killed when each of its connections waits
    for an answer: only that is asked for twice.
    """
    root = tmp_path / "store"
    layers = [images.random_layer(number, 300_000) for number in range(6)]
    names = []
    for number in range(4):
        registry.add("app", image(number, layers[number:] + layers[:number]), f"t{number}")
        names.append(f"{registry.address}/app:t{number}")
    in_flight: list[tuple[str, tuple[int, int]]] = []
    lock, release = threading.Lock(), threading.Event()

    def held(reply: Reply, seen: Seen) -> None:
        digest = seen.path.rpartition("/")[2]
        with lock:
            in_flight.append((digest, span(seen, reply.whole)))
        reply.hold = release

    registry.plant(held, path="/blobs/", skip=30, times=CONNECTIONS)
    with program(root, "pull", *names) as first:
        wait_for(lambda: len(in_flight) == CONNECTIONS, "requests in flight", seconds=60)
        others = [program(root, "pull", *names[number:], *names[:number]) for number in range(1, 4)]
        with others[0] as one, others[1] as two, others[2] as three:
            said(one, "waiting")  # for what the first one has begun
            kill(first)
            release.set()
            for process in (one, two, three):
                said(process, "done")
                assert process.wait() == 0
    with Store.open(root, sync=False) as store:
        assert [record.name for record in store.images.list()] == names
        assert fsck(store) == []
    counts = {digest: bytearray(len(data)) for digest, data in registry.blobs.items() if isinstance(data, bytes)}
    for digest, (start, stop) in blobs_asked(registry):
        counts[digest][start:stop] = bytes(count + 1 for count in counts[digest][start:stop])
    wanted = {digest: bytearray(b"\1" * len(count)) for digest, count in counts.items()}
    for digest, (start, stop) in in_flight:
        wanted[digest][start:stop] = b"\2" * (stop - start)
    assert counts == wanted
    assert registry.asked("GET", "/manifests/") <= 16


@dataclass
class There:
    """What a store has of an image's content: whole digests, and ranges of what is on its way."""

    whole: set[str] = field(default_factory=set)
    parts: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    @classmethod
    def look(cls, store: Store, found: images.Image) -> There:
        there = cls()
        with store.leases.lease() as lease:
            for digest, data in found.blobs.items():
                if store.content.has(Digest(digest)):
                    there.whole.add(digest)
                    continue
                if not store.layout.ingest(Digest(digest)).exists():
                    continue
                descriptor = Descriptor(media_type="", digest=Digest(digest), size=len(data))
                ingest = store.content.ingest(descriptor, lease)
                assert ingest is not None
                with ingest:
                    edges = [0, *(edge for gap in ingest.missing for edge in gap), len(data)]
                    parts = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
                    there.parts[digest] = parts
                    content = ingest.path.read_bytes()
                    assert all(content[start:stop] == data[start:stop] for start, stop in parts), "left bytes are wrong"
            lease.end(free=False)
        return there

    def check(self, asked: list[tuple[str, tuple[int, int]]]) -> None:
        """None of it was asked for again."""
        for digest, (start, stop) in asked:
            assert digest not in self.whole
            for first, last in self.parts.get(digest, []):
                assert stop <= first or last <= start, f"{digest}: {start}-{stop} asked for, {first}-{last} was there"


def test_killed_at_random_moments(tmp_path: Path, registry: LocalRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """pull, rmi and prune. Afterwards nothing is wrong with the store, and the next pull asks for nothing that was there."""
    root = tmp_path / "store"
    chance = random.Random(SEED)
    with capsys.disabled():
        print(f"\n  {MOMENTS} moments, OCIRT_TEST_SEED={SEED}", end="")
    name = f"{registry.address}/app:latest"
    durations = {verb: _duration(root, verb, name, registry) for verb in ("pull", "rmi", "prune")}
    killed = dict.fromkeys(durations, 0)
    resumed = 0
    for number in range(MOMENTS):
        verb = chance.choice(("pull", "pull", "rmi", "prune"))
        found = image(number, [images.random_layer(number * 10 + one, chance.randrange(1000, 150_000)) for one in range(3)])
        registry.add("app", found, "latest")
        # What is there before: nothing of it, or all, or what a pull left that was killed at random, too.
        if verb == "prune" or chance.random() < 0.3:
            _killed(root, "pull", name, chance.uniform(0, durations["pull"]))
        if verb == "rmi":
            _done(root, "pull", name)
        in_time = _killed(root, verb, name, chance.uniform(0, 1.1 * durations[verb]))
        killed[verb] += in_time
        durations[verb] *= 1.1 if in_time else 0.7  # how fast this machine is may change while the test runs
        with Store.open(root, sync=False) as store:
            assert fsck(store) == [], f"moment {number}: {verb}"
            there = There.look(store, found)
        # A child that was just forked holds the dead one's locks until it executes its program.
        wait_for(lambda: _staging(root) == [], "an empty staging/")
        resumed += bool(there.whole or there.parts)
        registry.forget()
        _done(root, "pull", name)
        there.check(blobs_asked(registry))
        with Store.open(root, sync=False) as store:
            record = store.images.get(name)
            assert record is not None
            assert (record.manifest, record.layer) == (found.digest, store.layers.chain(record.layer)[-1].chain_id)  # type: ignore[arg-type]
            assert fsck(store) == [], f"moment {number}: after {verb} and another pull"
            if chance.random() < 0.5:
                store.images.delete(name)
                prune(store)
                assert store.layers.list() == []
                assert not any(store.content.has(Digest(one)) for one in found.blobs)
    with capsys.disabled():
        print(f"; killed in time: {killed}, something was there {resumed} times", end="")
    assert sum(killed.values()) >= MOMENTS // 3, "most had ended before they were killed"
    assert resumed >= MOMENTS // 5


def _done(root: Path, verb: str, name: str) -> None:
    with program(root, verb, *([name] if verb != "prune" else [])) as process:
        said(process, "done")
        assert process.wait() == 0


def _duration(root: Path, verb: str, name: str, registry: LocalRegistry) -> float:
    """How long it takes from its first word to its last, when nobody kills it. The store is empty again afterwards."""
    registry.add("app", image(1000, [images.random_layer(9000 + one, 80_000) for one in range(3)]), "latest")
    if verb != "pull":
        _done(root, "pull", name)
    with program(root, verb, *([name] if verb != "prune" else [])) as process:
        said(process, "go")
        began = time.monotonic()
        said(process, "done")
        took = time.monotonic() - began
    with Store.open(root, sync=False) as store:
        prune(store, images=True)
    return took


def _staging(root: Path) -> list[str]:
    """What an opening of the store leaves there."""
    with Store.open(root, sync=False) as store:
        return os.listdir(store.layout.staging)


def _killed(root: Path, verb: str, name: str, seconds: float) -> bool:
    """Kill it so many seconds after its first word. Whether it was in time."""
    with program(root, verb, *([name] if verb != "prune" else [])) as process:
        said(process, "go")
        time.sleep(seconds)  # the moment is what varies
        process.send_signal(signal.SIGKILL)
        return process.wait() == -signal.SIGKILL
