"""Which bytes of a file are there: a map of ranges that outlives a SIGKILL, in a file beside it.

The file is a head and a table of slots, each the start and end of a range; unused slots are zero. Writing a slot is one
write(2) of 16 bytes into the page cache: a kill comes before or after it. When two ranges grow together, one slot takes both
before the other is cleared, so what a kill leaves is at most named twice.

After a power cut the page cache is gone, and bytes that the map names may be zeros. So a map counts in the boot in which it was
written, or if its owner had the file synced and said so when he left.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from ocirt_images.store.changes import Changes

_HEAD = struct.Struct("=8sQQ16s")  # magic, size of the content, whether it was synced, boot
_SLOT = struct.Struct("=QQ")
_MAGIC = b"ocirtmap"
_TABLE = 64
SLOTS = 1020  # more ranges than this at once are remembered only by their owner


class Received:
    """The ranges of one file. Callers see to it that one thread at a time calls it."""

    def __init__(self, path: Path, size: int, length: int, changes: Changes) -> None:
        """size: of the whole content; length: of its file now, where no range can reach beyond."""
        self._path = path
        self._size = size
        self._changes = changes
        self._ranges: list[tuple[int, int, int]] = []  # start, end, slot (-1: none); sorted, apart from each other
        self._descriptor = changes.create(path)
        try:
            found = _read(os.pread(self._descriptor, _TABLE + SLOTS * _SLOT.size, 0), size)
            if found is None:
                changes.truncate(self._descriptor, 0, path)
            changes.write_at(self._descriptor, _HEAD.pack(_MAGIC, size, False, boot()), 0, path)
            known = [one for one in found or () if one[1] <= length]
            self._slots = sorted(set(range(SLOTS)) - {slot for _, _, slot in known}, reverse=True)
            for start, end, slot in known:
                self._merge(start, end, slot)
            for _, _, slot in set(found or ()) - set(known):
                self._write(slot, 0, 0)
        except BaseException:
            self.close()
            raise

    @property
    def prefix(self) -> int:
        """How many bytes from the beginning are there without a gap."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    @property
    def total(self) -> int:
        """How many bytes are there."""
        return sum(end - start for start, end, _ in self._ranges)

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The ranges that are not there: start and end."""
        edges = [0, *(edge for start, end, _ in self._ranges for edge in (start, end)), self._size]
        return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """What is not there of the bytes from `start` to `end`: start and end of each gap."""
        return [(max(start, first), min(end, last)) for first, last in self.gaps if first < end and start < last]

    def add(self, start: int, end: int) -> None:
        """These bytes are there now."""
        if start < end:
            self._merge(start, end, -1)

    def _merge(self, start: int, end: int, own: int) -> None:
        """own: the slot where this range stands already, or -1."""
        touching = [one for one in self._ranges if one[0] <= end and start <= one[1]]
        slots = [slot for _, _, slot in [*touching, (start, end, own)] if slot >= 0]
        if not slots and self._slots:
            slots.append(self._slots.pop())
        whole = min([start, *(one[0] for one in touching)]), max([end, *(one[1] for one in touching)])
        if slots and (*whole, slots[0]) not in (*touching, (start, end, own)):
            self._write(slots[0], *whole)
        for slot in slots[1:]:
            self._write(slot, 0, 0)
            self._slots.append(slot)
        rest = [one for one in self._ranges if one not in touching]
        self._ranges = sorted([*rest, (*whole, slots[0] if slots else -1)])

    def keep(self) -> None:
        """What the map says holds after a power cut, too: the caller has synced the file."""
        self._changes.fsync(self._descriptor, self._path)
        self._changes.write_at(self._descriptor, _HEAD.pack(_MAGIC, self._size, True, boot()), 0, self._path)
        self._changes.fsync(self._descriptor, self._path)

    def close(self) -> None:
        """Lets go of the file."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _write(self, slot: int, start: int, end: int) -> None:
        self._changes.write_at(self._descriptor, _SLOT.pack(start, end), _TABLE + slot * _SLOT.size, self._path)


def boot() -> bytes:
    """Which boot of this machine it is."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return bytes.fromhex(file.read().decode("ascii").replace("-", ""))


def _read(data: bytes, size: int) -> list[tuple[int, int, int]] | None:
    """The ranges in a map's file and their slots. None: it is not for content of this size, or not to be trusted."""
    if len(data) < _TABLE:
        return None
    magic, said, synced, when = _HEAD.unpack_from(data)
    if magic != _MAGIC or said != size or not (synced or when == boot()):
        return None
    table = data[_TABLE : len(data) - (len(data) - _TABLE) % _SLOT.size]
    return sorted((start, end, slot) for slot, (start, end) in enumerate(_SLOT.iter_unpack(table)) if start < end <= size)
