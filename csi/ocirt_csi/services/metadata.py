"""SnapshotMetadata: which bytes of a block volume's snapshot have data, or differ from an older one's."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from ocirt_api.csi import api_pb2 as csi
from ocirt_csi import checks
from ocirt_csi.driver import Driver
from ocirt_csi.errors import Error, RangeError
from ocirt_csi.kernel import calls, extents
from ocirt_csi.model import Snapshot

_AT_ONCE = 1024  # ranges of one answer, if the caller does not say
_MOST = 65536
_PIECE = 64 << 10  # bytes that are compared at once: the unit of what differs
_JOINED = 16 << 20  # bytes of one range of differences, at most

Range = tuple[int, int]


class MetadataService:
    """Streams of ranges, in order."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def GetMetadataAllocated(self, request: csi.GetMetadataAllocatedRequest) -> Iterator[csi.GetMetadataAllocatedResponse]:
        """Ranges with data, from an offset on."""
        snapshot = self._snapshot(request.snapshot_id, "snapshot_id")
        _check(request.starting_offset, request.max_results, snapshot.size)
        with self._driver.keys.hold(shared=[f"snapshot {snapshot.id}"]), self._opened(snapshot) as fd:
            for found in _pages(extents.data(fd, request.starting_offset, snapshot.size), request.max_results):
                yield csi.GetMetadataAllocatedResponse(
                    block_metadata_type=csi.VARIABLE_LENGTH, volume_capacity_bytes=snapshot.size, block_metadata=found
                )

    def GetMetadataDelta(self, request: csi.GetMetadataDeltaRequest) -> Iterator[csi.GetMetadataDeltaResponse]:
        """Ranges that differ between two snapshots of one volume."""
        base = self._snapshot(request.base_snapshot_id, "base_snapshot_id")
        target = self._snapshot(request.target_snapshot_id, "target_snapshot_id")
        if base.volume != target.volume:
            raise Error("invalid", "are of different volumes", subject="base_snapshot_id, target_snapshot_id")
        _check(request.starting_offset, request.max_results, target.size)
        shared = [f"snapshot {base.id}", f"snapshot {target.id}"]
        with (
            self._driver.keys.hold(shared=shared),
            self._opened(base) as first,
            self._opened(target) as second,
        ):
            found = differences(first, second, request.starting_offset, target.size)
            for page in _pages(found, request.max_results):
                yield csi.GetMetadataDeltaResponse(
                    block_metadata_type=csi.VARIABLE_LENGTH, volume_capacity_bytes=target.size, block_metadata=page
                )

    def _snapshot(self, identifier: str, field: str) -> Snapshot:
        snapshot = self._driver.snapshot(checks.identifier(identifier, field))
        if not snapshot.block:
            raise Error("invalid", "is not of a block volume", subject=field)
        return snapshot

    @contextlib.contextmanager
    def _opened(self, snapshot: Snapshot) -> Iterator[int]:
        pool = self._driver.pool_of(snapshot)
        with pool.back_end(snapshot).reading(pool.place(snapshot)) as path, calls.opened(path, os.O_RDONLY) as fd:
            yield fd


def differences(first: int, second: int, start: int, end: int) -> Iterator[Range]:
    """Where two files differ, in pieces of 64 KiB that are joined: (first byte, byte behind the last)."""
    begin = -1
    last = -1
    for at, length in _pieces(first, second, start, end):
        differ = os.pread(first, length, at).ljust(length, b"\0") != os.pread(second, length, at).ljust(length, b"\0")
        if begin >= 0 and (not differ or at != last or at - begin >= _JOINED):
            yield begin, last
            begin = -1
        if differ:
            begin = at if begin < 0 else begin
            last = at + length
    if begin >= 0:
        yield begin, last


def _pieces(first: int, second: int, start: int, end: int) -> Iterator[Range]:
    """Offset and length of the pieces where one of two files has data, in order."""
    sources = [extents.data(fd, start, end) for fd in (first, second)]
    heads = [next(one, None) for one in sources]
    at = start
    while True:
        left = [one for one in heads if one is not None]
        if not left:
            return
        at = max(at, min(one[0] for one in left) // _PIECE * _PIECE, start)
        length = min(_PIECE - at % _PIECE, end - at)
        yield at, length
        at += length
        heads = [_beyond(at, head, source) for head, source in zip(heads, sources, strict=True)]
        if at >= end:
            return


def _beyond(at: int, head: Range | None, source: Iterator[Range]) -> Range | None:
    """The first range that does not end before a byte."""
    while head is not None and head[1] <= at:
        head = next(source, None)
    return head


def _pages(ranges: Iterable[Range], most: int) -> Iterator[list[csi.BlockMetadata]]:
    page: list[csi.BlockMetadata] = []
    for start, end in ranges:
        page.append(csi.BlockMetadata(byte_offset=start, size_bytes=end - start))
        if len(page) >= (most or _AT_ONCE):
            yield page
            page = []
    if page:
        yield page


def _check(offset: int, most: int, size: int) -> None:
    if offset < 0 or offset >= size:
        raise RangeError(f"is not below {size}", subject="starting_offset")
    if not 0 <= most <= _MOST:
        raise Error("invalid", f"is not within 0 and {_MOST}", subject="max_results")
