"""Layers as a plain copy of the tree that they make together: for a bundle that outlives the store, and for who may not mount.

What overlayfs would show is worked out here (a whiteout hides what is below it, an opaque directory what lower layers have in
it), so it needs no rights. Contents are shared with the layers where the file system can do that (FICLONE), else copied within
the kernel.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.snapshots import calls
from ocirt_images.snapshots.tree import OVERLAY_PREFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BELOW = calls.RESOLVE_BENEATH | calls.RESOLVE_NO_SYMLINKS | calls.RESOLVE_NO_XDEV
_CHUNK = 1 << 30
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


def copy_layers(layers: Sequence[Path], target: Path) -> None:
    """Make the directory `target`, with what `layers` (from the lowest up) are together.

    Owners, modes, times, extended attributes, hard links and holes are kept. Raises Error("exists", "exhausted", "unsupported"),
    OSError; what was copied by then is the caller's to remove.
    """
    try:
        target.mkdir(0o755)
    except FileExistsError:
        raise Error("exists", "it is there already", subject=str(target)) from None
    with ExitStack() as held:

        def opened(path: Path) -> int:
            fd = os.open(path, _DIRECTORY)
            held.callback(os.close, fd)
            return fd

        copier = _Copier([opened(path) for path in reversed(layers)], opened(target))
        try:
            copier.run()
        except OSError as err:
            where = str(target / copier.at)
            if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE):
                raise Error("exhausted", "copying", subject=where, cause=os.strerror(err.errno)) from None
            if err.errno == errno.EPERM:
                hint = "owners and devices of an image can be made by root, or by the root of a user namespace that has their ids"
                raise Error("unsupported", "copying", subject=where, cause=os.strerror(err.errno), hint=hint) from None
            err.filename = err.filename or where
            raise


class _Copier:
    """One copy. layers: descriptors, from the topmost down; target: one. at: the path that is being worked on."""

    def __init__(self, layers: list[int], target: int) -> None:
        self._layers = layers
        self._target = target
        self._links: dict[tuple[int, int], str] = {}
        self._directories: list[tuple[str, os.stat_result]] = []
        self._clones = True
        self.at = ""

    def run(self) -> None:
        waiting = [("", list(range(len(self._layers))))]
        while waiting:
            path, members = waiting.pop()
            waiting += self._directory(path, members)
        # Last and from the inside out, as each entry made in a directory changes its times, and its mode may forbid to make one.
        for path, found in reversed(self._directories):
            self.at = path
            fd = self._open(self._target, path)
            try:
                os.chmod(fd, stat.S_IMODE(found.st_mode))
                os.utime(fd, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(fd)

    @staticmethod
    def _open(root: int, path: str) -> int:
        return calls.open_beneath(root, path or ".", _DIRECTORY, _BELOW)

    def _directory(self, path: str, members: list[int]) -> list[tuple[str, list[int]]]:
        """Fill one directory from those layers that have a part in it. Returns its directories, with theirs."""
        into = self._open(self._target, path)
        decided: set[str] = set()  # what lower layers say of these does not count
        below: dict[str, list[int]] = {}
        try:
            for place, member in enumerate(members):
                source = self._open(self._layers[member], path)
                try:
                    if place == 0:
                        self._begin(path, source, into)
                    with os.scandir(source) as entries:
                        found = [(entry.name, entry.stat(follow_symlinks=False)) for entry in entries]
                    for name, entry in found:
                        if name in decided:
                            continue
                        if stat.S_ISDIR(entry.st_mode):
                            below.setdefault(name, []).append(member)
                            if member == members[-1] or _is_opaque(source, name):
                                decided.add(name)
                            continue
                        decided.add(name)
                        if name not in below and not (stat.S_ISCHR(entry.st_mode) and entry.st_rdev == 0):
                            self._entry(member, source, into, path, name, entry)
                finally:
                    os.close(source)
            prefix = f"{path}/" if path else ""
            for name in below:
                os.mkdir(name, 0o700, dir_fd=into)
            return [(prefix + name, having) for name, having in below.items()]
        finally:
            os.close(into)

    def _begin(self, path: str, source: int, into: int) -> None:
        """The attributes of a directory are those of the topmost layer that has it."""
        self.at = path
        found = os.stat(source)
        _own(into, found)
        for name in os.listxattr(source):
            if not name.startswith(OVERLAY_PREFIXES):
                os.setxattr(into, name, os.getxattr(source, name))
        self._directories.append((path, found))

    def _entry(self, member: int, source: int, into: int, path: str, name: str, found: os.stat_result) -> None:
        self.at = f"{path}/{name}" if path else name
        if found.st_nlink > 1:
            first = self._links.setdefault((member, found.st_ino), self.at)
            if first != self.at:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=into, follow_symlinks=False)
                return
        if stat.S_ISREG(found.st_mode):
            self._file(source, into, name, found)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=into)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=into)
        if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(name, found.st_uid, found.st_gid, dir_fd=into, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=into)
        origin, place = f"/proc/self/fd/{source}/{name}", f"/proc/self/fd/{into}/{name}"
        for attribute in os.listxattr(origin, follow_symlinks=False):
            if not attribute.startswith(OVERLAY_PREFIXES):
                os.setxattr(place, attribute, os.getxattr(origin, attribute, follow_symlinks=False), follow_symlinks=False)
        os.utime(name, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=into, follow_symlinks=False)

    def _file(self, source: int, into: int, name: str, found: os.stat_result) -> None:
        origin = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
        try:
            copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=into)
            try:
                if found.st_size:
                    self._contents(origin, copy, found)
                _own(copy, found)
                os.fchmod(copy, stat.S_IMODE(found.st_mode))
                # After the owner: chown(2) takes security.capability away.
                for attribute in os.listxattr(origin):
                    if not attribute.startswith(OVERLAY_PREFIXES):
                        os.setxattr(copy, attribute, os.getxattr(origin, attribute))
                os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))
            finally:
                os.close(copy)
        finally:
            os.close(origin)

    def _contents(self, origin: int, copy: int, found: os.stat_result) -> None:
        if self._clones:
            try:
                fcntl.ioctl(copy, calls.FICLONE, origin)
            except OSError as err:
                if err.errno not in _NO_CLONE:
                    raise
                self._clones = False  # nor will it for the next
            else:
                return
        if found.st_blocks * 512 >= found.st_size:
            _copy_range(origin, copy, 0, found.st_size)
            return
        at = 0
        while at < found.st_size:
            try:
                start = os.lseek(origin, at, os.SEEK_DATA)
            except OSError as err:
                if err.errno != errno.ENXIO:  # nothing but a hole from here on
                    raise
                break
            at = os.lseek(origin, start, os.SEEK_HOLE)
            _copy_range(origin, copy, start, at)
        os.ftruncate(copy, found.st_size)


def _copy_range(origin: int, copy: int, start: int, stop: int) -> None:
    """Copy bytes `start` to `stop`, within the kernel where both file systems can."""
    try:
        while start < stop:
            done = os.copy_file_range(origin, copy, min(stop - start, _CHUNK), start, start)
            if not done:
                raise OSError(errno.EIO, "the file is shorter than it was")
            start += done
    except OSError as err:
        if err.errno not in _NO_CLONE:
            raise
        while start < stop:
            data = os.pread(origin, min(stop - start, 1 << 20), start)
            if not data:
                raise OSError(errno.EIO, "the file is shorter than it was") from None
            start += os.pwrite(copy, data, start)


def _own(fd: int, wanted: os.stat_result) -> None:
    now = os.stat(fd)
    if (now.st_uid, now.st_gid) != (wanted.st_uid, wanted.st_gid):
        os.fchown(fd, wanted.st_uid, wanted.st_gid)


def _is_opaque(directory: int, name: str) -> bool:
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        for attribute in _OPAQUE:
            try:
                if os.getxattr(fd, attribute) == b"y":
                    return True
            except OSError as err:
                if err.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                    raise
        return False
    finally:
        os.close(fd)
