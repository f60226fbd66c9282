"""What a fresh start makes of the one before: what was half done is ended or undone, what has no owner is let go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error
from ocirt_csi.kernel import loops, mounts
from ocirt_csi.model import READY, REMOVING, Attachment, Group, Record, Snapshot, Use, Volume
from ocirt_csi.pools.pool import Pool
from ocirt_csi.snapshots import Snapshots
from ocirt_csi.store import Store
from ocirt_csi.uses import Uses
from ocirt_csi.volumes import Volumes

_BOOT = "boot"
_log = logging.getLogger(__name__)


def recover(driver: Driver, volumes: Volumes, snapshots: Snapshots, uses: Uses, boot: str) -> None:
    """Do it, one thing at a time: one that fails is noted in the log, and stays for the next attempt. boot: this one's id."""
    store = driver.store
    booted = store.meta(_BOOT) != boot
    if booted:
        # Mounts and devices ended with the machine's life before, and a CO asks for all of them anew.
        store.delete(*store.all(Use))
    for attachment in store.all(Attachment):
        if store.get(Volume, attachment.volume) is None:
            store.delete(attachment)
    for use in store.all(Use):
        _done(partial(uses.undo, use), use)
    for gone in store.gone:
        if isinstance(gone, Volume | Snapshot):
            _done(partial(_own_again, driver, gone), gone)
    driver.purge()
    for group in store.all(Group):
        _done(partial(snapshots.undo_group, group), group)
    for snapshot in store.all(Snapshot):
        _done(partial(snapshots.undo, snapshot), snapshot)
    for volume in store.all(Volume):
        _done(partial(volumes.undo, volume), volume)
    if booted:
        for one in store.things():
            if one.phase == READY:
                _done(partial(_mend, driver, one), one)
        store.set_meta(_BOOT, boot)
    release_ownerless(driver)


def _own_again(driver: Driver, gone: Volume | Snapshot) -> None:
    """See whether a power cut brought back what was taken away: it has to be once more."""
    if driver.pool_of(gone).has_place(gone):
        driver.store.put(replace(gone, phase=REMOVING))


def _mend(driver: Driver, one: Volume | Snapshot) -> None:
    driver.pool_of(one).mend(one)


def _done(undo: Callable[[], None], one: Record) -> None:
    try:
        undo()
    except (Error, OSError) as err:
        _log.error("%s %s stays %s: %s", one.kind, one.id, one.phase, err)


def release_ownerless(driver: Driver) -> None:
    """Let go of loop devices of ours that nothing uses."""
    for pool in driver.pools.values():
        for device, why_not in ownerless(driver.store, pool).items():
            if not why_not:
                loops.detach(device)


def ownerless(store: Store, pool: Pool) -> dict[str, str]:
    """Loop devices of a pool that no use of the state's needs, and for each what speaks against letting go of it, or "".

    What the state does not know may be in use all the same, if the state was lost; and what it knows may be at a path of before.
    """
    used = {use.volume for use in store.all(Use)}
    known = {one.place: one.id in used for one in store.all(Volume)}
    table = mounts.table()
    found = {}
    for device, place in pool.images.marks().items():
        if known.get(place):
            continue
        points = mounts.of_device(device, table)
        if points:
            found[device] = f"it is at {points[0]}"
        else:
            found[device] = "" if place in known else "the state does not know its volume"
    return found


def boot() -> str:
    """The id of this life of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
