"""The directories of a layer while it is being applied.

Every directory that exists below the target was made here, so the tree knows them all by their path, in which no component is a
symlink. A name of an archive may lead through symlinks of the same layer, as image builders expect; they are read one by one and
followed within the tree. So no system call ever follows one, and none leaves the target.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable

from ocirt_images.apply import libc
from ocirt_images.apply.entry import Entry
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed, clean, shown

OPEN = 256  # descriptors of directories that are kept
_MOST_LINKS = 40  # the kernel's own limit, MAXSYMLINKS


class Directory:
    """A directory of the layer. `entry` is what the archive says of it, None if it is only implied by what is in it."""

    __slots__ = ("depth", "entry", "fd", "opaque", "parent", "path")

    def __init__(self, path: bytes, parent: Directory | None) -> None:
        self.path = path
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.entry: Entry | None = None
        self.opaque = False
        self.fd = -1

    def child(self, name: bytes) -> bytes:
        """The path of something in it."""
        return self.path + b"/" + name if self.path else name


class Tree:
    """Directories by path, with descriptors of those in use."""

    def __init__(self, root: int, limits: Limits) -> None:
        self.root = Directory(b"", None)
        self.root.fd = root
        self.directories = {b"": self.root}
        self.hidden: set[bytes] = set()
        """What was whited out or replaced: a directory that comes into its place shows nothing of the lower layers'."""
        self.removed = 0
        """Inodes that were made and removed again, directories not counted."""
        self._limits = limits
        self._open: deque[Directory] = deque()
        # Parents as archives spell them; cleared whenever a symlink or a directory goes.
        self._spelled: dict[bytes, Directory] = {b"": self.root, b".": self.root}

    def parent(self, spelled: bytes) -> Directory:
        """The directory that an archive calls `spelled`, made where it is missing. Raises Malformed, LimitExceeded, OSError."""
        directory = self._spelled.get(spelled)
        if directory is None:
            directory = self.walk(clean(spelled))
            self._spelled[spelled] = directory
        return directory

    def descriptor(self, directory: Directory) -> int:
        """An open descriptor of a directory; it may be closed when others are opened."""
        if directory.fd < 0:
            if len(self._open) >= OPEN:
                self._close_half()
            directory.fd = libc.open_directory(self.root.fd, directory.path)
            self._open.append(directory)
        return directory.fd

    def close(self) -> None:
        """Close all descriptors but the root's."""
        for directory in self._open:
            self._close_one(directory)
        self._open.clear()

    def descriptors(self, one: Directory, other: Directory) -> tuple[int, int]:
        """Open descriptors of two directories at once."""
        self.descriptor(one)
        second = self.descriptor(other)
        # Opening the second may have closed the first; then there is room now.
        return self.descriptor(one), second

    def walk(self, parts: list[bytes]) -> Directory:
        """The directory at a path, through symlinks of this layer; what is missing is made."""
        directory = self._walk(parts, self._make_or_read)
        if directory is None:
            raise Malformed(f"{shown(b'/'.join(parts))}: not a directory")
        return directory

    def find(self, parts: list[bytes]) -> Directory | None:
        """The directory at a path, through symlinks of this layer, None if this layer has none."""
        return self._walk(parts, self._read)

    def _walk(self, parts: list[bytes], step: Callable[[Directory, bytes], Directory | bytes | None]) -> Directory | None:
        todo = parts[::-1]
        here = self.root
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":  # of a symlink's target; the root's parent is the root
                here = here.parent or self.root
                continue
            found = self.directories.get(here.child(name)) or step(here, name)
            if found is None:
                return None
            if isinstance(found, Directory):
                here = found
                continue
            links += 1
            if links > _MOST_LINKS:
                raise Malformed(f"{shown(b'/'.join(parts))}: too many symlinks on the way")
            if found.startswith(b"/"):
                here = self.root
            todo += [part for part in reversed(found.split(b"/")) if part not in (b"", b".")]
        return here

    def make(self, parent: Directory, name: bytes) -> Directory:
        """A new directory. Raises FileExistsError if there is something else, Malformed, LimitExceeded, OSError."""
        directory = Directory(parent.child(name), parent)
        if directory.depth > self._limits.depth or len(directory.path) > self._limits.path:
            self._limits.check("depth", directory.depth, f"the depth of {shown(directory.path)}")
            self._limits.check("path", len(directory.path), f"the length of {shown(directory.path)}")
        # Its own mode, owner and attributes come last: nothing that is made in it inherits from them.
        os.mkdir(name, 0o700, dir_fd=self.descriptor(parent))
        directory.opaque = directory.path in self.hidden
        self.directories[directory.path] = directory
        return directory

    def remove(self, parent: Directory, name: bytes) -> None:
        """Take away what an archive replaces by something else. Raises OSError."""
        fd = self.descriptor(parent)
        path = parent.child(name)
        status = os.lstat(name, dir_fd=fd)
        mode = status.st_mode
        if stat.S_ISDIR(mode):
            self._remove_tree(path, fd, name)
        else:
            os.unlink(name, dir_fd=fd)
            self.removed += status.st_nlink == 1
        self.hidden.add(path)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._spelled = {b"": self.root, b".": self.root}

    def _make_or_read(self, parent: Directory, name: bytes) -> Directory | bytes:
        """Make a directory that an archive implies, or the target of the symlink that is there."""
        if name.startswith(b".wh."):
            raise Malformed(f"{shown(parent.child(name))}: a whiteout as a directory")
        try:
            return self.make(parent, name)
        except FileExistsError:
            pass
        target = self._read(parent, name)
        if target is not None:
            return target
        if is_whiteout(os.lstat(name, dir_fd=self.descriptor(parent))):
            self.remove(parent, name)
            return self.make(parent, name)
        raise Malformed(f"{shown(parent.child(name))}: not a directory, but something is to be in it")

    def _read(self, parent: Directory, name: bytes) -> bytes | None:
        """The target of a symlink, None if there is none."""
        try:
            return os.readlink(name, dir_fd=self.descriptor(parent))
        except OSError as err:
            if err.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise

    def _remove_tree(self, path: bytes, parent: int, name: bytes) -> None:
        below = path + b"/"
        for known in [one for one in self.directories if one == path or one.startswith(below)]:
            self._close_one(self.directories.pop(known))
        self._open = deque(one for one in self._open if one.fd >= 0)
        self.hidden = {one for one in self.hidden if not one.startswith(below)}
        self._remove_open(parent, name)

    def _remove_open(self, parent: int, name: bytes) -> None:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            with os.scandir(fd) as found:
                names = [os.fsencode(one.name) for one in found]
            for child in names:
                status = os.lstat(child, dir_fd=fd)
                if stat.S_ISDIR(status.st_mode):
                    self._remove_open(fd, child)
                else:
                    os.unlink(child, dir_fd=fd)
                    self.removed += status.st_nlink == 1
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=parent)

    def _close_half(self) -> None:
        for _ in range(OPEN // 2):
            self._close_one(self._open.popleft())

    def _close_one(self, directory: Directory) -> None:
        if directory.fd >= 0:
            os.close(directory.fd)
            directory.fd = -1


def is_whiteout(status: os.stat_result) -> bool:
    """Whether overlayfs takes it for a whiteout: a character device 0/0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
