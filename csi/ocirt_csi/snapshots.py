"""Making and taking away snapshots, and groups of them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import replace

from ocirt_csi import model
from ocirt_csi.driver import Driver, full_is_exhausted, now
from ocirt_csi.errors import Error
from ocirt_csi.model import Group, Snapshot, Volume
from ocirt_csi.pools.pool import Pool
from ocirt_csi.volumes import Volumes

_WORD = 12


class Snapshots:
    """The operations on snapshots. All raise Error, OSError."""

    def __init__(self, driver: Driver, volumes: Volumes) -> None:
        self._driver = driver
        self._volumes = volumes

    def create(self, name: str, volume_id: str) -> Snapshot:
        """The snapshot with a name, which is made if it is not there. Raises Error("exists") if it is of another volume."""
        driver = self._driver
        with driver.keys.hold(f"snapshot name {name}"):
            there = driver.store.named(Snapshot, name)
            if there is not None and there.phase == model.READY:
                if there.volume != volume_id:
                    raise Error("exists", "a snapshot of this name exists, of another volume", subject=name, hint=there.volume)
                return there
            if there is not None:
                self._take_away(there)
            with driver.keys.hold(f"volume {volume_id}"):
                volume = driver.volume(volume_id)
                return self._make(_of(volume, name), self._volumes.still(volume))

    def delete(self, identifier: str) -> None:
        """Take a snapshot away; one that is not there is. Raises Error("state") for one of a group."""
        driver = self._driver
        with driver.keys.hold(f"snapshot {identifier}"):
            snapshot = driver.store.get(Snapshot, identifier)
            if snapshot is None:
                return
            if snapshot.group and driver.store.get(Group, snapshot.group) is not None:
                raise Error("invalid", "is part of a group, and goes with it", subject=identifier, hint=snapshot.group)
            self._take_away(snapshot)

    def create_group(self, name: str, volume_ids: Sequence[str]) -> Group:
        """The group with a name, which is made if it is not there: all of it or nothing."""
        driver = self._driver
        ids = tuple(sorted(set(volume_ids)))
        with driver.keys.hold(f"group name {name}"):
            there = driver.store.named(Group, name)
            if there is not None and there.phase == model.READY:
                if there.volumes != ids:
                    raise Error("exists", "a group of this name exists, of other volumes", subject=name)
                return there
            if there is not None:
                self._take_group_away(there)
            with driver.keys.hold(*(f"volume {one}" for one in ids)):
                volumes = [driver.volume(one) for one in ids]
                identifier = f"grp-{secrets.token_hex(_WORD)}"
                made = [_of(one, f"{identifier}/{one.id}", identifier) for one in volumes]
                group = Group(id=identifier, name=name, phase=model.MAKING, volumes=ids, created=now())
                group = driver.store.put(replace(group, snapshots=tuple(one.id for one in made)))
                try:
                    with self._volumes.still(*volumes):
                        for one in made:
                            self._make(one, contextlib.nullcontext())
                except BaseException:
                    with contextlib.suppress(Error, OSError):
                        self._take_group_away(group)
                    raise
                return driver.store.put(replace(group, phase=model.READY))

    def delete_group(self, identifier: str) -> None:
        """Take a group and its snapshots away; one that is not there is."""
        driver = self._driver
        with driver.keys.hold(f"group {identifier}"):
            group = driver.store.get(Group, identifier)
            if group is None:
                return
            with driver.keys.hold(*(f"snapshot {one}" for one in group.snapshots)):
                self._take_group_away(group)

    def take_in(self, name: str, pool: Pool, folder: str, volume: str, size: int, created: int) -> Snapshot:
        """A snapshot of what a folder of the pool holds as its data, which came from elsewhere. volume: it is of, here or not."""
        driver = self._driver
        with driver.keys.hold(f"snapshot name {name}"):
            if driver.store.named(Snapshot, name) is not None:
                raise Error("exists", "a snapshot of this name exists", subject=name)
            identifier = f"snap-{secrets.token_hex(_WORD)}"
            snapshot = Snapshot(
                id=identifier,
                name=name,
                phase=model.MAKING,
                pool=pool.name,
                place=identifier,
                volume=volume,
                size=size,
                layout=model.SUBVOLUME,
                created=created,
            )
            with pool.promised(snapshot.id, 0, driver.volumes_in(pool)):
                return self._finish(pool, snapshot, folder, contextlib.nullcontext())

    def undo(self, snapshot: Snapshot) -> None:
        """For a fresh start: undo what is half done."""
        if snapshot.phase == model.READY:
            return
        self._volumes.thaw(snapshot.volume)
        pool = self._driver.pool_of(snapshot)
        if snapshot.phase == model.MAKING and pool.is_made(snapshot):
            self._driver.store.put(replace(snapshot, phase=model.READY))
        else:
            self._take_away(snapshot)

    def undo_group(self, group: Group) -> None:
        """The same for a group."""
        if group.phase != model.READY:
            for one in group.volumes:
                self._volumes.thaw(one)
            self._take_group_away(group)

    def _make(self, snapshot: Snapshot, still: contextlib.AbstractContextManager[None]) -> Snapshot:
        """Make a snapshot. still: what holds its volume; only once the row says so, for nobody could let go of it otherwise."""
        driver = self._driver
        volume = driver.volume(snapshot.volume)
        pool = driver.pool_of(volume)
        with pool.promised(snapshot.id, 0, driver.volumes_in(pool), volume):
            return self._finish(pool, snapshot, pool.place(volume), still)

    def _finish(self, pool: Pool, snapshot: Snapshot, source: str, still: contextlib.AbstractContextManager[None]) -> Snapshot:
        """Make it of what lies in the place `source`; what was made is undone if it fails."""
        driver = self._driver
        snapshot = driver.store.put(snapshot)
        try:
            with full_is_exhausted(f"pool {pool.name}"):
                place = pool.make_place(snapshot)
                with still:
                    pool.back_end(snapshot).snapshot(source, place)
                snapshot = replace(snapshot, phase=model.READY)
                pool.note(snapshot, first=True)
        except BaseException:
            with contextlib.suppress(Error, OSError):
                self._take_away(snapshot)
            raise
        return driver.store.put(snapshot, lasting=not pool.outlasts_power)  # its note says so already: see `undo`

    def _take_away(self, snapshot: Snapshot) -> None:
        driver = self._driver
        pool = driver.pool_of(snapshot)
        snapshot = driver.store.put(replace(snapshot, phase=model.REMOVING))
        pool.remove(snapshot)
        driver.forget(snapshot)

    def _take_group_away(self, group: Group) -> None:
        driver = self._driver
        group = driver.store.put(replace(group, phase=model.REMOVING))
        for identifier in group.snapshots:
            snapshot = driver.store.get(Snapshot, identifier)
            if snapshot is not None:
                self._take_away(snapshot)
        driver.store.delete(group, lasting=False)


def _of(volume: Volume, name: str, group: str = "") -> Snapshot:
    identifier = f"snap-{secrets.token_hex(_WORD)}"
    return Snapshot(
        id=identifier,
        name=name,
        phase=model.MAKING,
        pool=volume.pool,
        place=identifier,
        volume=volume.id,
        size=volume.size,
        layout=volume.layout,
        block=volume.block,
        fs_type=volume.fs_type,
        created=now(),
        group=group,
    )
