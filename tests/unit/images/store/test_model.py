"""Random sequences of operations, against a model that is a few sets: what a store has, and what a fsck finds (nothing)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from ocirt_images.digest import Digest
from ocirt_images.store import Lease, Store, prune
from ocirt_images.store.checks import fsck
from tests.support.store.samples import Sample, bytes_of, descriptor, ingest, unpack

NAMES = st.sampled_from(["registry.example/x:1", "registry.example/y:1"])
# What an image is made of decides what it is: two names may have the same content.
IMAGES = st.sampled_from(
    [Sample("", tuple(bytes_of(layer, 500) for layer in layers)) for layers in ("a", "ab", "ac", "abc", "c")]
)
PIECES = st.sampled_from([bytes_of(name, 500) for name in ("a", "b", "c", "lone")])


class StoreMachine(RuleBasedStateMachine):
    """The model: what is there, who holds it."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = Store.open(self.root / "store", sync=False)
        self.contents: set[Digest] = set()
        self.layers: set[Digest] = set()
        self.images: dict[str, Sample] = {}
        self.pins: dict[int, tuple[set[Digest], set[Digest]]] = {}
        self.links: dict[Digest, set[Digest]] = {}
        self.parents: dict[Digest, Digest | None] = {}
        self.keys: dict[str, Digest] = {}

    def teardown(self) -> None:
        try:
            assert fsck(self.store) == []
            self.store.close()
            assert fsck(self.root / "store", repair=True, sync=False) == []
        finally:
            self.store.close()
            shutil.rmtree(self.root)

    @rule(target=leases)
    def lease(self) -> Lease:
        lease = self.store.leases.lease()
        self.pins[lease.number] = (set(), set())
        return lease

    @rule(lease=leases, data=PIECES)
    def put(self, lease: Lease, data: bytes) -> None:
        self.store.content.put(data, Digest.of(data), lease)
        self._pin(lease, {Digest.of(data)})
        self.contents.add(Digest.of(data))

    @rule(lease=leases, data=PIECES, pieces=st.integers(1, 3))
    def ingest(self, lease: Lease, data: bytes, pieces: int) -> None:
        ingest(self.store, data, lease, pieces=pieces)
        self._pin(lease, {Digest.of(data)})
        self.contents.add(Digest.of(data))

    @rule(lease=leases, data=PIECES)
    def interrupted(self, lease: Lease, data: bytes) -> None:
        found = self.store.content.ingest(descriptor(data), lease)
        self._pin(lease, {Digest.of(data)})
        assert (found is None) == (Digest.of(data) in self.contents)
        if found is not None:
            with found:
                found.write_at(100, data[100:200])

    @rule(lease=leases, image=IMAGES, name=NAMES, unpacked=st.booleans())
    def pull(self, lease: Lease, image: Sample, name: str, unpacked: bool) -> None:
        for data in image.contents:
            self.store.content.put(data, Digest.of(data), lease)
        self._pin(lease, set(image.digests))
        self.contents.update(image.digests)
        self.links[image.target.digest] = set(image.digests) - {image.target.digest}
        below: Digest | None = None
        for chain_id, diff_id in zip(image.chain_ids, image.diff_ids, strict=True):
            unpack(self.store, chain_id, below, diff_id, lease)
            self.pins[lease.number][1].add(chain_id)
            self.layers.add(chain_id)
            self.parents[chain_id] = below
            below = chain_id
        config = Digest.of(image.config)
        layer = below if unpacked else None
        self.store.images.put(name, image.target, manifest=image.target.digest, config=config, layer=layer, lease=lease)
        old = self.images.get(name)
        self.images[name] = Sample("unpacked" if unpacked else "", image.layers)
        if old is not None:
            self._free(self._contents_of(old), self._layers_of(old))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        old = self.images.pop(name, None)
        if old is not None:
            self.store.images.delete(name)
            self._free(self._contents_of(old), self._layers_of(old))

    @rule(key=st.sampled_from(["k", "l"]))
    def writable(self, key: str) -> None:
        if key in self.keys:
            self.store.writables.delete(key)
            self._free(set(), {self.keys.pop(key)})
        elif self.layers:
            self.keys[key] = min(self.layers)
            self.store.writables.create(key, self.keys[key])

    @rule(lease=consumes(leases), free=st.booleans())
    def end(self, lease: Lease, free: bool) -> None:
        lease.end(free=free)
        contents, layers = self.pins.pop(lease.number)
        if free:
            self._free(contents, layers)

    @rule()
    def prune(self) -> None:
        prune(self.store)
        self._free(set(self.contents), set(self.layers))

    @rule()
    def reopen(self) -> None:
        """Another opening beside this one changes nothing."""
        Store.open(self.root / "store", sync=False).close()

    @invariant()
    def agrees(self) -> None:
        blobs = {Digest(f"sha256:{path.name}") for path in (self.root / "store" / "blobs" / "sha256").iterdir()}
        assert blobs == self.contents
        assert all(self.store.content.has(digest) for digest in self.contents)
        assert {layer.chain_id for layer in self.store.layers.list()} == self.layers
        assert len(list((self.root / "store" / "layers").iterdir())) == len(self.layers)
        assert [image.name for image in self.store.images.list()] == sorted(self.images)
        assert {number for number, _, _ in self.store.leases.list()} == self.pins.keys()
        assert not list((self.root / "store" / "staging").iterdir())

    def _pin(self, lease: Lease, digests: set[Digest]) -> None:
        self.pins[lease.number][0].update(digests)

    @staticmethod
    def _contents_of(image: Sample) -> set[Digest]:
        return {image.target.digest, Digest.of(Sample("", image.layers).config), Digest.of(Sample("", image.layers).manifest)}

    @staticmethod
    def _layers_of(image: Sample) -> set[Digest]:
        return {image.chain_ids[-1]} if image.name else set()

    def _free(self, contents: set[Digest], layers: set[Digest]) -> None:
        """Removes of these what nothing holds, and what only that held."""
        while contents:
            held = set().union(*(self._contents_of(image) for image in self.images.values()))
            held |= set().union(*(pinned for pinned, _ in self.pins.values()))
            held |= set().union(*(self.links.get(digest, set()) for digest in self.contents))
            gone = (contents & self.contents) - held
            contents = set().union(*(self.links.get(digest, set()) for digest in gone))
            self.contents -= gone
        while layers:
            kept = set().union(*(self._layers_of(image) for image in self.images.values()))
            kept |= set().union(*(pinned for _, pinned in self.pins.values())) | set(self.keys.values())
            kept |= {parent for layer in self.layers if (parent := self.parents[layer])}
            lost = (layers & self.layers) - kept
            layers = {parent for layer in lost if (parent := self.parents[layer])}
            self.layers -= lost


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=max(settings().max_examples // 4, 1), stateful_step_count=25)
