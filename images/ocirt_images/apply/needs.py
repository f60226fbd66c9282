"""What a layer's archive leaves open, because only the layers below can tell; `settle` does it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ocirt_images.apply.names import Malformed, clean, shown

Json = dict[str, Any]


@dataclass(slots=True)
class Needs:
    """Paths are relative to the layer's root, cleaned; the root itself is empty."""

    parents: list[bytes] = field(default_factory=list)
    """Directories that the archive implies but does not describe, parents first: the lower layers know their attributes."""
    links: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(name, target) of hard links to what this layer does not have."""
    opaque: list[bytes] = field(default_factory=list)
    """Directories that hide what the lower layers have in them. The mark of root's mounts is an
    attribute that a worker may not set."""

    whiteouts: list[bytes] = field(default_factory=list)
    """What hides something of the lower layers, if it does: overlayfs lists one that hides nothing."""

    def json(self) -> Json:
        """As JSON; bytes that are no UTF-8 are kept as surrogates."""
        return {
            "parents": [os.fsdecode(path) for path in self.parents],
            "links": [[os.fsdecode(name), os.fsdecode(target)] for name, target in self.links],
            "opaque": [os.fsdecode(path) for path in self.opaque],
            "whiteouts": [os.fsdecode(path) for path in self.whiteouts],
        }

    @classmethod
    def parse(cls, value: Json) -> Needs:
        """The reverse of `json`. Raises Malformed for a path that is not clean, which no worker in its senses says."""
        return cls(
            parents=[_clean(path) for path in value["parents"]],
            links=[(_clean(name), _clean(target)) for name, target in value["links"]],
            opaque=[_clean(path) for path in value["opaque"]],
            whiteouts=[_clean(path) for path in value["whiteouts"]],
        )


def _clean(path: str) -> bytes:
    name = os.fsencode(path)
    if b"/".join(clean(name)) != name:
        raise Malformed(f"{shown(name)}: not a clean path")
    return name
