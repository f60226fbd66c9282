"""What there is to send of an image, in the order in which a registry takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ocirt_images import held, mediatypes
from ocirt_images.errors import Error
from ocirt_images.manifest import Index, Manifest

if TYPE_CHECKING:
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.digest import Digest
    from ocirt_images.store import Store


@dataclass(slots=True)
class Contents:
    """An image, taken apart.

    layers, configs: by digest, in the manifests' order. manifests: children before what names them, the image's own last.
    absent: manifests that an index names and that are not here, or not whole
    """

    layers: dict[Digest, Descriptor] = field(default_factory=dict)
    configs: dict[Digest, Descriptor] = field(default_factory=dict)
    manifests: dict[Digest, tuple[Descriptor, Manifest | Index]] = field(default_factory=dict)
    absent: list[Descriptor] = field(default_factory=list)

    @property
    def blobs(self) -> dict[Digest, Descriptor]:
        """Layers and configurations."""
        return self.layers | self.configs


def of(store: Store, target: Descriptor) -> Contents:
    """All that is here of an image. Layers that a registry must not hand out are left out: they are only referred to.

    Raises Error("not-found") if nothing is here whole.
    """
    found = Contents()
    if not _add(store, target, found, 0):
        raise Error("not-found", "not all of its content is here", subject=str(target.digest), hint="pull it again")
    return found


def _add(store: Store, target: Descriptor, contents: Contents, depth: int) -> bool:
    """Add a manifest with its blobs, or an index with what is here of it. Whether there was anything."""
    if target.digest in contents.manifests:
        return True
    if not store.content.has(target.digest):
        return False
    found = held.read(store, target)
    if isinstance(found, Index):
        if not _add_children(store, found, contents, depth):
            return False
    else:
        layers = [one for one in found.layers if one.media_type not in mediatypes.NONDISTRIBUTABLE]
        if store.content.missing(one.digest for one in (found.config, *layers)):
            return False
        contents.layers.update((one.digest, one) for one in layers)
        contents.configs[found.config.digest] = found.config
    contents.manifests[target.digest] = target, found
    return True


def _add_children(store: Store, index: Index, contents: Contents, depth: int) -> bool:
    if depth == held.DEEPEST:
        raise Error("invalid", f"more than {held.DEEPEST} indexes in one another")
    known = [one for one in index.manifests if one.media_type in mediatypes.KNOWN]
    here = [one for one in known if _add(store, one, contents, depth + 1)]
    contents.absent += [one for one in known if one not in here]
    return bool(here) or not known
