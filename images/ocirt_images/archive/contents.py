"""What all kinds of archives come to: images, and under which name each blob is found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocirt_images.archive.files import Files
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of an archive.

    targets: manifests or indexes; of several, the one for the wanted platform is meant
    names: full references; tag: what stands for a name where there is none, a bare tag as a rule
    """

    targets: tuple[Descriptor, ...]
    names: tuple[str, ...] = ()
    tag: str = ""


@dataclass(slots=True)
class Archive:
    """An archive that is read.

    places: the files of blobs that are not found under `blobs/`
    made: manifests that the archive does not have, and that were made from what it has
    tags: names of images by the digests of their configurations, for images that have none otherwise
    """

    files: Files
    entries: list[Entry]
    places: dict[Digest, str] = field(default_factory=dict)
    made: dict[Digest, bytes] = field(default_factory=dict)
    tags: dict[Digest, tuple[str, ...]] = field(default_factory=dict)

    def place(self, digest: Digest) -> str:
        """The file of a blob."""
        return self.places.get(digest) or f"blobs/{digest.algorithm}/{digest.encoded}"
