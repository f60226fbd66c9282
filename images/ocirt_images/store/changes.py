"""Everything that a store changes on disk goes through here: each method is one change that is there or not there after a kill.

So the order of changes can be read, the tests can kill a process before each of them (see docs/store.md for the order), and a
store without fsync differs in one place. "No space" becomes an error for a person here; other OSErrors stay what they are, with
their file's name.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.quota import btrfs, project

if TYPE_CHECKING:
    from sqlite3 import Connection

    from ocirt_images.store.ingest import Buffer

_EXHAUSTED = {errno.ENOSPC: "no space left", errno.EDQUOT: "the quota is used up", errno.EMFILE: "too many open files"}
_LINK = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Changes:
    """Changes of files and of the database.

    sync: whether fsync is called. Without it a power cut may leave anything; a killed process does no harm.
    """

    def __init__(self, *, sync: bool) -> None:
        self.sync = sync

    def mkdir(self, path: Path, *, mode: int = 0o700) -> None:
        """mkdir(2)."""
        with exhausted(path):
            os.mkdir(path, mode)

    def create(self, path: Path, flags: int = 0, *, mode: int = 0o600) -> int:
        """open(2) for reading and writing; the file is made if it is not there. A descriptor.

        A file that was made read-only by an owner who then died is made writable again.
        """
        flags |= os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with exhausted(path):
            try:
                return os.open(path, flags, mode)
            except PermissionError:
                os.chmod(path, mode)
                return os.open(path, flags, mode)

    def write_at(self, descriptor: int, data: Buffer, offset: int, path: Path) -> None:
        """All of `data` at `offset`."""
        with exhausted(path), memoryview(data).cast("B") as rest:
            done = 0
            while done < len(rest):
                done += os.pwrite(descriptor, rest[done:], offset + done)

    def allocate(self, descriptor: int, size: int, path: Path) -> None:
        """posix_fallocate(3): the space is there, or there is an error now and not later."""
        with exhausted(path):
            os.posix_fallocate(descriptor, 0, size)

    def truncate(self, descriptor: int, size: int, path: Path) -> None:
        """ftruncate(2)."""
        with exhausted(path):
            os.ftruncate(descriptor, size)

    def chmod(self, path: Path | str | int, mode: int, *, directory: int | None = None) -> None:
        """chmod(2) of a file that is no link."""
        os.chmod(path, mode, dir_fd=directory)

    def rename(self, source: Path | str, target: Path | str, *, directory: int | None = None, into: int | None = None) -> None:
        """renameat(2)."""
        with exhausted(target):
            os.rename(source, target, src_dir_fd=directory, dst_dir_fd=into)

    def unlink(self, path: Path | str, *, directory: int | None = None) -> None:
        """unlink(2); it is no error if the file is gone already."""
        try:
            os.unlink(path, dir_fd=directory)
        except FileNotFoundError:
            pass

    def rmdir(self, path: Path | str, *, directory: int | None = None) -> None:
        """rmdir(2); it is no error if the directory is gone already."""
        try:
            os.rmdir(path, dir_fd=directory)
        except FileNotFoundError:
            pass

    def make_subvolume(self, path: Path) -> None:
        """A directory of btrfs that is a tree of its own."""
        with exhausted(path):
            btrfs.create(path)

    def limit_subvolume(self, path: Path, size: int) -> None:
        """What it may take, in bytes."""
        btrfs.limit(path, size)

    def remove_subvolume(self, path: Path) -> None:
        """It goes with all that is in it."""
        btrfs.destroy(path)

    def assign_project(self, path: Path, number: int) -> None:
        """An empty directory belongs to a project from now on, with all that is made in it."""
        project.assign(path, number)

    def limit_project(self, path: Path, number: int, size: int) -> None:
        """What the files of a project may take, in bytes; 0: no limit."""
        project.limit(path, number, size)

    def fsync(self, descriptor: int, path: Path) -> None:
        """fsync(2): a file's data, or a directory's entries, are on disk."""
        if self.sync:
            with exhausted(path):
                os.fsync(descriptor)

    def fsync_directory(self, path: Path) -> None:
        """The entries of a directory are on disk."""
        if self.sync:
            descriptor = os.open(path, _LINK)
            try:
                self.fsync(descriptor, path)
            finally:
                os.close(descriptor)

    def sync_tree(self, path: Path) -> None:
        """syncfs(2): all that was written to the file system of `path` is on disk.

        One call for a layer's tree: an fsync for each of its ten thousands of files would take minutes.
        """
        if not self.sync:
            return
        descriptor = os.open(path, _LINK)
        try:
            with exhausted(path):
                if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number), os.fspath(path))
        finally:
            os.close(descriptor)

    def commit(self, connection: Connection) -> None:
        """The end of a transaction: all of it is there from now on."""
        connection.execute("COMMIT")


@contextmanager
def exhausted(path: Path | str | int) -> Iterator[None]:
    """Makes Error("exhausted") of errors that more space, quota or descriptors would cure, and names the file in all others."""
    try:
        yield
    except OSError as err:
        where = str(path) if err.filename is None else os.fsdecode(err.filename)
        if err.errno in _EXHAUSTED:
            hint = "ocirt prune frees what nothing uses" if err.errno != errno.EMFILE else "raise the limit: ulimit -n"
            raise Error("exhausted", _EXHAUSTED[err.errno], subject=where, hint=hint) from err
        if err.filename is None:
            raise OSError(err.errno, err.strerror, where) from err
        raise
