"""What a worker is asked to do, and what it answers. Between processes both are JSON and descriptors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from ocirt_images.apply.limits import Limits
from ocirt_images.apply.needs import Json, Needs
from ocirt_images.apply.owners import Mapping
from ocirt_images.apply.source import Growing
from ocirt_images.digest import Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One layer to apply.

    `source` is a blob, or with `growing` a file that is still being downloaded. `target` is an empty directory. `compression` is
    "", "gzip" or "zstd". What the archive's bytes, and the compressed ones, hash to is compared with `diff_id` and `digest`;
    without `digest` the compressed bytes are not hashed, which somebody else may have done. `name` is how errors call the layer;
    by default by the one or the other.

    `uids` and `gids` map owners, see `owners.Mapping`; `squash` gives those without a mapping to whoever applies, for a user
    without other ids. `devices=False` leaves device nodes out. `xattrs` is where overlayfs's marks go: "trusted" for mounts by
    root, "user" for those by a user.
    """

    source: Path
    target: Path
    compression: str = ""
    diff_id: Digest | None = None
    digest: Digest | None = None
    name: str = ""
    growing: Growing | None = None
    limits: Limits = field(default_factory=Limits)
    uids: Mapping = ()
    gids: Mapping = ()
    squash: bool = False
    devices: bool = True
    xattrs: str = "trusted"

    @property
    def subject(self) -> str:
        """How errors call the layer."""
        return self.name or f"layer {self.digest or self.diff_id or self.source}"

    def json(self) -> Json:
        """For the worker, which gets files as descriptors."""
        return {
            "compression": self.compression,
            "diff_id": self.diff_id,
            "digest": self.digest,
            "name": self.subject,
            "limits": asdict(self.limits),
            "uids": [list(one) for one in self.uids],
            "gids": [list(one) for one in self.gids],
            "squash": self.squash,
            "devices": self.devices,
            "xattrs": self.xattrs,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """A layer that has been applied. `needs` has to be settled before it is one.

    `size` is what it takes on disk, in bytes of whole pages; `inodes` how many, without its root; `length` the archive's own
    bytes. `skipped` counts device nodes that were left out; `sandbox` names what confined the worker.
    """

    diff_id: Digest
    digest: Digest | None
    size: int
    inodes: int
    length: int
    skipped: int = 0
    needs: Needs = field(default_factory=Needs)
    sandbox: tuple[str, ...] = ()

    def json(self) -> Json:
        """As JSON."""
        return {
            "diff_id": self.diff_id,
            "digest": self.digest,
            "size": self.size,
            "inodes": self.inodes,
            "length": self.length,
            "skipped": self.skipped,
            "needs": self.needs.json(),
            "sandbox": list(self.sandbox),
        }

    @classmethod
    def parse(cls, value: Json) -> Applied:
        """The reverse of `json`."""
        return cls(
            diff_id=Digest(value["diff_id"]),
            digest=Digest(value["digest"]) if value["digest"] else None,
            size=int(value["size"]),
            inodes=int(value["inodes"]),
            length=int(value["length"]),
            skipped=int(value["skipped"]),
            needs=Needs.parse(value["needs"]),
            sandbox=tuple(str(one) for one in value["sandbox"]),
        )
