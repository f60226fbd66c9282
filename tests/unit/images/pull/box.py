"""A store with all that a pull into it needs, and what is asked of it afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ocirt_images import events
from ocirt_images.apply.worker import Workers
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.pull import pull
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts
from ocirt_images.registry.limits import Limits
from ocirt_images.store import ImageRecord, Store, prune
from ocirt_images.store.checks import fsck
from tests.support import images
from tests.support.registry import LocalRegistry
from tests.support.registry_http import Seen

AMD64 = Platform("linux", "amd64")
FAST = Limits(backoff=0.001, attempts=3, stall=20, dial=10, patience=5)


class Box:
    """Pulls into the store at `root`. seen: the events of the last pull."""

    def __init__(self, root: Path, workers: Workers) -> None:
        self.root = root
        self.workers = workers
        self.seen: list[events.Event] = []
        self.store = Store.open(root, sync=False)

    def pull(
        self,
        reference: Reference | LocalRegistry,
        *,
        platform: Platform = AMD64,
        hosts: Hosts | None = None,
        credentials: Credentials | None = None,
        limits: Limits = FAST,
        on_event: events.OnEvent = events.ignore,
        **more: Any,
    ) -> ImageRecord:
        """Pull by a client of its own; a registry stands for its team/app."""
        self.seen = []

        def seeing(event: events.Event) -> None:
            self.seen.append(event)
            on_event(event)

        if isinstance(reference, LocalRegistry):
            reference = ref(reference)
        more.setdefault("workers", self.workers)
        with Registry(hosts=hosts or Hosts(), credentials=credentials or Credentials(), limits=limits, environ={}) as registry:
            return pull(self.store, registry, reference, platform, seeing, **more)

    def refused(self, code: str, text: str, reference: Reference | LocalRegistry, **more: Any) -> Error:
        """A pull that fails: with this code, saying this, and with nothing left but what can be gone on with."""
        with pytest.raises(Error) as caught:
            self.pull(reference, **more)
        assert caught.value.code == code, str(caught.value)
        assert text in str(caught.value), str(caught.value)
        self.check()
        return caught.value

    def check(self) -> None:
        """Nobody is at work: nothing is staged, locked or leased, and the store is whole."""
        layout = self.store.layout
        assert os.listdir(layout.staging) == []
        assert [name for name in os.listdir(layout.ingests) if name.endswith(".lock")] == []
        assert self.store.leases.list() == []
        assert fsck(self.root, sync=False) == []

    def kept(self, data: bytes) -> int:
        """How many bytes of some content an attempt left for the next one, all of them right."""
        with self.store.leases.lease() as lease:
            ingest = self.store.content.ingest(descriptor(data), lease)
            if ingest is None:
                return len(data)
            with ingest:
                lost = ingest.missing
                there = ingest.path.read_bytes()
                for start, stop in zip([0, *(end for _, end in lost)], [*(begin for begin, _ in lost), len(data)], strict=True):
                    assert there[start:stop] == data[start:stop]
                return ingest.received

    def tree(self, record: ImageRecord) -> dict[str, bytes]:
        """The files of an image by name; of its layers, the uppermost that has one counts."""
        found: dict[str, bytes] = {}
        for layer in self.store.layers.chain(record.layer) if record.layer else []:
            found |= {str(one.relative_to(layer.path)): one.read_bytes() for one in layer.path.rglob("*") if one.is_file()}
        return found

    def forget_trees(self, record: ImageRecord) -> None:
        """The image is as if it had been loaded: its content is there, and nothing is unpacked."""
        with self.store.leases.lease() as lease:
            self.store.images.put(record.name, record.target, manifest=record.manifest, config=record.config, lease=lease)
        prune(self.store)
        assert self.store.layers.list() == []

    def holds(self, record: ImageRecord, image: images.Image) -> None:
        """The image is there, with the right bytes, under its name, and unpacked; and nothing is wrong with the store."""
        assert (record.manifest, record.config) == (image.digest, images.digest(image.config))
        for digest, data in image.blobs.items():
            assert self.store.content.read(Digest(digest)) == data
        assert self.tree(record) == files(image)
        assert self.store.images.get(record.name) == record
        self.check()


def descriptor(data: bytes) -> Descriptor:
    """Of content, whatever it is."""
    return Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=len(data))


def files(image: images.Image) -> dict[str, bytes]:
    """What is in an image's layers, whiteouts aside."""
    found: dict[str, bytes] = {}
    for layer in image.layers:
        found |= images.contents(layer.tar)
    return found


def ref(registry: LocalRegistry, rest: str = "team/app") -> Reference:
    """An image at a registry."""
    return Reference.parse(f"{registry.address}/{rest}")


def blob_requests(registry: LocalRegistry) -> list[tuple[str, str]]:
    """Digest and range of each GET of a blob."""
    return [(digest_of(one), one.range) for one in list(registry.seen) if one.method == "GET" and "/blobs/" in one.path]


def digest_of(seen: Seen) -> str:
    return seen.path.rpartition("/")[2]


@contextmanager
def boxed(root: Path, workers: Workers) -> Iterator[Box]:
    box = Box(root, workers)
    with box.store:
        yield box
