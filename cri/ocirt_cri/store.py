"""What ocirtd must not forget, in SQLite (WAL, synchronous=NORMAL): one row for a pod, one for a container.

A row is its own journal: it says `creating` before anything is made, `removing` before anything is taken away, and is gone when
nothing is left. Writers wait until it is written, and so safe from ocirtd's own end, whatever that is. It reaches the disk within
a second or two (`_DELAY`), and they go on before: no pod outlives a power cut, and what that leaves of one is found without its
row (docs/decisions/0002). What is done elsewhere, by plugins of others, waits for the disk by way of `journal`. Writers that come
while one commit is under way are one transaction after it. Reads happen once, at the start; afterwards everything is answered
from memory.

The database has a version. An older one is migrated, step by step; a newer one is refused, as a release could not know what it
leaves out. The same goes for what the shims of its containers speak.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ocirt
from ocirt import spans
from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages.shim import PROTOCOL
from ocirt_cri import journal
from ocirt_cri.model import Container, Sandbox

# Each makes a version from the one before, the first from nothing. What was released is never changed; `tests/data/node-N.sql` is
# what version N has left. A word of `more` that is new has a default, and an ocirtd that does not know it leaves it out: it
# needs a version of its own if that harms.
MIGRATIONS = [
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pods (id TEXT PRIMARY KEY, phase TEXT NOT NULL, config BLOB NOT NULL, status BLOB NOT NULL, more TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE containers (id TEXT PRIMARY KEY, pod TEXT NOT NULL, phase TEXT NOT NULL, config BLOB NOT NULL, status BLOB NOT NULL,
    more TEXT NOT NULL) WITHOUT ROWID;
""",
]
_RELEASE, _SHIMS = "release", "shim_protocol"  # of `meta`: who has used it last, and what the shims of its containers speak
_PUT_META = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
_PUT_POD = "INSERT OR REPLACE INTO pods VALUES (?, ?, ?, ?, ?)"
_PUT_CONTAINER = "INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?, ?, ?)"
_DELETE = {Sandbox: "DELETE FROM pods WHERE id = ?", Container: "DELETE FROM containers WHERE id = ?"}
# By SQLite's primary result codes: what is the disk's fault.
_DISK = {
    sqlite3.SQLITE_FULL: "exhausted",
    sqlite3.SQLITE_IOERR: "kernel",
    sqlite3.SQLITE_CANTOPEN: "kernel",
    sqlite3.SQLITE_READONLY: "kernel",
}
_DELAY = 1.0  # seconds until what was written is told to go to the disk, with all that is written meanwhile
_log = logging.getLogger(__name__)
Statement = tuple[str, tuple[Any, ...]]


class Store:
    """The database at a path, which is made if it is missing. Raises Error("corrupt" …), sqlite3.Error."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "store")
        self._thread.submit(int)  # it runs from now on: later there may be no more processes to be had
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._waiting: list[tuple[Statement, asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._is_synced = True
        self._missed: dict[str, Sandbox | Container] = {}  # what the disk did not take, by id
        self.broken = ""  # why the last commit failed
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: str) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=5000"):
            self._connection.execute(f"PRAGMA {pragma}")
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise self._later(path, f"version {version} of its tables, {len(MIGRATIONS)}")
        for number in range(version, len(MIGRATIONS)):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in MIGRATIONS[number].split(";\n"):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {number + 1}")
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            if version:
                _log.info("%s was migrated from version %d to %d", path, number, number + 1)
        spoken = self.meta(_SHIMS, "0")
        if int(spoken) > PROTOCOL:
            raise self._later(path, f"version {spoken} of what its shims speak, {PROTOCOL}")
        for name, value in ((_SHIMS, str(PROTOCOL)), (_RELEASE, ocirt.__version__)):
            if self.meta(name) != value:
                self.set_meta(name, value)

    def _later(self, path: str, what: str) -> Error:
        """what: which version is too new, and which this ocirtd has."""
        try:
            release = f"ocirtd {self.meta(_RELEASE)}"
        except sqlite3.Error:
            release = "another ocirtd"
        newer, _, own = what.rpartition(", ")
        words = f"was written by {release}, a later one: it has {newer}, and ocirtd {ocirt.__version__} knows {own}"
        hint = "start the later one again; or have it remove all pods, and begin with another `root`"
        return Error("unsupported", words, subject=path, hint=hint)

    async def close(self) -> None:
        """Write what waits, and close."""
        while self._committing is not None:
            await self._committing
        if self._syncing is not None:
            self._syncing.cancel()  # closing does what it does
            await asyncio.gather(self._syncing, return_exceptions=True)
        self._thread.shutdown()
        self._connection.close()

    @property
    def journal(self) -> str:
        """The file that has what was written last: once that is on disk, so is everything."""
        return f"{self._path}-wal"

    def meta(self, name: str, default: str = "") -> str:
        """A word that is kept. For the start: it reads the disk."""
        found = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(found[0]) if found else default

    def set_meta(self, name: str, value: str) -> None:
        """Keep a word. For the start: it waits for the disk."""
        self._connection.execute(_PUT_META, (name, value))

    def sandboxes(self) -> list[Sandbox]:
        """All pods. For the start."""
        found = []
        for identifier, phase, config, status, more in self._connection.execute("SELECT * FROM pods"):
            messages = cri.PodSandboxConfig.FromString(config), cri.PodSandboxStatus.FromString(status)
            found.append(Sandbox(identifier, *messages, phase, **_known(Sandbox, more)))
        return found

    def containers(self) -> list[Container]:
        """All containers. For the start."""
        found = []
        for identifier, pod, phase, config, status, more in self._connection.execute("SELECT * FROM containers"):
            messages = cri.ContainerConfig.FromString(config), cri.ContainerStatus.FromString(status)
            found.append(Container(identifier, pod, *messages, phase, **_known(Container, more)))
        return found

    async def put_meta(self, name: str, value: str) -> None:
        """Keep a word. Raises sqlite3.Error."""
        await self._write([(_PUT_META, (name, value))])

    async def put(self, *objects: Sandbox | Container) -> None:
        """Write what these are now; that survives this process. Raises Error("exhausted", "kernel"), sqlite3.Error."""
        missed, self._missed = self._missed, {}
        try:
            await self._write(_row(one) for one in (missed | {one.id: one for one in objects}).values())
        except BaseException:
            self._missed = missed | self._missed
            raise

    async def note(self, *objects: Sandbox | Container) -> None:
        """Write what these have become, if the disk takes it. If it does not, that goes with the next write.

        What has happened has happened, and who frees the disk by removing pods is not to be stopped by its being full.
        """
        try:
            await self.put(*objects)
        except Error as err:
            _log.error("%s", err)
            self._missed |= {one.id: one for one in objects}

    async def delete(self, *objects: Sandbox | Container) -> None:
        """Forget them. Raises Error("exhausted", "kernel"), sqlite3.Error."""
        for one in objects:
            self._missed.pop(one.id, None)
        await self._write((_DELETE[type(one)], (one.id,)) for one in objects)

    async def _write(self, statements: Iterable[Statement]) -> None:
        loop = asyncio.get_running_loop()
        began = spans.now()
        futures = []
        for statement in statements:
            future: asyncio.Future[None] = loop.create_future()
            self._waiting.append((statement, future))
            futures.append(future)
        if self._committing is None:
            self._committing = loop.create_task(self._commit_all(), name="commits")
        await asyncio.gather(*futures)
        spans.add("daemon", "journal", began)

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                try:
                    await loop.run_in_executor(self._thread, self._commit, [statement for statement, _ in batch])
                except Exception as err:  # noqa: BLE001  (whatever it is, those who wait hear of it)
                    self.broken = f"what is to survive cannot be written down: {err}"
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(err)
                else:
                    self.broken = ""
                    for _, future in batch:
                        if not future.done():
                            future.set_result(None)
        finally:
            self._committing = None
            self._is_synced = False
            if self._syncing is None:
                self._syncing = loop.create_task(self._sync(), name="sync")

    async def _sync(self) -> None:
        """Have the disk take it. What fails is told by the next commit's checkpoint, too."""
        try:
            while not self._is_synced:
                await asyncio.sleep(_DELAY)
                self._is_synced = True
                await asyncio.to_thread(journal.sync, self.journal)
        except OSError as err:
            self.broken = f"what is to survive a power cut cannot be written down: {err}"
            _log.error("%s", self.broken)
        finally:
            self._syncing = None

    def _commit(self, statements: list[Statement]) -> None:
        began = spans.now()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for text, values in statements:
                self._connection.execute(text, values)
            self._connection.execute("COMMIT")
            spans.add("journal", "commit", began)
        except BaseException as err:
            if self._connection.in_transaction:  # some failures have ended it
                self._connection.execute("ROLLBACK")
            if isinstance(err, sqlite3.Error) and (code := _DISK.get(err.sqlite_errorcode & 0xFF)):
                words = "pods and containers cannot be written down"
                raise Error(code, words, subject=self._path, cause=str(err), hint="is the disk full?") from None
            raise


def _known(kind: type[Sandbox | Container], more: str) -> dict[str, Any]:
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in json.loads(more).items() if name in names}


def _row(one: Sandbox | Container) -> Statement:
    config, status = one.config.SerializeToString(), one.status.SerializeToString()
    if isinstance(one, Sandbox):
        return _PUT_POD, (one.id, one.phase, config, status, one.more())
    return _PUT_CONTAINER, (one.id, one.pod_id, one.phase, config, status, one.more())
