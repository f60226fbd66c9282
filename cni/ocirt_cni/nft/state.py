"""What belongs to whom, in files below /run: a record for each attachment and plugin, and who uses what several share.

    /run/ocirt/cni/nft-NAMESPACE/lock             held while the tables are changed
                                 records/RECORD   what an attachment has from a plugin, as JSON
                                 claims/KIND/THING/RECORD   a directory: the record's owner uses THING
                                 claims/record/all/RECORD   the same for all that have a record
                                 generation       the rule set's number after our last change

NAMESPACE is the cookie of the network namespace whose rules these are (SO_NETNS_COOKIE). The rules die with the namespace or a
reboot, and so do the files at /run, or nobody finds them again; so nothing is synced. They save the search for an attachment's
elements among those of all others, and `reload` makes the rules from them.
"""

from __future__ import annotations

import posix
from _socket import SOL_SOCKET
from errno import EACCES, ENOENT, ENOTEMPTY, EPERM, EROFS
from fcntl import LOCK_EX, flock

from ocirt_cni import files, jsonio
from ocirt_cni.errors import IO_FAILURE, Error
from ocirt_cni.nft import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt_cni.nft.wire import Tables

RUN = "/run"
_SO_NETNS_COOKIE = 71  # since Linux 5.14
_RECORDS, _CLAIMS, _GENERATION, _LOCK = "records", "claims", "generation", "lock"
_RECORD = "record all"  # what everybody claims


class State:
    """The files of one network namespace, locked until `close`."""

    def __init__(self, directory: str) -> None:
        """Wait for the lock; make the directory if it is not there. Raises Error(IO_FAILURE)."""
        self.directory = directory
        try:
            self.fresh = not files.is_directory(f"{directory}/{_RECORDS}")
            self._lock = _locked(directory)
        except OSError as err:
            raise _failed(err, directory) from None

    def close(self) -> None:
        """Let go of the lock; a directory without records goes."""
        try:
            if self.is_alone(""):
                self._remove()
        finally:
            posix.close(self._lock)

    def records(self) -> list[str]:
        """The names of all records."""
        return _names(f"{self.directory}/{_RECORDS}")

    def is_alone(self, name: str) -> bool:
        """Whether there is no other record."""
        return not self.is_claimed(_RECORD, besides=name)

    def read(self, name: str) -> dict[str, Any] | None:
        """A record; None if it is not there. Raises Error(DECODING_FAILURE) for one that is damaged."""
        path = f"{self.directory}/{_RECORDS}/{name}"
        try:
            with open(path, "rb") as file:
                return jsonio.load_object(file.read(), path)
        except FileNotFoundError:
            return None
        except OSError as err:
            raise _failed(err, path) from None

    def write(self, name: str, record: dict[str, Any], claims: list[str]) -> None:
        """Replace a record, as a whole; then its claims: what is claimed is in a record. Raises Error(IO_FAILURE)."""
        path = f"{self.directory}/{_RECORDS}/{name}"
        try:
            _write(f"{self.directory}/{_NEW}", jsonio.dumps(record).encode())
            posix.rename(f"{self.directory}/{_NEW}", path)
            for one in (_RECORD, *claims):
                files.make_directories(f"{self._of(one)}/{name}")
        except OSError as err:
            raise _failed(err, path) from None

    def remove(self, name: str, claims: list[str]) -> None:
        """Remove a record, after its claims: whoever is killed in between has a record, and is undone by it."""
        self.release(name, [*claims, _RECORD])
        _unlink(f"{self.directory}/{_RECORDS}/{name}")

    def release(self, name: str, claims: list[str]) -> None:
        """Give up claims."""
        for one in claims:
            _rmdir(f"{self._of(one)}/{name}")
            _rmdir(self._of(one))

    def is_claimed(self, claim: str, besides: str = "") -> bool:
        """Whether another record than `besides` claims a thing. In as much time for thousands as for one: nothing is listed."""
        directory = self._of(claim)
        try:
            links = posix.stat(directory).st_nlink
        except FileNotFoundError:
            return False
        if links < 2:  # a file system that does not count directories, as btrfs
            return any(name != besides for name in _names(directory))
        return links - 2 > bool(besides and files.is_directory(f"{directory}/{besides}"))

    def claimants(self, claim: str) -> list[str]:
        """The names of the records that claim a thing."""
        return _names(self._of(claim))

    def forget_lost(self) -> None:
        """Give up the claims of records that somebody removed."""
        records = set(self.records())
        for claim in self._everything():
            for name in self.claimants(claim):
                if name not in records:
                    self.release(name, [claim])

    def claims(self, kind: str) -> list[str]:
        """All claims of a kind, which is their first word."""
        return [f"{kind} {thing}" for thing in _names(f"{self.directory}/{_CLAIMS}/{kind}")]

    def _of(self, claim: str) -> str:
        kind, _, thing = claim.partition(" ")
        return f"{self.directory}/{_CLAIMS}/{kind}/{thing}"

    def _everything(self) -> list[str]:
        return [claim for kind in _names(f"{self.directory}/{_CLAIMS}") for claim in self.claims(kind)]

    @property
    def generation(self) -> int:
        """The rule set's number after our last change; -1 if nobody knows."""
        try:
            with open(f"{self.directory}/{_GENERATION}", "rb") as file:
                return int(file.read())
        except (OSError, ValueError):
            return -1

    @generation.setter
    def generation(self, number: int) -> None:
        try:
            _write(f"{self.directory}/{_GENERATION}", b"%d" % number)
        except OSError as err:
            raise _failed(err, self.directory) from None

    def _remove(self) -> None:
        for claim in self._everything():  # of records that somebody removed
            for name in self.claimants(claim):
                self.release(name, [claim])
        kinds = [f"{_CLAIMS}/{kind}" for kind in _names(f"{self.directory}/{_CLAIMS}")]
        for name in (*kinds, _CLAIMS, _RECORDS):
            _rmdir(f"{self.directory}/{name}")
        for name in (_GENERATION, _NEW, _LOCK):
            _unlink(f"{self.directory}/{name}")
        _rmdir(self.directory)


class Locked:
    """The tables and the files of the network namespace that the thread is in, as a context manager: (tables, state).

    A class, as contextlib costs an executable 3 ms.
    """

    __slots__ = ("_state",)

    def __enter__(self) -> tuple[Tables, State]:
        """Raises Error."""
        tables = kept.tables()
        name = f"ocirt/cni/nft-{_namespace(tables)}"
        try:
            self._state = State(f"{RUN}/{name}")
        except Unwritable:
            from os import environ  # noqa: PLC0415  (for root it costs a millisecond, and is of no use)

            private = environ.get("XDG_RUNTIME_DIR")
            if not private:
                raise
            self._state = State(f"{private}/{name}")
        return tables, self._state

    def __exit__(self, *_: object) -> None:
        self._state.close()


_NEW = "new"


class Unwritable(Error):
    """The directory cannot be made by this user."""


def _namespace(tables: Tables) -> str:
    try:
        return tables.option(SOL_SOCKET, _SO_NETNS_COOKIE, 8)[::-1].hex().lstrip("0")
    except OSError:
        return f"inode-{posix.stat('/proc/thread-self/ns/net').st_ino}"


def _locked(directory: str) -> int:
    while True:
        files.make_directories(directory, 0o700)
        try:
            fd = posix.open(f"{directory}/{_LOCK}", posix.O_CREAT | posix.O_RDWR | posix.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # another one has just removed the directory
            continue
        flock(fd, LOCK_EX)
        if posix.fstat(fd).st_nlink:
            files.make_directories(f"{directory}/{_RECORDS}")
            return fd
        posix.close(fd)


def _names(directory: str) -> list[str]:
    try:
        return posix.listdir(directory)
    except FileNotFoundError:
        return []


def _write(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_CREAT | posix.O_TRUNC | posix.O_WRONLY | posix.O_CLOEXEC, 0o600)
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


def _unlink(path: str) -> None:
    try:
        posix.unlink(path)
    except FileNotFoundError:
        pass


def _rmdir(path: str) -> None:
    try:
        posix.rmdir(path)
    except OSError as err:
        if err.errno not in (ENOENT, ENOTEMPTY):
            raise


def _failed(err: OSError, path: str) -> Error:
    kind = Unwritable if err.errno in (EACCES, EPERM, EROFS) else Error
    return kind(IO_FAILURE, "the records of rules cannot be kept", subject=err.filename or path, cause=err.strerror or "")
