"""Contents of files by their extents: shared copies, copies that keep holes, and what belongs to one file alone."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ocirt_csi.kernel import calls

_FICLONE = 0x40049409
_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=2Q4I")
_EXTENT = struct.Struct("=3Q2Q4I")
_SYNC = 1  # FIEMAP_FLAG_SYNC: what is on its way goes to the disk first
_LAST, _UNWRITTEN, _SHARED = 1, 0x800, 0x2000
_AT_ONCE = 500  # extents of one call
_BLOCK = 4096
_PIECE = 64 << 20  # bytes of one call
_THREADS, _AT_A_TIME = 4, 1 << 20  # who copy, and bytes of one read or write
_CANNOT = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


def clone(source: int, target: int) -> bool:
    """Let a file share all of another's blocks. Returns whether the file system can. Raises OSError."""
    try:
        calls.ioctl(target, "FICLONE", _FICLONE, source)
    except OSError as err:
        if err.errno in _CANNOT:
            return False
        raise
    return True


def copy(source: int, target: int, length: int) -> None:
    """Copy the first `length` bytes, but for the holes: the target has zeros there. Raises OSError.

    By several threads and past the kernel's cache, which keeps the disk busy; copy_file_range reads,
    then writes, and leaves what it wrote to be waited for. What has no whole blocks, and a file system that cannot do it, is
    left to that.
    """
    pieces: deque[tuple[int, int]] = deque()
    rest = []
    for start, end in data(source, 0, length):
        _allocate(target, start, end - start)
        whole = end - end % _BLOCK if not start % _BLOCK else start
        pieces.extend((at, min(_AT_A_TIME, whole - at)) for at in range(start, whole, _AT_A_TIME))
        if whole < end:
            rest.append((whole, end))
    if pieces and not _copied_directly(source, target, pieces):
        rest = list(data(source, 0, length))
    for start, end in rest:
        at = start
        while at < end:
            sys.audit(calls.AUDIT, "copy_file_range")
            done = os.copy_file_range(source, target, min(end - at, _PIECE), at, at)
            if not done:
                return
            at += done


def _allocate(fd: int, start: int, length: int) -> None:
    """Have blocks in one piece, as those who write them at once would not."""
    try:
        calls.allocate(fd, start, length)
    except OSError as err:
        if err.errno not in _CANNOT:
            raise


def _copied_directly(source: int, target: int, pieces: deque[tuple[int, int]]) -> bool:
    """Copy pieces, each a first byte and a length, all of whole blocks. Returns whether the file systems can. Raises OSError."""
    direct = os.O_DIRECT | os.O_CLOEXEC
    try:
        with (
            calls.opened(f"/proc/self/fd/{source}", os.O_RDONLY | direct) as old,
            calls.opened(f"/proc/self/fd/{target}", os.O_WRONLY | direct) as new,
            ThreadPoolExecutor(min(_THREADS, len(pieces)), "copy") as threads,
        ):
            for one in [threads.submit(_copy_pieces, old, new, pieces) for _ in range(min(_THREADS, len(pieces)))]:
                one.result()
    except OSError as err:
        if err.errno not in _CANNOT:
            raise
        return False
    return True


def _copy_pieces(source: int, target: int, pieces: deque[tuple[int, int]]) -> None:
    """Copy pieces until there are none left, with others who do."""
    with mmap.mmap(-1, _AT_A_TIME) as buffer, memoryview(buffer) as view:  # which lies as such reads want it
        while True:
            try:
                start, length = pieces.popleft()
            except IndexError:
                return
            try:
                _transfer(os.preadv, source, view, start, length)
                _transfer(os.pwritev, target, view, start, length)
            except BaseException:
                pieces.clear()  # the others need not go on
                raise


def _transfer(call: Callable[[int, list[memoryview], int], int], fd: int, view: memoryview, start: int, length: int) -> None:
    done = 0
    while done < length:
        with view[done:length] as part:
            count = call(fd, [part], start + done)
        if not count:
            raise OSError(errno.EIO, "ends too early", "copy")
        done += count


def fill(source: int, target: int, length: int) -> None:
    """The same for a file in memory and one of zeros: zeros are not written. Raises OSError."""
    sys.audit(calls.AUDIT, "fill")
    for start, size, _ in _seen(source, 0, length):
        for at in range(start, start + size, _BLOCK):
            block = os.pread(source, min(_BLOCK, start + size - at), at)
            if any(block):
                os.pwrite(target, block, at)


def data(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, in order: (first byte, byte behind the last). Blocks that were never written have none.

    As its extents say, and not as SEEK_DATA does, which takes what was read (ext4) or cloned (btrfs) for written. Raises OSError.
    """
    begin = last = -1
    for logical, length, flags in _extents(fd, start, end, _SYNC):
        if flags & _UNWRITTEN:
            continue
        first, behind = max(logical, start), min(logical + length, end)
        if first != last:
            if last > begin:
                yield begin, last
            begin = first
        last = behind
    if last > begin:
        yield begin, last


def amount(path: str) -> int:
    """Bytes of data in a file. Raises OSError."""
    with calls.opened(path, os.O_RDONLY) as fd:
        return sum(end - start for start, end in data(fd, 0, os.fstat(fd).st_size))


def can_share(folder: str) -> bool:
    """Whether files in a folder can share blocks, as two without a name are made to. One that cannot have such files cannot."""
    flags = os.O_RDWR | os.O_TMPFILE
    try:
        with calls.opened(folder, flags) as source, calls.opened(folder, flags) as target:
            os.write(source, bytes(_BLOCK))
            return clone(source, target)
    except OSError:
        return False


def exclusive(path: str) -> int:
    """Bytes on disk that this file alone has; those that it shares with another are left out. Raises OSError."""
    with calls.opened(path, os.O_RDONLY) as fd:
        length = os.fstat(fd).st_size
        return sum(size for _, size, flags in _extents(fd, 0, length, 0) if not flags & _SHARED)


def _extents(fd: int, start: int, end: int, wanted: int) -> Iterator[tuple[int, int, int]]:
    """First byte, length and flags of each extent (Documentation/filesystems/fiemap.rst)."""
    at = start
    while at < end:
        request = _HEAD.pack(at, end - at, wanted, 0, _AT_ONCE, 0) + bytes(_EXTENT.size * _AT_ONCE)
        try:
            answer = calls.ioctl(fd, "FIEMAP", _FIEMAP, request)
        except OSError as err:
            if err.errno not in _CANNOT:
                raise
            yield from _seen(fd, at, end)  # tmpfs, say, which cannot share either
            return
        mapped = _HEAD.unpack_from(answer)[3]
        for number in range(mapped):
            logical, _, length, _, _, flags, *_ = _EXTENT.unpack_from(answer, _HEAD.size + number * _EXTENT.size)
            yield logical, length, flags
            at = logical + length
            if flags & _LAST:
                return
        if not mapped:
            return


def _seen(fd: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    at = start
    while at < end:
        try:
            first = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                return
            if err.errno == errno.EINVAL:  # a block device, which does not tell
                yield at, end - at, 0
                return
            raise
        at = os.lseek(fd, first, os.SEEK_HOLE)
        yield first, at - first, 0
