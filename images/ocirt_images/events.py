"""What a pull, a push or a load reports while it is at work: one small object for each thing that happened.

They go to a callback, from whatever thread it happened in. A layer is named by the digest of its (compressed) content. For each
image: `Resolved`, a `LayerKnown` for each layer in the manifest's order, then what happens to them in any order, each ending in
`LayerDone`; at last `Done`. Of an image that is there already, as a whole, there are the first and the last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ocirt_images.digest import Digest


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for is known. platform: of the manifest, as in `linux/amd64`; host: who said it, e.g. a mirror."""

    name: str
    digest: Digest
    platform: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class LayerKnown:
    """There is a layer of `size` bytes."""

    layer: Digest
    size: int


@dataclass(frozen=True, slots=True)
class LayerProgress:
    """`moved` bytes of it have been received, or sent; those that were there from an earlier try count."""

    layer: Digest
    moved: int


@dataclass(frozen=True, slots=True)
class LayerWaiting:
    """Somebody else fetches it at the moment, and has `moved` bytes of it."""

    layer: Digest
    moved: int


@dataclass(frozen=True, slots=True)
class LayerUnpacking:
    """It is here, and is being unpacked: `unpacked` of its compressed bytes are."""

    layer: Digest
    unpacked: int = 0


@dataclass(frozen=True, slots=True)
class LayerDone:
    """Nothing is left to do for it. how: "" if it was moved, `exists` if it was there, `mounted` from another repository."""

    layer: Digest
    how: str = ""


@dataclass(frozen=True, slots=True)
class Retrying:
    """A transfer failed and will be tried again. reason: one line; seconds: until then."""

    layer: Digest | None
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """The image is where it should be. digest: of what the name stands for; image_id: the configuration's digest."""

    name: str
    digest: Digest
    image_id: Digest | None = None


Event = Resolved | LayerKnown | LayerProgress | LayerWaiting | LayerUnpacking | LayerDone | Retrying | Done
OnEvent = Callable[[Event], None]


def ignore(_: Event) -> None:
    """The callback of who does not want to know."""
