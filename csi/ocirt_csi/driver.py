"""One driver: its name and node, its pools, its state, and who is at work on what."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt_csi import locks
from ocirt_csi.errors import Error
from ocirt_csi.keys import Keys
from ocirt_csi.model import Snapshot, Use, Volume
from ocirt_csi.pools.pool import Pool, PoolSettings
from ocirt_csi.store import Store

STATE = "state.db"
_POOL, _KIND = "pool ", "pool kind "  # and its class: under which names its id and its file system are kept
_MANY = 50  # things that were taken away and are waited for at once
_log = logging.getLogger(__name__)


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
        self.pools: dict[str, Pool] = {}  # those that can be used
        self._pool_locks: dict[str, int] = {}  # by pools' ids: several classes may be of one folder
        self._opening = threading.Lock()
        try:
            self.store = Store(os.path.join(settings.state, STATE))
            try:
                self._open_all()
            except BaseException:
                self.store.close()
                raise
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Let go of the state and the pools."""
        self.purge()
        self.store.close()
        self._let_go()

    def _let_go(self) -> None:
        for fd in (*self._pool_locks.values(), self._lock):
            os.close(fd)

    @property
    def default(self) -> str:
        """The class of volumes for which none is named."""
        return self.settings.pools[0].name

    @property
    def classes(self) -> list[str]:
        """All classes, of pools that cannot be used too."""
        return [one.name for one in self.settings.pools]

    @property
    def has_snapshots(self) -> bool:
        """Whether a pool can have snapshots, or one may that cannot be used at the moment."""
        pools = list(self.pools.values())
        return len(pools) < len(self.classes) or any(one.snapshots for pool in pools for one in pool.back_ends.values())

    def pool(self, name: str) -> Pool:
        """A pool by its class; one that could not be used at the start is tried again. Raises Error("invalid", "unavailable")."""
        found = self.pools.get(name)
        if found is not None:  # without the lock: opening another one may take long
            return found
        with self._opening:
            if name in self.pools:
                return self.pools[name]
            for one in self.settings.pools:
                if one.name == name:
                    try:
                        return self._open(one, patient=False)
                    except (Error, OSError) as err:
                        raise Error("unavailable", "cannot be used", subject=f"pool {name}", cause=str(err)) from None
        hint = f"one of {', '.join(self.classes)}"
        raise Error("invalid", f"this node has no pool of the class {name!r}", subject="parameters: class", hint=hint)

    def pool_of(self, thing: Volume | Snapshot, *, checked: bool = True) -> Pool:
        """The pool that holds it. checked: and is there at the moment. Raises Error("unavailable")."""
        if thing.pool not in self.classes:
            raise Error("unavailable", f"is in the pool {thing.pool!r}, which this driver was not given", subject=thing.id)
        found = self.pool(thing.pool)
        if checked:
            found.check()
        return found

    def _open_all(self) -> None:
        """Open pools. One that cannot be used does not keep the others from it; the first error is raised if all cannot."""
        errors: list[Error | OSError] = []
        for one in self.settings.pools:
            try:
                self._open(one)
            except (Error, OSError) as err:
                _log.error("the pool %s cannot be used: %s", one.name, err)
                errors.append(err)
        if errors and not self.pools:
            raise errors[0]

    def _open(self, settings: PoolSettings, *, patient: bool = True) -> Pool:
        pool = open_pool(self.store, settings)
        if pool.id not in self._pool_locks:
            self._pool_locks[pool.id] = locks.take_pool(pool.root, patient=patient)
        for name, value in ((_POOL + pool.name, pool.id), (_KIND + pool.name, pool.kind)):
            if self.store.meta(name) != value:
                self.store.set_meta(name, value)
        self.pools[pool.name] = pool
        return pool

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

    def forget(self, thing: Volume | Snapshot) -> None:
        """Forget what was taken away, once that is on disk: what a power cut brings back would have no owner otherwise."""
        self.store.retire(thing)
        if len(self.store.gone) >= _MANY:
            self.purge()

    def purge(self) -> None:
        """Wait until what was taken away is so on disk, for all of it at once, and forget it."""
        gone = self.store.gone
        for pool in list(self.pools.values()):
            mine = [one for one in gone if isinstance(one, Volume | Snapshot) and one.pool == pool.name]
            if not mine:
                continue
            try:
                pool.check()
                found = [one for one in mine if not pool.has_place(one)]
                pool.sync()
            except (Error, OSError):  # a start in better times does it
                continue
            self.store.purge(found)

    def volumes_in(self, pool: Pool) -> list[Volume]:
        """The volumes of a pool, in any phase."""
        return [one for one in self.store.all(Volume) if one.pool == pool.name]

    def uses(self, volume: str) -> list[Use]:
        """Where a volume is."""
        return self.store.of(Use, volume)


def open_pool(store: Store, settings: PoolSettings) -> Pool:
    """A pool. Where volumes are in it, it has to be the one that they were made in. Raises Error, OSError."""
    used = any(one.pool == settings.name for one in store.things())
    known = store.meta(_POOL + settings.name) if used else ""
    return Pool(settings, known, in_memory=store.meta(_KIND + settings.name) == "tmpfs")


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
