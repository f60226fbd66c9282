"""Where things lie in a store: the names of its files, and nothing of what is in them.

lock                        flock: shared by users, exclusive for repair and migrations; byte N: lease N (see leases.py)
database                    SQLite
blobs/sha256/HEX            content, mode 0444, as in an OCI layout
ingest/sha256-HEX           content that is being fetched; .map: which bytes of it are there; .lock: who fetches it
layers/ID/fs                a layer's tree; layers/ID/layer.json: which one it is
staging/ID/fs               a layer that is being made; staging/sha256-HEX.lock: who makes the one with that ChainID;
                                staging/writable-ID.lock: who removes that writable layer
writable/ID/{fs,work}       a container's writable layer; writable/ID/writable.json: whose
"""

from __future__ import annotations

from pathlib import Path

from ocirt_images.digest import ALGORITHMS, Digest
from ocirt_images.errors import Error

LOCK = ".lock"
MAP = ".map"
_WRITABLE = "writable-"


class Layout:
    """The paths of the store at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.database = root / "database"
        self.building = root / "database.building"
        self.rebuilt = root / "database.new"
        self.blobs = root / "blobs"
        self.ingests = root / "ingest"
        self.layers = root / "layers"
        self.staging = root / "staging"
        self.writables = root / "writable"

    @property
    def directories(self) -> list[Path]:
        """Every directory that a store has from the beginning, parents first."""
        blobs = [self.blobs / algorithm for algorithm in ALGORITHMS]
        return [self.root, self.blobs, *blobs, self.ingests, self.layers, self.staging, self.writables]

    @property
    def complete(self) -> bool:
        """Whether these are all there."""
        return all(directory.is_dir() for directory in self.directories)

    def blob(self, digest: Digest) -> Path:
        """Committed content."""
        return self.blobs / digest.algorithm / digest.encoded

    def ingest(self, digest: Digest) -> Path:
        """Content on its way."""
        return self.ingests / f"{digest.algorithm}-{digest.encoded}"

    def map(self, digest: Digest) -> Path:
        """Which bytes of it are there."""
        return self.ingests / f"{digest.algorithm}-{digest.encoded}{MAP}"

    def content_lock(self, digest: Digest) -> Path:
        """Held by who makes or removes the file of this content."""
        return self.ingests / f"{digest.algorithm}-{digest.encoded}{LOCK}"

    def layer(self, number: int) -> Path:
        """The directory of a committed layer."""
        return self.layers / str(number)

    def staged(self, number: int) -> Path:
        """The directory of a layer that is being made."""
        return self.staging / str(number)

    def layer_lock(self, chain_id: Digest) -> Path:
        """Held by who makes or removes the layer with this ChainID."""
        return self.staging / f"{chain_id.algorithm}-{chain_id.encoded}{LOCK}"

    def writable(self, number: int) -> Path:
        """The directory of a writable layer."""
        return self.writables / str(number)

    def writable_lock(self, number: int) -> Path:
        """Held by who removes this writable layer."""
        return self.staging / f"{_WRITABLE}{number}{LOCK}"


def parse(name: str) -> Digest | None:
    """The digest in `sha256-HEX`, perhaps with .map or .lock behind it. None: it is no such name."""
    try:
        return Digest(name.removesuffix(LOCK).removesuffix(MAP).replace("-", ":", 1))
    except Error:
        return None


def number(name: str) -> int | None:
    """The number that a directory is named by. None: it is no such name."""
    return int(name) if name.isascii() and name.isdecimal() and str(int(name)) == name else None


def locked_writable(name: str) -> int | None:
    """The number in `writable-ID.lock`. None: it is no such name."""
    return number(name[len(_WRITABLE) : -len(LOCK)]) if name.startswith(_WRITABLE) and name.endswith(LOCK) else None
