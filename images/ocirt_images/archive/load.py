"""Takes images out of an archive into the store: each blob is verified as it is read, and an image gets its names last.

What was taken for nothing (a stream has all of an archive before it says which images are in it) goes when the lease ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images import held, manifest, mediatypes, platforms
from ocirt_images.archive import dockerarchive, files, layout, streams
from ocirt_images.config import ImageConfig
from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.events import Done, LayerDone, LayerKnown, LayerProgress, LayerWaiting, OnEvent, Resolved, ignore
from ocirt_images.manifest import Index, Manifest
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ocirt_images.archive.contents import Archive, Entry
    from ocirt_images.archive.files import Files
    from ocirt_images.archive.streams import Reader
    from ocirt_images.digest import Digest
    from ocirt_images.platforms import Platform
    from ocirt_images.store import Lease, Store

_SHOWN = 1 << 20  # bytes from which on a blob of a stream is worth a line


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of an archive.

    platform: the one to choose, in an index; everything: keep what is there for other platforms too
    name: the name for an image without one, or the repository for one that has only a tag
    """

    platform: Platform = field(default_factory=platforms.host)
    everything: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that is in the store now. names: if there are none, it is known by the digest of its target alone."""

    names: tuple[str, ...]
    target: Descriptor
    image_id: Digest


def load(store: Store, source: Path | int, subject: str, wish: Wish, on_event: OnEvent = ignore) -> list[Loaded]:
    """All images of an archive at a path or in a descriptor; `subject` is what errors call it.

    Raises Error("invalid", "unsupported") for what is no archive of images, Error("corrupt") for content that is not what its
    digest says, Error("not-found") if there is none for the platform. Images that came before stay.
    """
    with store.leases.lease(f"load {subject}") as lease:
        taker = Taker(store, lease, on_event)
        with files.opened(source, subject, taker.keep, store.root) as found:
            return taker.take(read(found), wish)


def read(found: Files) -> Archive:
    """What an archive is, by the files in it. Raises Error("invalid") for what is none."""
    if found.has(layout.INDEX):
        return layout.read(found)
    if found.has(dockerarchive.LIST):
        return dockerarchive.read(found)
    if found.has(dockerarchive.OLD):
        raise Error(
            "unsupported", "written by docker before 1.10", subject=found.subject, hint="load and save it with a newer one"
        )
    hint = f"an OCI image layout has {layout.INDEX}, docker save writes {dockerarchive.LIST}"
    raise Error("invalid", "no archive of images", subject=found.subject, hint=hint)


class Taker:
    """Takes blobs and images into a store."""

    def __init__(self, store: Store, lease: Lease, on_event: OnEvent = ignore) -> None:
        self._store = store
        self._lease = lease
        self._say = on_event

    def take(self, archive: Archive, wish: Wish) -> list[Loaded]:
        """All images of an archive. Raises what `load` raises."""
        if not archive.entries:
            raise Error("invalid", "no images in it", subject=archive.files.subject)
        return [self.image(archive, entry, wish) for entry in archive.entries]

    def keep(self, digest: Digest, size: int, reader: Reader) -> None:
        """Take a blob of a stream, which says only later what it is. Raises Error("corrupt")."""
        say = self._say if size >= _SHOWN else ignore
        say(LayerKnown(digest, size))
        self._keep(digest, size, reader, say)

    def _keep(self, digest: Digest, size: int, reader: Reader, say: OnEvent) -> None:
        """Take a blob, verified."""

        def waiting(moved: int) -> None:
            say(LayerWaiting(digest, moved))

        described = Descriptor(media_type="", digest=digest, size=size)
        ingest = self._store.content.ingest(described, self._lease, waiting=waiting)
        if ingest is None:
            say(LayerDone(digest, "exists"))
            return
        with ingest:
            position = 0
            while data := reader.read(streams.CHUNK):
                # An earlier try may have left a beginning.
                if position + len(data) > ingest.offset:
                    ingest.write_at(position, data)
                position += len(data)
                say(LayerProgress(digest, position))
            ingest.commit()
        say(LayerDone(digest))

    def image(self, archive: Archive, entry: Entry, wish: Wish) -> Loaded:
        """One image of an archive. Raises what `load` raises."""
        subject = archive.files.subject
        target = _choose(entry.targets, wish, subject) if len(entry.targets) > 1 else entry.targets[0]
        chosen, found = self._descend(archive, target, wish, 0)
        found.check_runnable(str(chosen.digest))
        names = entry.names or archive.tags.get(found.config.digest) or _wished(entry, wish)
        self._blob(archive, found.config, str(chosen.digest), ignore)
        config = ImageConfig.read(self._store.content.read(found.config.digest), str(found.config.digest))
        config.check_layers(found, str(found.config.digest))
        self._say(Resolved(names[0] if names else str(target.digest), target.digest, str(config.platform)))
        manifests = [(chosen, found)]
        if wish.everything:
            manifests += self._others(archive, target, chosen, wish)
        for described, one in manifests:
            for layer in one.layers:
                self._say(LayerKnown(layer.digest, layer.size))
            self._blob(archive, one.config, str(described.digest), ignore)
            for layer in one.layers:
                self._blob(archive, layer, str(described.digest), self._say)
        kept = replace(target, annotations={}, platform=None)
        for name in names or (str(target.digest),):
            self._store.images.put(
                name, kept, manifest=chosen.digest, config=found.config.digest, lease=self._lease, pulled_by="ocirt load"
            )
            self._say(Done(name, target.digest, found.config.digest))
        return Loaded(names, kept, found.config.digest)

    def _descend(self, archive: Archive, target: Descriptor, wish: Wish, depth: int) -> tuple[Descriptor, Manifest]:
        """The manifest for the wanted platform, with all indexes on the way taken."""
        if depth > held.DEEPEST:
            raise Error("invalid", f"more than {held.DEEPEST} indexes in one another", subject=str(target.digest))
        found = self._manifest(archive, target)
        if isinstance(found, Manifest):
            return target, found
        below = _choose(found.manifests, wish, str(target.digest))
        return self._descend(archive, below, wish, depth + 1)

    def _others(self, archive: Archive, target: Descriptor, chosen: Descriptor, wish: Wish) -> list[tuple[Descriptor, Manifest]]:
        """The manifests for other platforms below an index, as far as the archive has them, attestations too."""
        taken: list[tuple[Descriptor, Manifest]] = []
        queue = [(target, 0)]
        while queue:
            one, depth = queue.pop(0)
            if one.digest == chosen.digest or depth > held.DEEPEST or not self._has(archive, one):
                continue
            found = self._manifest(archive, one)
            if isinstance(found, Index):
                queue += [(below, depth + 1) for below in found.manifests if below.media_type in mediatypes.KNOWN]
            else:
                taken.append((one, found))
        return taken

    def _manifest(self, archive: Archive, described: Descriptor) -> Manifest | Index:
        """A manifest or index, taken into the store."""
        subject = str(described.digest)
        made = archive.made.get(described.digest)
        if made is not None:
            self._store.content.put(made, described.digest, self._lease)
        elif described.size > manifest.LIMIT:
            raise Error(
                "invalid", f"a manifest of {described.size} bytes", subject=subject, hint=f"{manifest.LIMIT} at most are read"
            )
        else:
            self._blob(archive, described, archive.files.subject, ignore)
        return manifest.read(self._store.content.read(described.digest), described.media_type, subject)

    def _has(self, archive: Archive, described: Descriptor) -> bool:
        return self._store.content.has(described.digest) or archive.files.has(archive.place(described.digest))

    def _blob(self, archive: Archive, described: Descriptor, holder: str, say: OnEvent) -> None:
        """Take what a descriptor points to."""
        digest = described.digest

        def check(size: int) -> None:
            if size != described.size:
                what = f"it has {size} bytes, and {holder} says {described.size}"
                raise Error("corrupt", what, subject=f"{archive.files.subject}: {digest}")

        self._lease.pin([digest])
        if self._store.content.has(digest):
            check(self._store.content.size(digest))
            say(LayerDone(digest, "exists"))
            return
        with archive.files.open(archive.place(digest)) as (reader, size):
            check(size)
            self._keep(digest, size, reader, say)


def _choose(offered: Sequence[Descriptor], wish: Wish, subject: str) -> Descriptor:
    """Which of an index's entries is wanted."""
    found = manifest.choose(offered, wish.platform)
    if found is None:
        there = manifest.offered(offered)
        hint = f"there are: {there}" if there else "it holds no images"
        raise Error("not-found", f"nothing for {wish.platform}", subject=subject, hint=hint)
    return found


def _wished(entry: Entry, wish: Wish) -> tuple[str, ...]:
    """The name for an image that has none in the archive."""
    if not wish.name:
        return ()
    tagged = ":" in wish.name.rpartition("/")[2] or "@" in wish.name
    name = Reference.full(wish.name if tagged or not entry.tag else f"{wish.name}:{entry.tag}")
    if not name:
        raise Error("invalid", "no name for an image", subject=wish.name, hint="HOST/PATH:TAG")
    return (name,)
