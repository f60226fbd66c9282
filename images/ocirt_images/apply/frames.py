"""Where the frames of a zstd stream end (RFC 8878, 3.1): libzstd's readers do not tell a truncated stream from a whole one."""

from __future__ import annotations

from collections.abc import Callable

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte of 0x50 to 0x5f
_SIZES_OF_ID = (0, 1, 2, 4)
_SIZES_OF_SIZE = (0, 2, 4, 8)
_RLE = 1


class Frames:
    """Follows frames and blocks of a stream that is fed to it in pieces of any size. Of the data it looks at nothing.

    What is no frame it leaves to the decompressor to refuse.
    """

    def __init__(self) -> None:
        self._skip = 0
        self._partial = bytearray()
        self._wanted = 4
        self._then: Callable[[bytes], None] = self._magic
        self._checksum = False
        self._lost = False

    @property
    def complete(self) -> bool:
        """Whether the stream may end here: after a frame, or before the first."""
        return self._lost or (not self._skip and not self._partial and self._then == self._magic)

    def feed(self, data: bytes) -> None:
        """The next piece of the stream."""
        position, end = 0, len(data)
        while position < end and not self._lost:
            if self._skip:
                taken = min(self._skip, end - position)
                self._skip -= taken
            else:
                taken = min(self._wanted - len(self._partial), end - position)
                self._partial += data[position : position + taken]
                if len(self._partial) == self._wanted:
                    field = bytes(self._partial)
                    self._partial.clear()
                    self._then(field)
            position += taken

    def _expect(self, size: int, then: Callable[[bytes], None]) -> None:
        self._wanted, self._then = size, then

    def _magic(self, field: bytes) -> None:
        if field == _MAGIC:
            self._expect(1, self._descriptor)
        elif field[1:] == _SKIPPABLE and field[0] >> 4 == 5:
            self._expect(4, self._skippable)
        else:
            self._lost = True

    def _skippable(self, field: bytes) -> None:
        self._skip = int.from_bytes(field, "little")
        self._expect(4, self._magic)

    def _descriptor(self, field: bytes) -> None:
        flags = field[0]
        single = bool(flags & 0x20)
        self._checksum = bool(flags & 4)
        self._skip = (not single) + _SIZES_OF_ID[flags & 3] + (_SIZES_OF_SIZE[flags >> 6] or single)
        self._expect(3, self._block)

    def _block(self, field: bytes) -> None:
        header = int.from_bytes(field, "little")
        self._skip = 1 if (header >> 1) & 3 == _RLE else header >> 3
        if header & 1:
            self._skip += 4 * self._checksum
            self._expect(4, self._magic)
