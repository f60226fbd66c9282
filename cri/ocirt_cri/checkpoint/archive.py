"""The archive of a checkpoint, by the names that CRI-O, containerd and checkpointctl know.

checkpoint/                CRIU's images
config.dump, status.dump   what the container is, as JSON
spec.dump                  its config.json
rootfs-diff.tar            what it has written over its image
deleted.files              what it has removed of it, a JSON list of paths
dump.log                   CRIU's log
container.log              what it has said so far
"""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from typing import TYPE_CHECKING

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
                for inside, outside in _changes(upper, lowers, deleted):
                    _add(inner, outside, inside)
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


def _add(archive: tarfile.TarFile, outside: str, inside: str) -> None:
    """One file with its owner, times and extended attributes, but for overlayfs' own."""
    entry = archive.gettarinfo(outside, inside)
    if entry is None:  # a socket: it is nothing without who listens
        return
    entry.pax_headers = {
        f"SCHILY.xattr.{name}": os.getxattr(outside, name, follow_symlinks=False).decode("utf-8", "surrogateescape")
        for name in os.listxattr(outside, follow_symlinks=False)
        if not name.startswith("trusted.overlay.")
    }
    if entry.isreg():
        with open(outside, "rb") as file:
            archive.addfile(entry, file)
    else:
        archive.addfile(entry)


def _changes(upper: str, lowers: Sequence[str], deleted: list[str]) -> Iterator[tuple[str, str]]:
    """Paths in the root and where they are, of all that was written; `deleted` gets what was removed."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        names = sorted(os.listdir(f"{upper}/{here}"))
        if here and _is_opaque(f"{upper}/{here}"):
            below = {name for lower in lowers for name in _names(f"{lower}/{here}")}
            deleted += [f"{here}/{name}" for name in sorted(below - set(names))]
        for name in names:
            inside = f"{here}/{name}" if here else name
            found = os.lstat(f"{upper}/{inside}")
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
                deleted.append(inside)
                continue
            if stat.S_ISDIR(found.st_mode):
                waiting.append(inside)
            yield inside, f"{upper}/{inside}"


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _names(path: str) -> list[str]:
    """Of a directory of a layer; none if it is none. Marks of deletion among them do no harm: they are deleted anyway."""
    try:
        return os.listdir(path) if not os.path.islink(path) else []
    except OSError:
        return []
