"""The files of an archive by name, wherever they lie: in a directory, in a tar that can be sought in, in a tar that passes once.

A tar is never unpacked: its names are keys, and what they hold is read from where it stands. Its entries are few, so the standard
library reads its headers; a layer's tar, which is long and comes from strangers, has a reader of its own.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ocirt_images import manifest
from ocirt_images.archive import streams
from ocirt_images.digest import ALGORITHMS, Digest
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from ocirt_images.archive.streams import Reader

_MOST_ENTRIES = 100_000  # files in an archive: an image has some hundreds
_MOST_LINKS = 40  # as the kernel follows
_MOST_METADATA = 64 << 20  # bytes of small files kept in memory, of a stream


class Files(Protocol):
    """An archive's files. Names are relative, with slashes; links are followed, within the archive."""

    subject: str  # what the archive is called, for errors

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name."""

    def read(self, name: str, limit: int = manifest.LIMIT) -> bytes:
        """A small file. Raises Error("not-found"), Error("invalid") if it is longer than `limit` bytes."""

    def digest(self, name: str) -> Digest:
        """The digest of a file (sha256). Raises Error("not-found")."""

    def open(self, name: str) -> AbstractContextManager[tuple[Reader, int]]:
        """A file, to be read once, as a context manager: its reader and its size. Raises Error("not-found")."""


class _Common:
    """What follows from `open`."""

    subject: str

    def open(self, name: str) -> AbstractContextManager[tuple[Reader, int]]:
        raise NotImplementedError

    def read(self, name: str, limit: int = manifest.LIMIT) -> bytes:
        """A small file."""
        with self.open(name) as (reader, _):
            return streams.whole(reader, limit, f"{self.subject}: {name}")

    def digest(self, name: str) -> Digest:
        """The digest of a file."""
        hasher = hashlib.sha256()
        with self.open(name) as (reader, _):
            while data := reader.read(streams.CHUNK):
                hasher.update(data)
        return Digest.from_hash(hasher)

    def missing(self, name: str) -> Error:
        """The error for a file that is not there."""
        return Error("not-found", f"there is no {name} in it", subject=self.subject, hint="the archive is incomplete")


class Directory(_Common):
    """The files below a directory."""

    def __init__(self, path: Path) -> None:
        self.subject = str(path)
        self._root = path.resolve()

    def _find(self, name: str) -> Path | None:
        path = (self._root / name).resolve()
        return path if path.is_relative_to(self._root) and path.is_file() else None

    def has(self, name: str) -> bool:
        """Whether there is a regular file of that name, or a link to one below the directory."""
        return self._find(name) is not None

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Reader, int]]:
        """A file's reader and its size."""
        path = self._find(name)
        if path is None:
            raise self.missing(name)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield streams.Descriptor(fd), os.fstat(fd).st_size
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file of a tar: a link's `target`, or else where it lies and how long it is."""

    target: str = ""
    offset: int = 0
    size: int = 0


class _Entries(_Common):
    """The names in a tar, and the links between them."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._entries: dict[str, _Entry] = {}

    def _add(self, member: tarfile.TarInfo, offset: int) -> str:
        """Note an entry. Returns the name of a regular file, "" for anything else."""
        if len(self._entries) >= _MOST_ENTRIES:
            raise Error("invalid", f"more than {_MOST_ENTRIES} files", subject=self.subject, hint="this is no archive of images")
        name = _inside(member.name)
        if member.issym():
            self._entries[name] = _Entry(target=_inside(posixpath.join(posixpath.dirname(name), member.linkname)))
        elif member.islnk():
            self._entries[name] = _Entry(target=_inside(member.linkname))
        elif member.isreg() and not member.issparse():
            self._entries[name] = _Entry(offset=offset, size=member.size)
            return name
        return ""

    def _find(self, name: str) -> tuple[str, _Entry] | None:
        """The regular file that a name stands for, and its own name."""
        for _ in range(_MOST_LINKS):
            name = _inside(name)
            found = self._entries.get(name)
            if found is None or not found.target:
                return None if found is None else (name, found)
            name = found.target
        return None

    def has(self, name: str) -> bool:
        """Whether a regular file of that name is in the tar."""
        return self._find(name) is not None

    def _existing(self, name: str) -> tuple[str, _Entry]:
        found = self._find(name)
        if found is None:
            raise self.missing(name)
        return found


class SeekableTar(_Entries):
    """The files of an uncompressed tar in a file: one pass over its headers, then each is read where it lies."""

    def __init__(self, fd: int, subject: str) -> None:
        super().__init__(subject)
        self._fd = fd
        for member, forward in _members(_Sought(fd), subject):
            self._add(member, forward.tell())

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Reader, int]]:
        """A file's reader and its size."""
        entry = self._existing(name)[1]
        yield streams.Part(self._fd, entry.offset, entry.size), entry.size


class StreamedTar(_Entries):
    """The files of a tar that passes once (a pipe, a compressed file), which is read to its end at once.

    A blob whose digest is its name goes to `keep`, which takes it where it shall be, so that it is not held here. Small files
    are held in memory, others in files without a name in the directory `scratch`. What may be a manifest is held as well: kept,
    it would keep all that it points to.
    """

    def __init__(self, reader: Reader, subject: str, keep: Callable[[Digest, int, Reader], None], scratch: Path) -> None:
        super().__init__(subject)
        self._held: dict[str, bytes] = {}
        self._spooled: dict[str, int] = {}
        self._digests: dict[str, Digest] = {}
        held = 0
        try:
            for member, forward in _members(reader, subject):
                name = self._add(member, 0)
                if not name:
                    continue
                contents: Reader = _Member(forward, member.size, f"{subject}: {name}")
                digest = blob_digest(name)
                small = member.size <= manifest.LIMIT and held + member.size <= _MOST_METADATA
                if digest is not None:
                    head = contents.read(1)
                    contents = streams.Rewound(head, contents)
                    small = small and head == b"{"
                if digest is not None and not small:
                    keep(digest, member.size, contents)
                elif small:
                    self._held[name] = streams.whole(contents, member.size, name)
                    held += member.size
                else:
                    self._spool(name, contents, scratch)
        except BaseException:
            self.close()
            raise

    def _spool(self, name: str, contents: Reader, scratch: Path) -> None:
        hasher = hashlib.sha256()
        with tempfile.TemporaryFile(dir=scratch, buffering=0) as file:
            while data := contents.read(streams.CHUNK):
                hasher.update(data)
                file.write(data)
            self._spooled[name] = os.dup(file.fileno())
        self._digests[name] = Digest.from_hash(hasher)

    def digest(self, name: str) -> Digest:
        """The digest of a file."""
        found = self._existing(name)[0]
        return self._digests.get(found) or blob_digest(found) or Digest.of(self._held[found])

    @contextmanager
    def open(self, name: str) -> Iterator[tuple[Reader, int]]:
        """A file's reader and its size."""
        found, entry = self._existing(name)
        if found in self._held:
            yield streams.Rewound(self._held[found], _Nothing()), entry.size
        elif found in self._spooled:
            yield streams.Part(self._spooled[found], 0, entry.size), entry.size
        else:  # a blob, which was kept elsewhere
            raise self.missing(name)

    def close(self) -> None:
        """Let go of what was spooled."""
        for fd in self._spooled.values():
            os.close(fd)
        self._spooled.clear()


class _Nothing:
    def read(self, _: int, /) -> bytes:
        return b""


class _Sought:
    """Reads a file from its beginning; what is skipped is not read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        os.lseek(fd, 0, os.SEEK_SET)

    def read(self, size: int, /) -> bytes:
        return os.read(self.fd, size)


class _Skipping(streams.Forward):
    """Skips by seeking."""

    def __init__(self, source: _Sought) -> None:
        super().__init__(source)
        self._fd = source.fd

    def seek(self, position: int, /) -> int:
        if position > self._position:
            self._position = os.lseek(self._fd, position, os.SEEK_SET)
        return self._position


class _Member:
    """Reads what one entry of a tar holds."""

    def __init__(self, forward: streams.Forward, size: int, subject: str) -> None:
        self._forward = forward
        self._left = size
        self._subject = subject

    def read(self, size: int, /) -> bytes:
        data = self._forward.some(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise Error("corrupt", "the archive ends in it", subject=self._subject, cause=f"{self._left} bytes are missing")
        self._left -= len(data)
        return data


def _members(reader: Reader | _Sought, subject: str) -> Iterator[tuple[tarfile.TarInfo, streams.Forward]]:
    """A tar's entries, each with the stream that stands at its contents. Raises Error("invalid") if it is none."""
    forward = _Skipping(reader) if isinstance(reader, _Sought) else streams.Forward(reader)
    try:
        archive = tarfile.TarFile(fileobj=cast("None", forward), errorlevel=2)
        while (member := archive.next()) is not None:
            yield member, forward
    except tarfile.TarError as err:
        raise Error(
            "invalid", "not a tar", subject=subject, cause=str(err), hint="an OCI layout or docker save is wanted"
        ) from None


def _inside(name: str) -> str:
    """A name as a key: one that leads out of the archive leads to nothing."""
    return posixpath.normpath("/" + name).lstrip("/")


def blob_digest(name: str) -> Digest | None:
    """The digest that a layout's blob has for its name: `blobs/sha256/HEX`."""
    match _inside(name).split("/"):
        case ["blobs", algorithm, encoded] if len(encoded) == ALGORITHMS.get(algorithm):
            try:
                return Digest(f"{algorithm}:{encoded}")
            except Error:
                return None
        case _:
            return None


@contextmanager
def opened(source: Path | int, subject: str, keep: Callable[[Digest, int, Reader], None], scratch: Path) -> Iterator[Files]:
    """The files of an archive at a path, or of an open descriptor. `keep` and `scratch` are `StreamedTar`'s.

    Raises Error("invalid") if it is neither a directory nor a tar, OSError.
    """
    if isinstance(source, Path) and source.is_dir():
        yield Directory(source)
        return
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if isinstance(source, Path) else source
    try:
        head = os.pread(fd, 4, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        if head is not None and not streams.compression(head):
            yield SeekableTar(fd, subject)
            return
        tar = StreamedTar(streams.plain(streams.Descriptor(fd), subject), subject, keep, scratch)
        try:
            yield tar
        finally:
            tar.close()
    finally:
        if isinstance(source, Path):
            os.close(fd)
