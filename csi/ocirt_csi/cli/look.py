"""list, show, usage, doctor: they look beside a driver that runs, and change nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from ocirt_csi.cli.client import looking
from ocirt_csi.cli.tables import show as show_table
from ocirt_csi.config import Config
from ocirt_csi.errors import Error
from ocirt_csi.model import Snapshot, Use, Volume
from ocirt_csi.pools.devices import available, program
from ocirt_csi.pools.pool import Pool
from ocirt_csi.store import Store


def list_all(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Volumes and snapshots as a table."""
    with looking(config) as (_, store, pools):
        rows = [_row(store, pools, one) for one in store.things()]
    show_table(rows, ("name", "kind", "size", "own", "class", "layout", "at"), as_json="json" in flags)
    return 0


def show(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """All that is known of one of them, by name or id."""
    with looking(config) as (_, store, pools):
        thing = find(store, words[0])
        pool = pools.get(thing.pool)
        found: dict[str, Any] = {**asdict(thing), **_row(store, pools, thing)}
        if pool is not None:
            found["path"] = pool.place(thing)
            found["damage"] = pool.back_end(thing).damage(pool.place(thing), thing)
    if "json" in flags:
        sys.stdout.write(json.dumps(found, indent=2, sort_keys=True) + "\n")
        return 0
    width = max(map(len, found))
    for name, value in sorted(found.items()):
        text = value if isinstance(value, str) else json.dumps(value)
        sys.stdout.write(f"{name:<{width}}  {text}\n")
    return 0


def usage(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """What pools have, and what they promised."""
    rows = []
    with looking(config) as (_, store, pools):
        for pool in pools.values():
            space = pool.space([one for one in store.all(Volume) if one.pool == pool.name])
            rows.append({"class": pool.name, "pool": pool.root, **asdict(space), "over": str(pool.settings.over)})
    show_table(rows, ("class", "pool", "total", "free", "promised", "available", "over"), as_json="json" in flags)
    return 0


def doctor(config: Config, words: list[str], flags: dict[str, str]) -> int:
    """Why each pool keeps volumes as it does, and what this machine lacks for more."""
    rows = []
    for one in config.settings().pools:
        try:
            pool = Pool(one)
            rows.append({"class": one.name, "pool": one.directory, "file system": pool.kind, "why": pool.why})
        except (Error, OSError) as err:
            rows.append({"class": one.name, "pool": one.directory, "file system": "-", "why": f"cannot be used: {err}"})
    for name in ("ext4", "xfs", "btrfs"):
        if name not in available():
            why = f"volumes cannot have it: {program(name)} is missing"
            rows.append({"class": "-", "pool": "-", "file system": name, "why": why})
    show_table(rows, ("class", "pool", "file system", "why"), as_json="json" in flags)
    return int(any(row["why"].startswith("cannot") for row in rows))


def find(store: Store, word: str) -> Volume | Snapshot:
    """A volume or snapshot by its name or id. Raises Error("not-found")."""
    for found in (store.named(Volume, word), store.get(Volume, word), store.named(Snapshot, word), store.get(Snapshot, word)):
        if found is not None:
            return found
    raise Error("not-found", "there is no such volume or snapshot", subject=word, hint="see ocirt-csi list")


def _row(store: Store, pools: dict[str, Pool], one: Volume | Snapshot) -> dict[str, Any]:
    pool = pools.get(one.pool)
    return {
        "name": one.name or one.id,
        "kind": one.kind,
        "size": one.size,
        "own": pool.back_end(one).exclusive(pool.place(one)) if pool is not None else 0,
        "class": one.pool,
        "layout": f"{one.layout} {one.fs_type or ('block' if one.block else '')}".strip(),
        "at": [use.id for use in store.all(Use) if use.volume == one.id],
    }
