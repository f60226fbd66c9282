"""What the driver keeps: volumes, snapshots, groups of them, and where volumes are used.

All are plain data and immutable: a change is a new object, which `store` writes before the old one is let go.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

# Phases. In all but READY something is half done, and a fresh start ends or undoes it.
MAKING, READY, REMOVING, GROWING = "making", "ready", "removing", "growing"
GONE = "gone"  # nothing is left of it, but a power cut may bring that back
# Layouts, each of a back end, and those whose volumes are block devices.
SUBVOLUME, IMAGE, PROJECT, MEMORY, LOGICAL = "subvolume", "image", "project", "memory", "logical"
DEVICES = (IMAGE, LOGICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What all have. id: unique of its kind; name: unique too, of those that are made by name; sequence: the order of lists."""

    kind: ClassVar[str] = ""
    outlasts_power: ClassVar[bool] = True  # whether it means something after a power cut

    id: str
    name: str = ""
    phase: str = READY
    sequence: int = 0

    def body(self) -> str:
        """All fields as JSON."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Record):
    """A volume. size: bytes that a user of it can fill; charge: bytes that it may take of the pool; place: its folder's name.

    layout: how it lies in the pool; fs_type: of an image, "" for a block volume; source: ("snapshot" or "volume", id) or ();
    target: the size that it is growing to.
    """

    kind: ClassVar[str] = "volume"

    pool: str
    place: str
    size: int
    charge: int
    layout: str
    block: bool = False
    fs_type: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    mutable: dict[str, str] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    created: int = 0  # nanoseconds since 1970
    ephemeral: bool = False
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """A volume as it was at `created`. size: what a volume of it has at least."""

    kind: ClassVar[str] = "snapshot"

    pool: str
    place: str
    volume: str
    size: int
    layout: str
    block: bool = False
    fs_type: str = ""
    created: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Record):
    """Snapshots of one moment."""

    kind: ClassVar[str] = "group"

    volumes: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    created: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Use(Record):
    """A path where a volume is: its staging path, or a target. The id is the path, `asked` what was asked for, for comparing.

    staged: it is the staging path; mode: of access, CSI's number.
    """

    kind: ClassVar[str] = "use"
    outlasts_power: ClassVar[bool] = False  # mounts do not

    volume: str
    staged: bool
    block: bool
    read_only: bool
    mode: int
    asked: str
    group: int = -1  # who owns the files; -1: as it is
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment(Record):
    """A volume that the controller gave to a node: bookkeeping, as its id tells ("volume node")."""

    kind: ClassVar[str] = "attachment"

    volume: str
    node: str
    read_only: bool
    asked: str


KINDS: dict[str, type[Record]] = {one.kind: one for one in (Volume, Snapshot, Group, Use, Attachment)}


def read(kind: str, body: str) -> Record:
    """The object of a row. Raises KeyError, TypeError, ValueError for what was not written by this version."""
    fields: dict[str, Any] = json.loads(body)
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
    return KINDS[kind](**fields)
