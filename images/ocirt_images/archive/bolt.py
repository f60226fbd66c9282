"""Reads a bbolt database (go.etcd.io/bbolt), in which containerd keeps its metadata. It never writes.

The file is an array of pages. Numbers are little-endian on every machine that containerd is built for.

    page     id u64, flags u16, count u16, overflow u32 (further pages that belong to it); then its elements
    meta     flags 4, pages 0 and 1: magic, version, page size, flags u32; root bucket; freelist, pages, transaction, checksum u64
    branch   flags 1: position u32, key size u32, page u64 for each child
    leaf     flags 2: flags u32, position u32, key size u32, value size u32 for each entry
    bucket   root page u64, sequence u64; with root 0 a leaf page follows, in the value itself

A position counts from where its element begins. An entry of a leaf with flag 1 is a bucket. Of the two meta pages the one of the
later transaction is valid, if its checksum (FNV-1a, 64 bits) is right.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PAGE = struct.Struct("<QHHI")
_META = struct.Struct("<IIIIQQQQQQ")
_BRANCH = struct.Struct("<IIQ")
_LEAF = struct.Struct("<IIII")
_BUCKET = struct.Struct("<QQ")
_MAGIC, _VERSION = 0xED0CDAED, 2
_IS_BRANCH, _IS_LEAF, _IS_META = 1, 2, 4
_DEEPEST = 64  # buckets in one another; containerd has eight


class Bucket:
    """A sorted map of keys to values and to further buckets."""

    def __init__(self, pages: _Pages, root: int, inline: memoryview | None, depth: int) -> None:
        self._pages = pages
        self._root = root
        self._inline = inline
        self._depth = depth

    def items(self) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """All entries, by key. Raises Error("corrupt")."""
        if self._depth > _DEEPEST:
            raise self._pages.damaged("buckets without end")
        page = self._inline if self._inline is not None else self._pages.page(self._root)
        yield from self._pages.walk(page, self._depth, {self._root})

    def value(self, key: str) -> bytes:
        """The value of a key, b"" where there is none."""
        found = self._find(key)
        return found if isinstance(found, bytes) else b""

    def bucket(self, *path: str) -> Bucket | None:
        """The bucket at a path of keys, or None."""
        found: Bucket = self
        for key in path:
            below = found._find(key)
            if not isinstance(below, Bucket):
                return None
            found = below
        return found

    def buckets(self) -> list[str]:
        """The keys of the buckets in this one."""
        return [key.decode(errors="replace") for key, value in self.items() if isinstance(value, Bucket)]

    def _find(self, key: str) -> bytes | Bucket | None:
        wanted = key.encode()
        return next((value for found, value in self.items() if found == wanted), None)


class _Pages:
    """The pages of a file."""

    def __init__(self, data: memoryview, subject: str) -> None:
        self._data = data
        self._subject = subject
        self._size = 0
        metas = [meta for meta in map(self._meta, self._meta_places()) if meta is not None]
        if not metas:
            raise Error("invalid", "not a bolt database", subject=subject)
        _, self._size, self.root = max(metas)

    def damaged(self, what: str) -> Error:
        """The error for something that cannot be so."""
        return Error("corrupt", f"the database is damaged: {what}", subject=self._subject)

    def _meta_places(self) -> list[int]:
        """Where meta pages may lie: at the beginning, and one page further, whose size only the first knows."""
        try:
            size = _META.unpack_from(self._data, _PAGE.size)[2]
        except struct.error:
            return []
        # If the first is torn, the size is whatever the machine's pages are.
        return [0, size] if 512 <= size <= 1 << 16 else [0, mmap.PAGESIZE]

    def _meta(self, place: int) -> tuple[int, int, int] | None:
        """Transaction, page size and root page of a meta page, or None if it is none that is whole."""
        start = place + _PAGE.size
        try:
            flags = _PAGE.unpack_from(self._data, place)[1]
            magic, version, size, _, root, _, _, _, transaction, checksum = _META.unpack_from(self._data, start)
        except struct.error:
            return None
        body = self._data[start : start + _META.size - 8]
        if not flags & _IS_META or (magic, version) != (_MAGIC, _VERSION) or checksum != _fnv(body):
            return None
        return transaction, size, root

    def page(self, number: int) -> memoryview:
        """A page with those that belong to it."""
        start = number * self._size
        try:
            found, _, _, overflow = _PAGE.unpack_from(self._data, start)
        except struct.error:
            raise self.damaged(f"page {number} is behind its end") from None
        if found != number:
            raise self.damaged(f"page {number} says that it is {found}")
        return self._data[start : start + (1 + overflow) * self._size]

    def walk(self, page: memoryview, depth: int, seen: set[int]) -> Iterator[tuple[bytes, bytes | Bucket]]:
        """The entries of a page and of those below it, of a bucket `depth` buckets down. seen: pages that were walked through."""
        try:
            _, flags, count, _ = _PAGE.unpack_from(page)
            for index in range(count):
                if flags & _IS_BRANCH:
                    child = _BRANCH.unpack_from(page, _PAGE.size + index * _BRANCH.size)[2]
                    if child in seen:
                        raise self.damaged(f"page {child} is in a tree twice")
                    seen.add(child)
                    yield from self.walk(self.page(child), depth, seen)
                elif flags & _IS_LEAF:
                    yield self._entry(page, _PAGE.size + index * _LEAF.size, depth)
                else:
                    raise self.damaged(f"a page with flags {flags}")
        except struct.error:
            raise self.damaged("a page that ends too early") from None

    def _entry(self, page: memoryview, place: int, depth: int) -> tuple[bytes, bytes | Bucket]:
        flags, position, key_size, value_size = _LEAF.unpack_from(page, place)
        start = place + position
        middle, end = start + key_size, start + key_size + value_size
        if end > len(page):
            raise self.damaged("an entry that leaves its page")
        key = bytes(page[start:middle])
        if not flags & 1:
            return key, bytes(page[middle:end])
        root, _ = _BUCKET.unpack_from(page, middle)
        return key, Bucket(self, root, None if root else page[middle + _BUCKET.size : end], depth + 1)


def _fnv(data: memoryview) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return found


def read(path: Path) -> Bucket:
    """The database in a file, as it is now: its uppermost bucket.

    Raises Error("in-use") while a program has it open for writing, Error("invalid") if it is none, Error("corrupt"), OSError.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Error("in-use", "a program has it open", subject=str(path)) from None
        pages = _Pages(memoryview(file.read()), str(path))
    return Bucket(pages, pages.root, None, 0)
