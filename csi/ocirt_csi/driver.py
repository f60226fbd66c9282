"""One driver: its name and node, its pools, its state, and who is at work on what."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt_csi import locks
from ocirt_csi.errors import Error
from ocirt_csi.keys import Keys
from ocirt_csi.model import Snapshot, Use, Volume
from ocirt_csi.pools.pool import Pool, PoolSettings
from ocirt_csi.store import Store

STATE = "state.db"
_POOL = "pool "  # and its class: under which name its id is kept


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person says. name: of the driver, a domain in reverse; state: a folder; most: volumes here, 0: any number."""

    node: str
    pools: tuple[PoolSettings, ...]
    name: str = "local.csi.ocirt"
    state: str = "/var/lib/ocirt/csi"
    most: int = 0
    version: str = "0"

    @property
    def topology(self) -> str:
        """The key that tells nodes apart."""
        return f"{self.name}/node"


class Driver:
    """What the services share. Takes the lock of its state; serves: for good, and not for one command. Raises Error, OSError."""

    def __init__(self, settings: Settings, *, serves: bool = False) -> None:
        self.settings = settings
        self.keys = Keys()
        os.makedirs(settings.state, 0o700, exist_ok=True)
        self._lock = locks.take(settings.state, serves=serves)
        self._pool_locks: dict[str, int] = {}  # by pools' ids: several classes may be of one folder
        try:
            self.store = Store(os.path.join(settings.state, STATE))
            try:
                self.pools = open_pools(self.store, settings.pools)
                for pool in self.pools.values():
                    if pool.id not in self._pool_locks:
                        self._pool_locks[pool.id] = locks.take_pool(pool.root)
                    if self.store.meta(_POOL + pool.name) != pool.id:
                        self.store.set_meta(_POOL + pool.name, pool.id)
            except BaseException:
                self.store.close()
                raise
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Let go of the state and the pools."""
        self.store.close()
        self._let_go()

    def _let_go(self) -> None:
        for fd in (*self._pool_locks.values(), self._lock):
            os.close(fd)

    def pool(self, name: str) -> Pool:
        """A pool by its class. Raises Error("invalid")."""
        try:
            return self.pools[name]
        except KeyError:
            hint = f"one of {', '.join(self.pools)}"
            raise Error(
                "invalid", f"this node has no pool of the class {name!r}", subject="parameters: class", hint=hint
            ) from None

    def pool_of(self, thing: Volume | Snapshot, *, checked: bool = True) -> Pool:
        """The pool that holds it. checked: and is there at the moment. Raises Error("unavailable")."""
        if thing.pool not in self.pools:
            raise Error("unavailable", f"is in the pool {thing.pool!r}, which this driver was not given", subject=thing.id)
        found = self.pools[thing.pool]
        if checked:
            found.check()
        return found

    def volume(self, identifier: str) -> Volume:
        """A volume that is whole. Raises Error("not-found")."""
        found = self.store.get(Volume, identifier)
        if found is None or found.phase in ("making", "removing"):
            raise Error("not-found", "there is no such volume", subject=identifier)
        return found

    def snapshot(self, identifier: str) -> Snapshot:
        """A snapshot that is whole. Raises Error("not-found")."""
        found = self.store.get(Snapshot, identifier)
        if found is None or found.phase != "ready":
            raise Error("not-found", "there is no such snapshot", subject=identifier)
        return found

    def volumes_in(self, pool: Pool) -> list[Volume]:
        """The volumes of a pool, in any phase."""
        return [one for one in self.store.all(Volume) if one.pool == pool.name]

    def uses(self, volume: str) -> list[Use]:
        """Where a volume is."""
        return [one for one in self.store.all(Use) if one.volume == volume]


def open_pools(store: Store, settings: Iterable[PoolSettings]) -> dict[str, Pool]:
    """Pools by class. Where volumes are in one it has to be the one that they were made in. Raises Error, OSError."""
    used = {one.pool for one in store.things()}
    return {one.name: Pool(one, store.meta(_POOL + one.name) if one.name in used else "") for one in settings}


def now() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()


@contextmanager
def full_is_exhausted(subject: str) -> Iterator[None]:
    """What a file system that is full says, as an Error."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Error("exhausted", "its file system is full", subject=subject, cause=err.strerror or "") from None
        raise
