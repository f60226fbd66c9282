"""What a layer may cost. Bombs end here, with an error that names the layer and the limit."""

from __future__ import annotations

from dataclasses import dataclass


class LimitExceeded(Exception):
    """A layer wants more than `Limits` gives. The message says of what, and how much was allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of one layer. The defaults are far above what real images need."""

    entries: int = 2_000_000
    """Headers in the archive, metadata not counted."""
    size: int = 1 << 40
    """Bytes of the archive when inflated, and bytes of the largest file (holes count there)."""
    ratio: int = 200
    """How many times larger than its compressed bytes a layer may get, beyond the first `ratio_from` bytes."""
    ratio_from: int = 1 << 30
    """Inflated bytes from which the ratio is looked at: a small file of zeros is no bomb."""
    path: int = 4095
    """Bytes of a path or of a link's target. No system call of Linux takes more (PATH_MAX)."""
    depth: int = 256
    """Components of a path."""
    metadata: int = 1 << 20
    """Bytes of one extended header: a pax record set, a long name."""
    segments: int = 1 << 18
    """Pieces of data in a sparse file."""
    xattr: int = 1 << 16
    """Bytes of one extended attribute's value (XATTR_SIZE_MAX)."""
    xattrs: int = 1 << 18
    """Bytes of all extended attributes of a file, names included."""

    def check(self, name: str, value: int, what: str) -> None:
        """Raises LimitExceeded if `value` is above the limit called `name`; `what` is a noun phrase for the message."""
        limit: int = getattr(self, name)
        if value > limit:
            raise LimitExceeded(f"{what}: {value} is more than the limit of {limit} ({name})")

    def check_ratio(self, inflated: int, compressed: int) -> None:
        """Raises LimitExceeded when a stream has grown too much."""
        if inflated > self.ratio_from and inflated > self.ratio * compressed:
            raise LimitExceeded(
                f"{compressed} compressed bytes have become {inflated}: more than {self.ratio} times as many (ratio)"
            )
