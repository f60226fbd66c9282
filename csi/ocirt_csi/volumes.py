"""Making, growing and taking away volumes: each step is journalled before it is begun, and undone if it fails."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ocirt_csi import model, parameters
from ocirt_csi.driver import Driver, full_is_exhausted, now
from ocirt_csi.errors import BusyError, Error, RangeError
from ocirt_csi.iolimits import limit
from ocirt_csi.kernel import filesystems
from ocirt_csi.model import DEVICES, IMAGE, Attachment, Snapshot, Volume
from ocirt_csi.pools.base import GIB
from ocirt_csi.pools.pool import Pool

DEFAULT_SIZE = GIB
_WORD = 12  # bytes of an id


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks for. required, limit: bytes, 0 for no bound; source: ("snapshot" or "volume", id), or ()."""

    name: str
    block: bool = False
    fs_type: str = ""
    required: int = 0
    limit: int = 0
    parameters: dict[str, str] = field(default_factory=dict)
    mutable: dict[str, str] = field(default_factory=dict)
    source: tuple[str, ...] = ()


class Volumes:
    """The operations on volumes. All raise Error, OSError."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def create(self, wanted: Wanted) -> Volume:
        """The volume with a name, which is made if it is not there. Raises Error("exists") if it is another."""
        driver = self._driver
        with driver.keys.hold(f"volume name {wanted.name}"):
            there = driver.store.named(Volume, wanted.name)
            if there is not None and there.phase in (model.READY, model.GROWING):
                self._compare(there, wanted)
                return there
            if there is not None:  # an attempt that could not be undone
                with driver.keys.hold(f"volume {there.id}"):
                    self._take_away(there)
            with self._source_held(*wanted.source):
                return self._create(wanted)

    @contextlib.contextmanager
    def _source_held(self, kind: str = "", identifier: str = "") -> Iterator[None]:
        """Hold what is copied: with others who copy it, but alone where its file system is held still for the copy.

        Whoever came second would find it still already, and go on copying when the first lets go of it.
        """
        keys = self._driver.keys
        if not kind:
            yield
            return
        held = f"{kind} {identifier}"
        alone = kind == "volume" and self._is_frozen_for_a_copy(identifier)
        with keys.hold(*([held] if alone else []), shared=[held]):
            if not alone and kind == "volume" and self._is_frozen_for_a_copy(identifier):
                raise BusyError("another call is at work on it", subject=held, hint="try again")  # it was staged just now
            yield

    def _is_frozen_for_a_copy(self, identifier: str) -> bool:
        volume = self._driver.store.get(Volume, identifier)
        if volume is None or not self._driver.uses(identifier):
            return False
        return self._driver.pool_of(volume).back_end(volume).is_copied_frozen(volume)

    def _create(self, wanted: Wanted) -> Volume:
        source = self._source(wanted)
        pool = self._pool(wanted, source)
        layout, fs_type = pool.layout(block=wanted.block, fs_type=wanted.fs_type or (source.fs_type if source else ""))
        if source is not None and (layout, fs_type, wanted.block) != (source.layout, source.fs_type, source.block):
            kind = "a block volume" if source.block else source.fs_type or source.layout
            raise Error("invalid", f"its source is {kind}, and it is to be another", subject="volume_content_source")
        size, charge = _size(pool, layout, fs_type, wanted, source.size if source else 0)
        identifier = f"vol-{secrets.token_hex(_WORD)}"
        volume = Volume(
            id=identifier,
            name=wanted.name,
            phase=model.MAKING,
            pool=pool.name,
            place=identifier,
            size=size,
            charge=charge,
            layout=layout,
            block=wanted.block,
            fs_type=fs_type,
            parameters=wanted.parameters,
            mutable=wanted.mutable,
            source=wanted.source,
            created=now(),
        )
        return self.make(pool, volume, source)

    def make(self, pool: Pool, volume: Volume, source: Volume | Snapshot | None = None) -> Volume:
        """Make a volume that is not there yet, empty or of a source. What it has made is undone if it fails."""
        driver = self._driver
        copied = source if isinstance(source, Volume) else None
        with pool.promised(volume.place, volume.charge, driver.volumes_in(pool), copied):
            volume = driver.store.put(volume)
            try:
                with full_is_exhausted(f"pool {pool.name}"):
                    place = pool.make_place(volume)
                    if source is None:
                        pool.back_end(volume).make(place, volume)
                    else:
                        with self.still(source):
                            pool.back_end(volume).copy(pool.place(source), place, volume)
                    pool.back_end(volume).modify(place, volume)
                    volume = replace(volume, phase=model.READY)
                    pool.note(volume, first=True)
            except BaseException:
                # The first error is what the caller has to hear; what is left is taken away by the next attempt.
                with contextlib.suppress(Error, OSError):
                    self._take_away(volume)
                raise
            return driver.store.put(volume, lasting=not pool.outlasts_power)  # its note says so already: see `undo`

    def delete(self, identifier: str) -> None:
        """Take a volume away; one that is not there is. Raises Error("in-use")."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}"):
            volume = driver.store.get(Volume, identifier)
            if volume is None:
                return
            self.check_unused(volume)
            self._take_away(volume)

    def check_unused(self, volume: Volume) -> None:
        """Raises Error("in-use") with the place where it is used."""
        driver = self._driver
        for use in driver.uses(volume.id):
            raise Error("in-use", "is in use", subject=volume.id, hint=f"at {use.id}")
        for one in driver.store.of(Attachment, volume.id):
            raise Error("in-use", "is published", subject=volume.id, hint=f"to the node {one.node}")

    def expand(self, identifier: str, required: int, limit: int) -> Volume:
        """Let a volume have at least `required` bytes. Raises RangeError, Error("exhausted")."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}"):
            volume = driver.volume(identifier)
            if limit and volume.size > limit:
                raise RangeError(f"it has {volume.size} bytes already", subject="limit_bytes")
            if required <= volume.size:
                return self.finish_growing(volume) if volume.phase == model.GROWING else volume
            pool = driver.pool_of(volume)
            size, charge = _fitted(pool, volume.layout, volume.fs_type, required, limit)
            with pool.promised(f"{volume.id} grows", charge - volume.charge, driver.volumes_in(pool)):
                volume = driver.store.put(replace(volume, phase=model.GROWING, target=size))
                return self.finish_growing(volume)

    def finish_growing(self, volume: Volume) -> Volume:
        """What follows once `target` is written down. If it cannot be done the volume is what it was."""
        driver = self._driver
        pool = driver.pool_of(volume)
        back_end = pool.back_end(volume)
        try:
            with full_is_exhausted(f"pool {pool.name}"):
                back_end.grow(pool.place(volume), volume)
                charge = back_end.charge(volume.target, volume.fs_type)
                grown = replace(volume, phase=model.READY, size=volume.target, charge=charge, target=0)
                pool.note(grown)
        except Error as err:
            if err.code == "exhausted":
                driver.store.put(replace(volume, phase=model.READY, target=0))
            raise
        return driver.store.put(grown, lasting=False)  # else it is grown once more

    def modify(self, identifier: str, mutable: dict[str, str]) -> Volume:
        """Keep other mutable parameters; those that are not named stay."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}"):
            volume = driver.volume(identifier)
            changed = replace(volume, mutable={**volume.mutable, **parameters.mutable(mutable, volume.layout)})
            pool = driver.pool_of(volume)
            pool.back_end(volume).modify(pool.place(volume), changed)
            pool.note(changed)
            changed = driver.store.put(changed)
            for use in driver.uses(identifier):
                if not use.staged:
                    limit(pool, changed, use.id)
            return changed

    @contextlib.contextmanager
    def still(self, *sources: Volume | Snapshot) -> Iterator[None]:
        """Hold what is written to volumes in the `with`, as far as their layout does not do so by itself."""
        driver = self._driver
        for source in sources:
            back_end = driver.pool_of(source).back_end(source)
            uses = driver.uses(source.id) if isinstance(source, Volume) and not back_end.copies_in_use else []
            if uses:
                hint = "a pool with backend=loop copies volumes that are in use"
                raise Error("in-use", f"is in use at {uses[0].id}, and copied file by file", subject=source.id, hint=hint)
        with contextlib.ExitStack() as undo:  # which thaws all, whatever the others' thawing says
            for source in sources:
                if not isinstance(source, Volume):
                    continue
                pool = driver.pool_of(source)
                back_end = pool.back_end(source)
                if source.block and source.layout == IMAGE:
                    back_end.flush(pool.place(source), source)
                if not back_end.is_copied_frozen(source):
                    continue
                for use in driver.uses(source.id):
                    if use.staged or source.ephemeral:
                        filesystems.freeze(use.id)
                        undo.callback(filesystems.thaw, use.id)
            yield

    def undo(self, volume: Volume) -> None:
        """For a fresh start: end or undo what is half done."""
        if volume.phase == model.MAKING and volume.source[:1] == ("volume",):
            self.thaw(volume.source[1])
        if volume.phase == model.MAKING and self._driver.pool_of(volume).is_made(volume):
            self._driver.store.put(replace(volume, phase=model.READY))
        elif volume.phase == model.GROWING:
            self.finish_growing(volume)
        elif volume.phase in (model.MAKING, model.REMOVING):
            self._take_away(volume)

    def thaw(self, identifier: str) -> None:
        """End what `still` began in a life before."""
        for use in self._driver.uses(identifier):
            with contextlib.suppress(OSError):
                filesystems.thaw(use.id)

    def _take_away(self, volume: Volume) -> None:
        driver = self._driver
        pool = driver.pool_of(volume)
        volume = driver.store.put(replace(volume, phase=model.REMOVING))
        pool.remove(volume)
        driver.forget(volume)

    def _source(self, wanted: Wanted) -> Volume | Snapshot | None:
        if not wanted.source:
            return None
        kind, identifier = wanted.source
        return self._driver.snapshot(identifier) if kind == "snapshot" else self._driver.volume(identifier)

    def _pool(self, wanted: Wanted, source: Volume | Snapshot | None) -> Pool:
        name = wanted.parameters.get("class", "")
        if source is not None and name in ("", source.pool):
            return self._driver.pool_of(source)
        if source is not None:
            raise Error("invalid", f"its source is in the pool {source.pool!r}", subject="parameters: class")
        pool = self._driver.pool(name or self._driver.default)
        pool.check()
        return pool

    def _compare(self, there: Volume, wanted: Wanted) -> None:
        differences = {
            "parameters": there.parameters != wanted.parameters,
            "mutable_parameters": there.mutable != wanted.mutable,
            "volume_content_source": there.source != wanted.source,
            "volume_capabilities": there.block != wanted.block
            or (bool(wanted.fs_type) and (there.fs_type or "btrfs") != wanted.fs_type),
            "capacity_range": there.size < wanted.required or (wanted.limit > 0 and there.size > wanted.limit),
        }
        for name, differs in differences.items():
            if differs:
                raise Error("exists", f"a volume of this name exists, with another {name}", subject=wanted.name)


def _size(pool: Pool, layout: str, fs_type: str, wanted: Wanted, least: int) -> tuple[int, int]:
    """Size and charge of a new volume. Raises RangeError."""
    required = wanted.required
    if not required:
        required = least or DEFAULT_SIZE
        if wanted.limit:
            required = max(min(required, wanted.limit), least)
    if required < least:
        raise RangeError(f"its source needs {least} bytes", subject="required_bytes")
    return _fitted(pool, layout, fs_type, required, wanted.limit)


def _fitted(pool: Pool, layout: str, fs_type: str, required: int, limit: int) -> tuple[int, int]:
    back_end = pool.back_ends[layout]
    size = max(required, back_end.least)
    charge = back_end.charge(size, fs_type)
    if layout in DEVICES and not fs_type:
        size = charge
    if limit and size > limit:
        raise RangeError(f"a volume of this kind has {size} bytes or more", subject="limit_bytes")
    return size, charge
