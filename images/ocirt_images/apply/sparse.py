"""Maps of sparse files: where the pieces of data that the archive holds belong."""

from __future__ import annotations

from ocirt_images.apply.limits import Limits
from ocirt_images.apply.names import Malformed
from ocirt_images.apply.pax import MAP, Records, decimal


def is_sparse(records: Records) -> bool:
    """Whether the pax records say that the file's data is a sparse one's (GNU's formats 0.0, 0.1 and 1.0)."""
    return MAP in records or records.get(b"GNU.sparse.major") == b"1" or b"GNU.sparse.numblocks" in records


class Map:
    """Collects (offset, length) pairs, whatever the format, and judges them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.begin()

    def begin(self) -> None:
        """Start over for another file."""
        self._pairs: list[tuple[int, int]] = []
        self._text = bytearray()
        self._lines = 0

    def add(self, offset: int, length: int) -> None:
        """One more piece. Raises LimitExceeded."""
        self._pairs.append((offset, length))
        self._limits.check("segments", len(self._pairs), "pieces of a sparse file")

    def add_text(self, text: bytes) -> None:
        """Pieces as `offset,length,offset,length,…`. Raises Malformed, LimitExceeded."""
        numbers = text.split(b",") if text else []
        if len(numbers) % 2:
            raise Malformed("the map of a sparse file has an odd number of numbers")
        for at in range(0, len(numbers), 2):
            self.add(decimal(numbers[at], MAP.decode()), decimal(numbers[at + 1], MAP.decode()))

    def add_block(self, block: bytes) -> bool:
        """A block of format 1.0: a count, then offsets and lengths, one number a line. True when the map is complete.

        Raises Malformed, LimitExceeded.
        """
        self._text += block
        self._lines += block.count(b"\n")
        first, newline, _ = bytes(self._text[:32]).partition(b"\n")
        if not newline:
            raise Malformed("the map of a sparse file does not begin with a count")
        count = decimal(first, "the map of a sparse file")
        self._limits.check("segments", count, "pieces of a sparse file")
        if self._lines < 1 + 2 * count:
            # A number has 20 digits at most, so this ends.
            self._limits.check("metadata", len(self._text), "bytes in the map of a sparse file")
            return False
        lines = bytes(self._text).split(b"\n")[1 : 1 + 2 * count]
        self.add_text(b",".join(lines))
        return True

    def finish(self, size: int, stored: int) -> list[tuple[int, int]]:
        """The pieces that hold data, for a file of `size` bytes of which `stored` are in the archive. Raises Malformed."""
        position = total = 0
        for offset, length in self._pairs:
            if offset < position or length < 0:
                raise Malformed("the pieces of a sparse file overlap")
            position = offset + length
            total += length
        if position > size:
            raise Malformed("a piece of a sparse file lies beyond its end")
        if total != stored:
            raise Malformed(f"the pieces of a sparse file have {total} bytes, its data {stored}")
        return [pair for pair in self._pairs if pair[1]]
