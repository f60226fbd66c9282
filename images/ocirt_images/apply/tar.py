"""A tar reader without I/O: bytes in, entries and slices of their data out.

It reads what writers of layers write: ustar, GNU's extensions (long names, sparse files, base-256 numbers), pax (local and global
headers, sparse 0.0, 0.1 and 1.0, extended attributes), star's and v7's headers. Sources: POSIX.1-2017 pax, GNU tar's manual
("Basic Tar Format", "Sparse Formats").

File data is never copied: what comes out are slices of the pieces that went in.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from ocirt_images.apply import pax, sparse
from ocirt_images.apply.entry import CHARACTER, DIRECTORY, FILE, LINK, SYMLINK, Entry
from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed, shown

BLOCK_SIZE = 512
_ZEROS = bytes(BLOCK_SIZE)
# name, mode, uid, gid, size, mtime, checksum, type, link, magic and version, user, group, major, minor, prefix, the rest
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
_POSIX, _GNU = b"ustar\x0000", b"ustar  \0"
_OCTAL = re.compile(rb"[0-7]+")
# Types without data, whatever their size field says: hard links of some writers carry the size of the file that they link to.
_NO_DATA = frozenset(b"123456"[at : at + 1] for at in range(6))
_KINDS = _NO_DATA | {FILE}
_GNU_SPARSE = b"S"

Item = Entry | memoryview
_Step = Callable[[bytes], Entry | None]

# Modes, owners and times repeat: most numbers of an archive are found here.
_numbers: dict[bytes, int] = {}


class Reader:
    """Feed it the archive in pieces of any size; iterate over what `feed` returns before feeding more.

    After an Entry come slices of its data, `entry.stored` bytes in total. `close` at the end of the archive.
    Raises Malformed and LimitExceeded.
    """

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008  (it is immutable)
        self._limits = limits
        self._data = 0  # bytes of file data that are still to come
        self._skip = 0  # bytes to pass over after that
        self._wanted = BLOCK_SIZE  # bytes of metadata to collect, and what to do with them
        self._then: _Step = self._header
        self._partial = bytearray()
        self._zero_blocks = 0
        self._globals: pax.Records = {}
        self._locals: pax.Records | None = None
        self._long_name = self._long_link = b""
        self._map = sparse.Map(limits)
        self.ended = False

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Item]:
        """What the next piece of the archive holds. Slices are valid as long as `data` is."""
        view = memoryview(data)
        position, end = 0, len(view)
        while position < end and not self.ended:
            if self._data:
                taken = min(self._data, end - position)
                self._data -= taken
                yield view[position : position + taken]
            elif self._skip:
                taken = min(self._skip, end - position)
                self._skip -= taken
            else:
                taken = min(self._wanted - len(self._partial), end - position)
                if taken == self._wanted:
                    entry = self._then(bytes(view[position : position + taken]))
                else:
                    self._partial += view[position : position + taken]
                    if len(self._partial) < self._wanted:
                        return
                    collected = bytes(self._partial)
                    self._partial.clear()
                    entry = self._then(collected)
                if entry is not None:
                    yield entry
            position += taken

    def close(self) -> None:
        """The archive ends here. Raises Malformed if it does so within an entry.

        An archive may lack the two blocks of zeros at its end, as long as it ends between two entries.
        """
        unfinished = self._data or self._skip or self._partial or self._then != self._header
        if not self.ended and (unfinished or self._locals is not None or self._long_name or self._long_link):
            raise Malformed("the archive is truncated")

    # Headers

    def _header(self, block: bytes) -> Entry | None:
        if block == _ZEROS:
            self._zero_blocks += 1
            self.ended = self._zero_blocks == 2
            return None
        if self._zero_blocks:
            raise Malformed("a header after a block of zeros")
        fields = _HEADER.unpack(block)
        name, mode, uid, gid, size_field, mtime, checksum, kind, link, magic, major, minor, prefix, rest = fields
        _verify(block, checksum)
        size = _number(size_field)
        if size < 0 or size >> 63:
            raise Malformed(f"{shown(_cut(name))}: a size of {size}")
        if kind in b"xXgLK":
            self._extended(kind, size)
            return None
        name = _cut(name)
        if kind == b"\0":
            kind = DIRECTORY if name.endswith(b"/") else FILE
        elif kind == b"7":
            kind = FILE  # "contiguous", on systems that know such files
        if prefix[0] and magic == _POSIX:
            if rest.endswith(b"tar\0"):  # star keeps its times at the prefix's end
                prefix = prefix[:131]
            name = _cut(prefix) + b"/" + name
        entry = Entry(
            kind,
            name,
            link=_cut(link) if link[0] else b"",
            mode=_number(mode) & 0o7777,
            uid=_number(uid),
            gid=_number(gid),
            size=size,
            mtime=pax.bounded(_number(mtime)) * 10**9,
        )
        if CHARACTER <= kind <= b"4":
            entry.device = (_number(major), _number(minor))
        return self._complete(entry, block)

    def _complete(self, entry: Entry, block: bytes) -> Entry | None:
        """Apply what extended headers said, and see what follows the header."""
        records = self._globals
        if self._locals is not None:
            records = {**records, **self._locals} if records else self._locals
            self._locals = None
        if records:
            self._correct(entry, records)
        if self._long_name:
            entry.name, self._long_name = self._long_name, b""
        if self._long_link:
            entry.link, self._long_link = self._long_link, b""
        if entry.uid < 0 or entry.gid < 0 or entry.uid >= 0xFFFFFFFF or entry.gid >= 0xFFFFFFFF:
            # The last one means "leave it" to chown(2).
            raise Malformed(f"{shown(entry.name)}: no such owner: {entry.uid}:{entry.gid}")
        if entry.kind in _KINDS:
            return self._begin(entry, records)
        if entry.kind == _GNU_SPARSE:
            return self._begin_gnu_sparse(entry, block)
        if entry.kind == b"D":  # GNU's incremental dumps: a directory with the names of its files for data
            skipped, entry.kind, entry.size, entry.stored = entry.size, DIRECTORY, 0, 0
            self._skip = _padded(skipped)
            return entry
        if entry.kind == b"V":  # a volume's label
            self._skip = _padded(entry.size)
            return None
        raise Malformed(f"{shown(entry.name)}: an entry of type {entry.kind!r}, which means nothing to a container")

    def _correct(self, entry: Entry, records: pax.Records) -> None:
        size = records.get(b"size")
        if size:
            entry.size = entry.stored = pax.decimal(size, "size")
            if entry.size >> 63:
                raise Malformed(f"{shown(entry.name)}: a size of {entry.size}")
        pax.correct(entry, records, self._limits)

    def _begin(self, entry: Entry, records: pax.Records) -> Entry | None:
        """Say what data comes after a complete header."""
        if entry.kind in _NO_DATA:
            entry.size = entry.stored = 0
            if not entry.link and entry.kind in (LINK, SYMLINK):
                raise Malformed(f"{shown(entry.name)}: a link without a target")
            return entry
        if records and sparse.is_sparse(records):
            return self._begin_pax_sparse(entry, records)
        return self._with_data(entry)

    def _with_data(self, entry: Entry) -> Entry:
        if entry.size > self._limits.size:
            self._limits.check("size", entry.size, f"the size of {shown(entry.name)}")
        self._data = entry.stored
        self._skip = -entry.stored % BLOCK_SIZE
        return entry

    # Extended headers: their data is collected, and kept for the entry after them

    def _extended(self, kind: bytes, size: int) -> None:
        self._limits.check("metadata", size, "bytes in an extended header")
        takers = {b"L": self._take_long_name, b"K": self._take_long_link, b"g": self._take_globals}
        take = takers.get(kind, self._take_locals)
        if size == 0:
            take(b"")
            return
        self._collect(_padded(size), lambda data: take(data[:size]))

    def _collect(self, size: int, then: _Step) -> None:
        self._wanted, self._then = size, then

    def _expect_header(self) -> None:
        self._wanted, self._then = BLOCK_SIZE, self._header

    def _take_locals(self, data: bytes) -> None:
        self._locals = pax.parse(data)
        self._expect_header()

    def _take_globals(self, data: bytes) -> None:
        records = {key: value for key, value in pax.parse(data).items() if not key.startswith(b"GNU.sparse.")}
        self._globals.update(records)
        total = sum(len(key) + len(value) for key, value in self._globals.items())
        self._limits.check("metadata", total, "bytes in global headers")
        self._expect_header()

    def _take_long_name(self, data: bytes) -> None:
        self._long_name = _cut(data)
        self._expect_header()

    def _take_long_link(self, data: bytes) -> None:
        self._long_link = _cut(data)
        self._expect_header()

    # Sparse files

    def _begin_gnu_sparse(self, entry: Entry, block: bytes) -> Entry | None:
        entry.kind = FILE
        entry.size = _number(block[483:495])
        self._map.begin()
        for at in range(386, 482, 24):
            self._gnu_segment(block, at)
        if block[482]:
            self._collect(BLOCK_SIZE, lambda more: self._more_gnu_sparse(entry, more))
            return None
        return self._mapped(entry)

    def _more_gnu_sparse(self, entry: Entry, block: bytes) -> Entry | None:
        for at in range(0, 504, 24):
            self._gnu_segment(block, at)
        if block[504]:
            return None
        self._expect_header()
        return self._mapped(entry)

    def _gnu_segment(self, block: bytes, at: int) -> None:
        if block[at] or block[at + 12]:
            self._map.add(_number(block[at : at + 12]), _number(block[at + 12 : at + 24]))

    def _begin_pax_sparse(self, entry: Entry, records: pax.Records) -> Entry | None:
        name = records.get(b"GNU.sparse.name")
        if name:
            entry.name = pax.text(name, "GNU.sparse.name")
        size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        entry.size = pax.decimal(size, "GNU.sparse.size") if size else entry.size
        self._map.begin()
        if pax.MAP in records:
            self._map.add_text(records[pax.MAP])
            return self._mapped(entry)
        # Format 1.0: the map is at the head of the data, in blocks of its own.
        self._collect(BLOCK_SIZE, lambda block: self._more_pax_sparse(entry, block))
        return None

    def _more_pax_sparse(self, entry: Entry, block: bytes) -> Entry | None:
        entry.stored -= BLOCK_SIZE
        if entry.stored < 0:
            raise Malformed(f"{shown(entry.name)}: the map of a sparse file is longer than its data")
        if not self._map.add_block(block):
            return None
        self._expect_header()
        return self._mapped(entry)

    def _mapped(self, entry: Entry) -> Entry:
        try:
            entry.sparse = self._map.finish(entry.size, entry.stored)
        except Malformed as err:
            raise Malformed(f"{shown(entry.name)}: {err}") from None
        return self._with_data(entry)


def _padded(size: int) -> int:
    return size + -size % BLOCK_SIZE


def _cut(field: bytes) -> bytes:
    """A field up to its first zero byte."""
    end = field.find(0)
    return field if end < 0 else field[:end]


def _verify(block: bytes, field: bytes) -> None:
    """Compare a header's checksum, which is the sum of its bytes with the field itself taken as spaces. Raises Malformed.

    Adler-32's lower half is that sum modulo 65521, at a tenth of the time that `sum` takes; where it differs, the sum of signed
    bytes may still be right, which some old writers used.
    """
    wanted = _number(field)
    known = 8 * 0x20 - sum(field)
    if zlib.adler32(block) & 0xFFFF == (1 + wanted - known) % 65521:
        return
    negative = sum(one > 127 for one in block) - sum(one > 127 for one in field)
    if wanted != sum(block) + known - 256 * negative:
        raise Malformed(f"{shown(_cut(block[:100]))}: a header with a wrong checksum")


def _number(field: bytes) -> int:
    """A number in octal, or in base 256 if its first bit is set. Raises Malformed."""
    known = _numbers.get(field)
    if known is not None:
        return known
    if field[0] & 0x80:
        top = 1 << (8 * len(field) - 1)
        value = int.from_bytes(field, "big") - top
        if field[0] & 0x40:
            value -= top
    else:
        text = _cut(field.strip(b" \0")).rstrip(b" ")
        if text and not _OCTAL.fullmatch(text):
            raise Malformed(f"a header with {shown(field)!r} where a number should be")
        value = int(text or b"0", 8)
    if len(_numbers) < 4096:
        _numbers[field] = value
    return value
