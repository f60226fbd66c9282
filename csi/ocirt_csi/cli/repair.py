"""fsck and gc: state and pools compared, and made to agree. To change anything they need the state for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ocirt_csi import model
from ocirt_csi.cli.client import Client, looking
from ocirt_csi.cli.tables import show
from ocirt_csi.config import Config
from ocirt_csi.errors import Error
from ocirt_csi.kernel import loops
from ocirt_csi.locks import driver_runs
from ocirt_csi.model import Group, Snapshot, Use, Volume
from ocirt_csi.pools.pool import Note, Pool
from ocirt_csi.recovery import ownerless
from ocirt_csi.store import Store

_COLUMNS = ("what", "where", "done")


@dataclass(frozen=True, slots=True)
class _Sight:
    store: Store
    pools: dict[str, Pool]


def fsck(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Say what does not agree, and give the state back what it lost; 1 if something is left that is wrong."""
    dry = "dry-run" in flags
    rows: list[dict[str, Any]] = []
    with _sight(config, dry=dry) as sight:
        known = {one.place for one in sight.store.things()}
        for pool in sight.pools.values():
            for note in _unknown(pool, known):
                if isinstance(note.thing, Volume | Snapshot):
                    rows.append(_row(f"the state does not know {_called(note.thing)}", note.place, "" if dry else "adopted"))
                    if not dry:
                        sight.store.put(replace(note.thing, pool=pool.name, phase=model.READY, sequence=0))
                elif note.strange:
                    rows.append(_row(f"none of ours: {note.strange}", note.place, ""))
                else:
                    rows.append(_row("half of something", note.place, "see gc"))
        if not dry:
            _adopt_groups(sight.store)
        for one in sight.store.things():
            owner = sight.pools.get(one.pool)
            damage = (
                owner.back_end(one).damage(owner.place(one), one) if owner is not None else f"the pool {one.pool} cannot be used"
            )
            if damage and one.phase == model.READY:
                rows.append(_row(f"{_called(one)}: {damage}", one.id, ""))
    show(rows, _COLUMNS, as_json="json" in flags)
    return int(any(not row["done"] for row in rows))


def gc(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Free what nothing owns: halves of things, loop devices, inline volumes whose target is gone."""
    dry = "dry-run" in flags
    rows: list[dict[str, Any]] = []
    done = "" if dry else "freed"
    with _sight(config, dry=dry) as sight:
        store = sight.store
        known = {one.place for one in store.things()}
        used = {use.volume for use in store.all(Use) if os.path.lexists(use.id)}
        for pool in sight.pools.values():
            for device, why_not in ownerless(store, pool).items():
                text = f"left alone: {why_not}" if why_not else "a loop device that nothing uses"
                rows.append(_row(text, device, "" if why_not else done))
                if not why_not and not dry:
                    loops.detach(device)
            for path in pool.left_over():
                rows.append(_row("what a receive left that was ended", path, done))
                if not dry:
                    pool.sweep(path)
            for note in _unknown(pool, known):
                if note.strange:
                    rows.append(_row(f"left alone: {note.strange}", note.place, ""))
                elif note.thing is None:
                    rows.append(_row("half of something", note.place, done))
                    if not dry:
                        pool.sweep(note.place)
        for one in store.all(Volume):
            if one.ephemeral and one.id not in used and one.pool in sight.pools:
                rows.append(_row("an inline volume without its pod", one.id, done))
                if not dry:
                    sight.pools[one.pool].remove(one)
                    store.delete(one, *(use for use in store.all(Use) if use.volume == one.id))
    show(rows, _COLUMNS, as_json="json" in flags)
    return 0


@contextmanager
def _sight(config: Config, *, dry: bool) -> Iterator[_Sight]:
    if dry:
        with looking(config) as (_, store, pools):
            yield _Sight(store, pools)
        return
    if driver_runs(config.state):
        raise Error("in-use", "the driver runs", subject=config.state, hint="stop it, or look with --dry-run")
    with Client(config) as client:
        driver = client.driver
        yield _Sight(driver.store, driver.pools)


def _unknown(pool: Pool, known: set[str]) -> Iterator[Note]:
    """What the state does not know. A note that speaks of another place is as strange as one that cannot be read."""
    for note in pool.notes():
        name = os.path.basename(note.place)
        if name in known:
            continue
        if note.thing is not None and not (isinstance(note.thing, Volume | Snapshot) and note.thing.place == name):
            yield Note(note.place, strange="its note is of something else")
        else:
            yield note


def _adopt_groups(store: Store) -> None:
    """Groups are told by their snapshots."""
    members: dict[str, list[Snapshot]] = {}
    for one in store.all(Snapshot):
        if one.group and store.get(Group, one.group) is None:
            members.setdefault(one.group, []).append(one)
    for identifier, found in members.items():
        ids, volumes = tuple(one.id for one in found), tuple(sorted(one.volume for one in found))
        store.put(Group(id=identifier, name=identifier, volumes=volumes, snapshots=ids, created=found[0].created))


def _called(one: Volume | Snapshot) -> str:
    return f"the {one.kind} {one.name or one.id}"


def _row(what: str, where: str, done: str) -> dict[str, Any]:
    return {"what": what, "where": where, "done": done}
