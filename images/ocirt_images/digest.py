"""Digests: `algorithm:encoded` (image-spec, descriptor.md "Digests")."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from hashlib import _Hash

# Algorithm: length of its encoded part, in characters. What is not here cannot be verified, so it is refused.
ALGORITHMS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class Digest(str):
    """A checked digest. It is a string, so it sorts, hashes and prints as one."""

    __slots__ = ()

    def __new__(cls, text: str, subject: str = "") -> Digest:
        """Raises Error("invalid", "unsupported") that names `subject`."""
        algorithm, colon, encoded = text.partition(":")
        if not colon or not algorithm:
            raise Error("invalid", f"{text[:80]!r} is no digest", subject=subject, hint="sha256: and 64 hexadecimal digits")
        length = ALGORITHMS.get(algorithm)
        if length is None:
            raise Error(
                "unsupported", f"digest algorithm {algorithm[:40]!r}", subject=subject, hint="sha256 and sha512 are known"
            )
        if len(encoded) != length or not _HEX.fullmatch(encoded):
            wanted = f"{algorithm}: and {length} lower-case hexadecimal digits"
            raise Error("invalid", f"{text[:160]!r} is no digest", subject=subject, hint=wanted)
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of `data`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @classmethod
    def from_hash(cls, hasher: _Hash) -> Digest:
        """The digest that a hash of hashlib has come to."""
        return cls(f"{hasher.name}:{hasher.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """The hexadecimal digits."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """Twelve digits, for a person."""
        return self.encoded[:12]

    def hasher(self) -> _Hash:
        """A new hash of this digest's algorithm."""
        return hashlib.new(self.algorithm)


def chain_ids(diff_ids: list[Digest]) -> list[Digest]:
    """The ChainID of each layer, from the lowest up (image-spec, config.md "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        chain.append(Digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return chain
