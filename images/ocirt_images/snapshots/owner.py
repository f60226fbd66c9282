"""For whom a writable layer is: a container made by `ocirt run --image`, or a bundle that `ocirt bundle --mount` made."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from ocirt_images.errors import Error

ANNOTATION = "org.ocirt.image.writable"  # of config.json: the number of the writable layer that the bundle is mounted with


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner, whose `key` is what the store knows a writable layer by.

    kind: `container` or `bundle`; name: the container's ID, or the bundle's absolute path; root: of a container, the state
    directory of its runtime
    """

    kind: str
    name: str
    root: str = ""

    @classmethod
    def container(cls, container_id: str, state_root: str) -> Owner:
        """A container of the runtime whose state is in `state_root`."""
        return cls("container", container_id, state_root)

    @classmethod
    def bundle(cls, directory: Path) -> Owner:
        """A bundle."""
        return cls("bundle", os.path.abspath(directory))

    @property
    def key(self) -> str:
        """`container:ROOT:ID` (an ID has no colon) or `bundle:PATH`."""
        return f"{self.kind}:{self.root}:{self.name}" if self.kind == "container" else f"{self.kind}:{self.name}"

    @classmethod
    def parse(cls, key: str) -> Owner | None:
        """The owner with this key; None for a key of somebody else's, such as the daemon."""
        kind, _, rest = key.partition(":")
        if kind == "bundle":
            return cls(kind, rest)
        root, colon, name = rest.rpartition(":")
        return cls(kind, name, root) if kind == "container" and colon else None

    def wants(self, number: int) -> bool:
        """Whether the owner is there and uses writable layer `number`.

        A container is there as long as its runtime has a state directory for it, which `delete` removes, and a reboot. A bundle
        is there as long as its config.json names the layer, or something is still mounted at its rootfs.
        """
        if self.kind == "container":
            return os.path.lexists(os.path.join(self.root, self.name))
        if os.path.ismount(os.path.join(self.name, "rootfs")):
            return True
        try:
            config = json.loads(Path(self.name, "config.json").read_bytes())
            return bool(config["annotations"][ANNOTATION] == str(number))
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def taken(self) -> Error:
        """The error for a second one of the same name."""
        if self.kind == "container":
            what = f"{self.root} has a container of this name already, or one is being made"
            return Error("exists", what, subject=self.name, hint="choose another name, or delete it")
        return Error("exists", "there is a bundle that is mounted, or one is being made", subject=self.name)

    def check(self) -> None:
        """Raises Error("invalid") for a container's ID that would lead elsewhere."""
        if self.kind == "container" and (not self.name or "/" in self.name or ":" in self.name or self.name in (".", "..")):
            raise Error("invalid", f"{self.name[:200]!r} is no container's ID", hint="letters, digits and one of _ + - .")
