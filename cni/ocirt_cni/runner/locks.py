"""Who may do what at the same time, among all processes that use one data folder.

- ADD, DEL and CHECK share a network; GC has it alone.
- A container is in one operation at a time.

Both are locks on bytes of one file (fcntl(2), "Open file description locks"), so nothing has to be made or removed for a
container, and the kernel frees what a killed process held. A byte's number is a hash of what it stands for; two things that share
one wait for each other, no more. Order: first the network, then the container.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from fcntl import F_OFD_SETLKW, F_RDLCK, F_UNLCK, F_WRLCK, fcntl
from hashlib import blake2b
from struct import Struct

from ocirt_cni.errors import IO_FAILURE, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FLOCK = Struct("@hhqqi4x")  # struct flock: type, whence, start, len, pid


class Locks:
    """The locks of a data folder. `folder` is made if it is not there."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    @contextmanager
    def attachment(self, network: str, container: str) -> Iterator[None]:
        """An operation on a container's attachment to a network. Waits. Raises Error(IO_FAILURE)."""
        with self._file() as fd:
            # A GC that waits holds the gate, so that a stream of others does not keep it waiting for ever.
            _lock(fd, F_RDLCK, _byte("gate", network))
            _lock(fd, F_RDLCK, _byte("network", network))
            _lock(fd, F_UNLCK, _byte("gate", network))
            _lock(fd, F_WRLCK, _byte("container", container))
            yield

    @contextmanager
    def network(self, network: str) -> Iterator[None]:
        """GC of a network. Waits. Raises Error(IO_FAILURE)."""
        with self._file() as fd:
            _lock(fd, F_WRLCK, _byte("gate", network))
            _lock(fd, F_WRLCK, _byte("network", network))
            yield

    @contextmanager
    def container(self, container: str) -> Iterator[None]:
        """A DEL within a GC, which has the network already. Waits. Raises Error(IO_FAILURE)."""
        with self._file() as fd:
            _lock(fd, F_WRLCK, _byte("container", container))
            yield

    @contextmanager
    def _file(self) -> Iterator[int]:
        """The file, opened anew: its locks go with this descriptor."""
        path = f"{self._folder}/lock"
        try:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as err:
            raise Error(IO_FAILURE, "the lock cannot be opened", subject=path, cause=err.strerror or "") from None
        try:
            yield fd
        finally:
            os.close(fd)


def _lock(fd: int, kind: int, byte: int) -> None:
    try:
        fcntl(fd, F_OFD_SETLKW, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError as err:
        raise Error(IO_FAILURE, "a lock cannot be taken", cause=err.strerror or "") from None


def _byte(kind: str, name: str) -> int:
    return int.from_bytes(blake2b(f"{kind} {name}".encode(), digest_size=8).digest(), "big") >> 1
