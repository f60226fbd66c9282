"""The archive of a checkpoint, by the names that CRI-O, containerd and checkpointctl know.

checkpoint/                CRIU's images
config.dump, status.dump   what the container is, as JSON
spec.dump                  its config.json
rootfs-diff.tar            what it has written over its image
deleted.files              what it has removed of it, a JSON list of paths
dump.log                   CRIU's log
container.log              what it has said so far

What a container has written is its own: its directories and files are opened by descriptor, and no link among them is followed.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ocirt.kernel.resolve import open_no_links

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IMAGES = "checkpoint"
LOG = "dump.log"
_DIFFERENCES = "rootfs-diff.tar"
_DELETED = "deleted.files"
_MODE = 0o600
_OPAQUE = "trusted.overlay.opaque"  # of overlayfs: nothing below it counts


def write(path: str, images: str, texts: Mapping[str, bytes], container_log: str, upper: str, lowers: Sequence[str]) -> None:
    """Write it to a new file at `path`. images: CRIU's directory; texts: files by name; upper, lowers: of the overlay.

    container_log: "" for none. Raises OSError, also if the file is there.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    with open(fd, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in texts.items():
            _add_text(archive, name, data)
        for name in sorted(os.listdir(images)):
            archive.add(f"{images}/{name}", LOG if name == LOG else f"{IMAGES}/{name}", recursive=False)
        if container_log and os.path.exists(container_log):
            archive.add(container_log, "container.log", recursive=False)
        deleted: list[str] = []
        differences = f"{images}/{_DIFFERENCES}"
        try:
            with tarfile.open(differences, "w", format=tarfile.PAX_FORMAT) as inner:
                for inside, directory in _changes(upper, lowers, deleted):
                    _add(inner, directory, inside)
            archive.add(differences, _DIFFERENCES, recursive=False)
        finally:
            os.unlink(differences)
        _add_text(archive, _DELETED, json.dumps(deleted).encode())
        archive.close()
        file.flush()
        os.fsync(fd)


def _add_text(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), _MODE
    archive.addfile(entry, io.BytesIO(data))


def _add(archive: tarfile.TarFile, directory: int, inside: str) -> None:
    """One file of an open directory with its owner, times and extended attributes, but for overlayfs' own."""
    name = os.path.basename(inside)
    if stat.S_ISREG(os.lstat(name, dir_fd=directory).st_mode):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        with open(fd, "rb") as file:
            entry = archive.gettarinfo(arcname=inside, fileobj=file)
            if entry is not None:  # it may be a socket by now
                entry.pax_headers = _attributes(fd)
                archive.addfile(entry, file if entry.isreg() else None)
        return
    outside = f"/proc/self/fd/{directory}/{name}"
    entry = archive.gettarinfo(outside, inside)
    if entry is None:  # a socket: it is nothing without who listens
        return
    entry.pax_headers = _attributes(outside)
    archive.addfile(entry)


def _attributes(of: int | str) -> dict[str, str]:
    """Extended attributes, as records of a tar archive. of: a descriptor, or a path whose last part is not followed."""
    follow = isinstance(of, int)
    return {
        f"SCHILY.xattr.{name}": os.getxattr(of, name, follow_symlinks=follow).decode("utf-8", "surrogateescape")
        for name in os.listxattr(of, follow_symlinks=follow)
        if not name.startswith("trusted.overlay.")
    }


def _changes(upper: str, lowers: Sequence[str], deleted: list[str]) -> Iterator[tuple[str, int]]:
    """Paths in the root of all that was written, each with its open directory; `deleted` gets what was removed."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with _directory(upper, here) as fd:
            names = sorted(os.listdir(fd))
            if here and _is_opaque(fd):
                below = {name for lower in lowers for name in _names(lower, here)}
                deleted += [f"{here}/{name}" for name in sorted(below - set(names))]
            for name in names:
                inside = f"{here}/{name}" if here else name
                found = os.lstat(name, dir_fd=fd)
                if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                    deleted.append(inside)
                    continue
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(inside)
                yield inside, fd


@contextmanager
def _directory(top: str, inside: str) -> Iterator[int]:
    """A directory below `top`, open. Raises OSError, also if there is a link on the way."""
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_no_links(root, inside or ".", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError:
        return False


def _names(lower: str, inside: str) -> list[str]:
    """Of a directory of a layer; none if it is none. Marks of deletion among them do no harm: they are deleted anyway."""
    try:
        with _directory(lower, inside) as fd:
            return os.listdir(fd)
    except OSError:
        return []
