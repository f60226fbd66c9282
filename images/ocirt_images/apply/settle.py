"""What has to wait until the lower layers are there: the last step before a layer is one.

It runs in the process that commits, not in a worker: it reads what earlier layers hold. Like everything here it follows no
symlink by a system call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ocirt_images.apply import libc
from ocirt_images.apply.merged import Found, Merged
from ocirt_images.apply.names import Malformed, shown
from ocirt_images.apply.needs import Needs
from ocirt_images.apply.owners import kept, opaque_name
from ocirt_images.apply.tree import is_whiteout
from ocirt_images.errors import Error

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC


def settle(needs: Needs, target: Path, lowers: Sequence[Path], *, xattrs: str = "trusted", name: str = "") -> None:
    """Make an applied layer complete. `lowers` are the committed layers below it, from the nearest down.

    Directories that are to hide what is below are marked, by `trusted.overlay.opaque` or as a user's by `user.overlay.opaque`
    (`xattrs`); whiteouts of what is not there go. Implied directories take the attributes that the lower layers give them; where
    those have a symlink to a directory, what is in the implied one moves to where it leads. Files of lower layers that are
    hard-linked are copied up. Times of directories stay as they were. Raises Error("invalid") that names the layer `name`, and
    OSError.
    """
    roots: list[int] = []
    try:
        for place in (target, *lowers):
            roots.append(os.open(place, _DIRECTORY))
        _Settler(roots, xattrs).settle(needs)
    except Malformed as err:
        raise Error("invalid", str(err), subject=name or str(target)) from None
    finally:
        for fd in roots:
            os.close(fd)


class _Settler:
    """Paths of the uppermost layer are changed; those of the others are looked at."""

    def __init__(self, roots: list[int], xattrs: str) -> None:
        self._roots = roots
        self._xattrs = xattrs
        self._explicit: set[bytes] = set()

    def settle(self, needs: Needs) -> None:
        for path in needs.opaque:
            self._mark_opaque(path)
        self._merged = Merged(self._roots, self._xattrs)
        moved: dict[bytes, bytes] = {}
        for implied in needs.parents:
            path = _moved(implied, moved)
            if path not in self._explicit:
                destination = self._settle_parent(path)
                if destination is not None:
                    moved[path] = destination
        for name, target in needs.links:
            self._settle_link(name, target)
        for path in needs.whiteouts:
            self._settle_whiteout(_moved(path, moved))

    def _settle_whiteout(self, path: bytes) -> None:
        """Take away a whiteout that hides nothing."""
        if self._merged.below(path) is None:
            parent, _, name = path.rpartition(b"/")
            try:
                with self._kept(parent) as fd:
                    if is_whiteout(os.lstat(name, dir_fd=fd)):
                        os.unlink(name, dir_fd=fd)
            except FileNotFoundError:
                pass  # replaced, with all that was around it

    # Implied directories

    def _settle_parent(self, path: bytes) -> bytes | None:
        """Give an implied directory its attributes, or move what it holds; where that went."""
        below = self._merged.below(path)
        if below is None:
            return None
        if stat.S_ISDIR(below.status.st_mode):
            with self._directory(path) as fd, self._merged.opened(below.layer, below.path) as model:
                _copy_attributes(model, fd, below.status)
            return None
        if not stat.S_ISLNK(below.status.st_mode):
            return None  # a directory over a file, as if the archive had described it
        # Where it leads can be seen only without the directory that hides it.
        end = Merged(self._roots[1:], self._xattrs).walk(path, follow=True)
        if end is None or not stat.S_ISDIR(end.status.st_mode):
            return None
        if end.path == path or end.path.startswith(path + b"/"):
            return None
        self._make_way(end.path)
        self._move(path, end.path)
        parent, _, name = path.rpartition(b"/")
        with self._kept(parent) as fd:
            os.rmdir(name, dir_fd=fd)
        return end.path

    def _move(self, source: bytes, destination: bytes) -> None:
        """Move what one directory of this layer holds to another, which wins where both have something."""
        with self._kept(source) as old, self._kept(destination) as new:
            for name in sorted(os.fsencode(one) for one in os.listdir(old)):
                path = destination + b"/" + name
                status = os.lstat(name, dir_fd=old)
                try:
                    there = os.lstat(name, dir_fd=new)
                except FileNotFoundError:
                    os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
                    continue
                if stat.S_ISDIR(status.st_mode) and stat.S_ISDIR(there.st_mode):
                    self._explicit.add(path)
                    self._move(source + b"/" + name, path)
                    os.rmdir(name, dir_fd=old)
                elif stat.S_ISDIR(status.st_mode) and is_whiteout(there):
                    os.unlink(name, dir_fd=new)
                    os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
                    self._mark_opaque(path)
                elif is_whiteout(status):
                    if stat.S_ISDIR(there.st_mode):
                        self._mark_opaque(path)
                    os.unlink(name, dir_fd=old)
                else:
                    raise Malformed(f"{shown(path)}: the layer has it twice, as {shown(source + b'/' + name)} too")

    def _make_way(self, path: bytes) -> None:
        """Make the directories of a path in this layer, with the attributes that the merged tree has for them."""
        here = b""
        for name in path.split(b"/") if path else []:
            parent, here = here, here + b"/" + name if here else name
            found = self._merged.walk(here, follow=False)
            if found is None or not stat.S_ISDIR(found.status.st_mode):
                raise Malformed(f"{shown(here)}: not a directory, but something is to be in it")
            if found.layer == 0:
                continue
            with self._kept(parent) as fd:
                os.mkdir(name, 0o700, dir_fd=fd)
            with self._directory(here) as fd, self._merged.opened(found.layer, here) as model:
                _copy_attributes(model, fd, found.status)

    # Hard links

    def _settle_link(self, name: bytes, target: bytes) -> None:
        found = self._merged.walk(target, follow=False)
        if found is None:
            raise Malformed(f"{shown(name)}: a hard link to {shown(target)}, which neither this layer has nor one below")
        if stat.S_ISDIR(found.status.st_mode):
            raise Malformed(f"{shown(name)}: a hard link to {shown(target)}, which is a directory")
        source, _, old = found.path.rpartition(b"/")
        if found.layer:
            self._copy_up(found, source, old)
        parent, _, new = name.rpartition(b"/")
        place = self._merged.walk(parent, follow=True)
        if place is None:
            raise Malformed(f"{shown(parent)}: not a directory, but something is to be in it")
        self._make_way(place.path)
        with self._directory(source) as old_fd, self._kept(place.path) as new_fd:
            try:
                os.link(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
            except FileExistsError:
                raise Malformed(f"{shown(name)}: the layer has it twice") from None

    def _copy_up(self, found: Found, parent: bytes, name: bytes) -> None:
        """A file of a lower layer into this one, as overlayfs does when it is changed."""
        self._make_way(parent)
        status = found.status
        with self._kept(parent) as fd, self._merged.opened(found.layer, parent) as lower:
            if stat.S_ISREG(status.st_mode):
                _copy_file(lower, fd, name)
                return
            if stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(name, dir_fd=lower), name, dir_fd=fd)
            else:
                os.mknod(name, status.st_mode, status.st_rdev, dir_fd=fd)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=fd, follow_symlinks=False)
            os.utime(name, ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=fd, follow_symlinks=False)

    # Directories of this layer

    def _mark_opaque(self, path: bytes) -> None:
        with self._directory(path) as fd:
            os.setxattr(fd, opaque_name(self._xattrs), b"y")

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        fd = libc.open_directory(self._roots[0], path)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _kept(self, path: bytes) -> Iterator[int]:
        """A directory to change the contents of; its mode and times are the same afterwards."""
        with self._directory(path) as fd:
            status = os.fstat(fd)
            closed = os.geteuid() and status.st_mode & 0o700 != 0o700
            if closed:
                os.fchmod(fd, status.st_mode & 0o7777 | 0o700)
            yield fd
            if closed:
                os.fchmod(fd, status.st_mode & 0o7777)
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _moved(path: bytes, moved: dict[bytes, bytes]) -> bytes:
    """A path after the directories in `moved` went from where they were."""
    for old, new in moved.items():
        if path.startswith(old + b"/"):
            path = new + path[len(old) :]
    return path


def _copy_file(source: int, destination: int, name: bytes) -> None:
    old = os.open(name, os.O_RDONLY | _FILE | os.O_NONBLOCK, dir_fd=source)
    try:
        new = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=destination)
        try:
            status = os.fstat(old)
            try:
                fcntl.ioctl(new, libc.FICLONE, old)
            except OSError:  # most file systems cannot share data
                left = status.st_size
                while left > 0 and (copied := os.copy_file_range(old, new, left)):
                    left -= copied
            _copy_attributes(old, new, status)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_attributes(source: int, destination: int, status: os.stat_result) -> None:
    """Owner, mode, extended attributes and times, in the order in which none undoes another."""
    os.fchown(destination, status.st_uid, status.st_gid)
    os.fchmod(destination, stat.S_IMODE(status.st_mode))
    try:
        names = os.listxattr(source)
    except OSError as err:
        if err.errno != errno.ENOTSUP:
            raise
        names = []
    for name in names:
        if kept(os.fsencode(name)):
            os.setxattr(destination, name, os.getxattr(source, name))
    os.utime(destination, ns=(status.st_mtime_ns, status.st_mtime_ns))
