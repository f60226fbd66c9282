"""A registry without anything, a client of it, and a store with images to push."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ocirt_images import events
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.manifest import Manifest, read
from ocirt_images.push import push
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from ocirt_images.store import ImageRecord, Store
from tests.support.images import Image
from tests.support.registry import LocalRegistry

FAST = Limits(backoff=0.001, attempts=3, stall=20, dial=10, patience=5)
NAME = "registry.example/team/app:1"


def keep(store: Store, image: Image, name: str = NAME, *, without: tuple[str, ...] = (), pulled_by: str = "") -> ImageRecord:
    """Have an image in a store, but for what is in `without`. Of an index, its first manifest is the one for this machine."""
    with store.leases.lease() as lease:
        chosen = Digest(image.digest)
        while not isinstance(found := read(image.manifests[chosen][1], "", name), Manifest):
            chosen = found.manifests[0].digest
        lease.pin([Digest(one) for one in (*image.blobs, *image.manifests)])
        for digest, data in (*image.blobs.items(), *((digest, data) for digest, (_, data) in image.manifests.items())):
            if digest not in without:
                store.content.put(data, Digest(digest), lease)
        target = Descriptor.parse(image.descriptor, name)
        return store.images.put(name, target, manifest=chosen, config=found.config.digest, lease=lease, pulled_by=pulled_by)


@dataclass(repr=False)
class Pushing:
    """Pushes from a store to a registry."""

    store: Store
    registry: LocalRegistry
    client: Registry
    events: list[events.Event] = field(default_factory=list)

    def reference(self, rest: str = "team/app:1") -> Reference:
        return Reference.parse(f"{self.registry.address}/{rest}")

    def __call__(self, image: Image, rest: str = "team/app:1", **more: Any) -> Digest:
        """Keep an image, and push it."""
        return self.push(keep(self.store, image), rest, **more)

    def push(self, record: ImageRecord, rest: str = "team/app:1", **more: Any) -> Digest:
        self.events.clear()
        self.registry.forget()
        more.setdefault("on_event", self.events.append)
        return push(self.store, self.client, record, self.reference(rest), **more)

    @property
    def done(self) -> dict[str, str]:
        """What became of each layer."""
        return {one.layer: one.how for one in self.events if isinstance(one, events.LayerDone)}

    def sent(self) -> list[tuple[str, int]]:
        """Methods and sizes of the requests that had a body."""
        return [(one.method, len(one.body)) for one in self.registry.seen if one.body]

    def has(self, image: Image, repository: str = "team/app", *tags: str) -> bool:
        """Whether the registry has all of an image, byte for byte, and nothing under way."""
        held, content = self.registry.manifests, self.registry.blobs
        return (
            all(held.get((repository, digest)) == found for digest, found in image.manifests.items())
            and all(
                content.get(digest) == data and (repository, digest) in self.registry.links
                for digest, data in image.blobs.items()
            )
            and all(self.registry.tags[repository].get(tag) == image.digest for tag in tags or ("1",))
            and not self.registry.uploads.running
        )


@pytest.fixture
def registry() -> Iterator[LocalRegistry]:
    with LocalRegistry() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", sync=False) as found:
        yield found


MakeClient = Callable[..., Registry]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    made: list[Registry] = []

    def make(*, hosts: Hosts | None = None, credentials: Credentials | None = None, limits: Limits = FAST) -> Registry:
        found = Registry(hosts=hosts or Hosts(), credentials=credentials or Credentials(), limits=limits, environ={})
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


@pytest.fixture
def pushing(store: Store, registry: LocalRegistry, make_client: MakeClient) -> Pushing:
    return Pushing(store, registry, make_client())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs that are small for people are large: chunks of 30,000 bytes, and only tiny blobs go along with POST."""
    module = "ocirt_images.registry.upload"
    for name, value in (("SMALL", 1000), ("CHUNK", 30_000), ("_LEAST", 2000), ("_PROGRESS", 1000)):
        monkeypatch.setattr(f"{module}.{name}", value)
