"""Removing directory trees that strangers filled: of any depth, with any names and modes, never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ocirt_images.store.changes import Changes, exhausted

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path, changes: Changes) -> None:
    """Removes a directory and all below it, or a file. It is no error if it is gone already.

    A directory inside that is not empty is moved up to the top before its own contents are looked at. So one descriptor is open
    at a time, no path gets longer than a name, and there is no recursion, however deep the tree is.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        top = os.open(path, _DIRECTORY)
        try:
            _Removal(top, changes).run()
        finally:
            os.close(top)
        changes.rmdir(path)
    else:
        changes.unlink(path)
    changes.fsync_directory(path.parent)


class _Removal:
    """Empties the directory `top`."""

    def __init__(self, top: int, changes: Changes) -> None:
        self._top = top
        self._changes = changes
        self._serial = 0
        self._taken: set[str] = set()

    def run(self) -> None:
        waiting = self._sweep(self._top)
        self._taken.update(waiting)
        while waiting:
            name = waiting.pop()
            with exhausted(name):
                child = os.open(name, _DIRECTORY, dir_fd=self._top)
            try:
                for inner in self._sweep(child):
                    moved = self._free_name()
                    self._changes.rename(inner, moved, directory=child, into=self._top)
                    waiting.append(moved)
            finally:
                os.close(child)
            self._changes.rmdir(name, directory=self._top)

    def _sweep(self, directory: int) -> list[str]:
        """Unlinks the files and empty directories in a directory. The names of the other directories."""
        rest = []
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if not is_directory:
                self._changes.unlink(name, directory=directory)
                continue
            try:
                self._changes.rmdir(name, directory=directory)
            except OSError:
                rest.append(name)
                if os.geteuid():  # a directory may keep its own owner out
                    self._changes.chmod(name, 0o700, directory=directory)
        return rest

    def _free_name(self) -> str:
        while True:
            self._serial += 1
            name = f"{self._serial}.gone"
            if name not in self._taken:
                return name
