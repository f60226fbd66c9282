"""A pool: a folder with volumes in it, the back ends that its file system allows, and what it can still promise.

DIR/.ocirt-csi          which pool this is
DIR/volumes/PLACE/      a volume: `data`, and `record.json`, of which `fsck` can make the driver's state again
DIR/snapshots/PLACE/    a snapshot, likewise
DIR/arrivals/           what comes from elsewhere, until it is whole
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, extents, filesystems, projects
from ocirt_csi.model import IMAGE, LOGICAL, MEMORY, PROJECT, SUBVOLUME, Record, Snapshot, Volume
from ocirt_csi.pools.base import BackEnd
from ocirt_csi.pools.devices import DEFAULT
from ocirt_csi.pools.images import Images
from ocirt_csi.pools.logical import LogicalVolumes
from ocirt_csi.pools.memory import Memory
from ocirt_csi.pools.projects import Projects
from ocirt_csi.pools.subvolumes import Subvolumes

MARKER = ".ocirt-csi"
RECORD = "record.json"
_ARRIVALS = "arrivals"
_FOLDERS = {Volume: "volumes", Snapshot: "snapshots"}
_PLACE = re.compile(r"(vol|snap|inline)-[0-9a-f]{24}")
_RESERVE = 50  # a part of this many of the file system stays free, for what it needs itself
_MOUNTED = "is its file system mounted?"
_BOUNDED = (IMAGE, SUBVOLUME)  # layouts whose volumes never have more than their charge
_OWNED = 4  # bytes of a pool's identity


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a person says of a pool. back_end: a word of `config.BACK_ENDS`; over: how many times its space it may promise.

    group: the volume group that holds its data, "" for the folder itself; thin: a thin pool in that group.
    """

    directory: str
    name: str = "default"
    back_end: str = "auto"
    over: float = 1.0
    group: str = ""
    thin: str = ""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes: of the file system, free in it, still to be taken by what was promised, and what can be promised more."""

    total: int
    free: int
    promised: int
    available: int


@dataclass(slots=True)
class _Promises:
    """Charges of what is not on disk yet, by object."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    pending: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Note:
    """What lies at a place. thing: what its note says, None for one without; strange: why it cannot be told what it is, or ""."""

    place: str
    thing: Record | None = None
    strange: str = ""


class Pool:
    """One pool, whose folder is made if its parent is there. Raises Error, OSError.

    known: the id of the pool that has to be there, because volumes are in it; "" for none. in_memory: it was on tmpfs, so that
    a reboot may have ended it with all that was in it.
    """

    def __init__(self, settings: PoolSettings, known: str = "", *, in_memory: bool = False) -> None:
        self.settings = settings
        self.name = settings.name
        above = os.path.dirname(settings.directory) or "/"
        if not os.path.isdir(above):
            raise Error("not-found", "is in a folder that is not there", subject=settings.directory, hint="mount or make it")
        holder = settings.directory if os.path.isdir(settings.directory) else above
        ended = in_memory and filesystems.kind(holder) == "tmpfs"
        self._logical = LogicalVolumes(settings.group, settings.thin) if settings.group else None
        there = self._logical.id if self._logical is not None else _identity(settings.directory)
        if known and there != known and not ended:
            raise Error("unavailable", "is not the pool that has its volumes", subject=settings.directory, hint=_MOUNTED)
        _make_folder(settings.directory)
        self.root = os.path.realpath(settings.directory)
        self.kind = filesystems.kind(self.root)
        self.id = self._identify()
        for name in _FOLDERS.values():
            _make_folder(os.path.join(self.root, name))
        self._promises = _Promises()
        self._freed = True  # whether something was taken away that may not be free yet: by a life before, too
        shares = extents.can_share(self.root)
        if self._logical is not None:
            self._restore(self._logical)
        self.images = Images(f"ocirt-csi:{self.id}", thin=settings.over > 1, shares=shares, file_system=self.kind)
        self.back_ends: dict[str, BackEnd] = {IMAGE: self.images}
        if self._logical is not None:
            self.back_ends = {LOGICAL: self._logical}
            self.why = self._logical.why
            return
        copies = "share blocks" if shares else "are copies"
        self.why = f"volumes are images on loop devices, as they can be on any file system; snapshots {copies}"
        if settings.back_end == "btrfs" and self.kind != "btrfs":
            raise Error("unsupported", f"is on {self.kind}", subject=settings.directory, hint="backend=loop works anywhere")
        if self.kind == "btrfs" and settings.back_end != "loop":
            self.back_ends[SUBVOLUME] = Subvolumes(self.root)
            self.why = "its file system is btrfs: volumes are subvolumes with quotas, block volumes are images"

        if settings.back_end in ("auto", "project") and self.kind in ("ext4", "xfs"):
            if projects.are_enforced(self.root):
                self.back_ends[PROJECT] = Projects(self.root, shares=shares)
                self.why = f"its {self.kind} has project quotas: volumes are folders with quotas, block volumes are images"
            else:
                self.why += f" (its {self.kind} is mounted without project quotas)"
        if self.kind == "tmpfs" and settings.back_end in ("auto", "tmpfs"):
            self.back_ends[MEMORY] = Memory()
            self.why = "its file system is in memory, and so are volumes: each a tmpfs of its own; block volumes are images"
        if settings.back_end == "tmpfs" and self.kind != "tmpfs":
            raise Error("unsupported", f"is on {self.kind}", subject=settings.directory, hint="a folder on a tmpfs")
        if settings.back_end == "project" and PROJECT not in self.back_ends:
            hint = "mount it with prjquota, if the kernel has it"
            raise Error("unsupported", f"its {self.kind} has no project quotas", subject=settings.directory, hint=hint)

    def layout(self, *, block: bool, fs_type: str) -> tuple[str, str]:
        """How a new volume lies here, and the file system in it. Raises Error("invalid") for one that cannot be had."""
        if self._logical is not None:
            return LOGICAL, "" if block else fs_type or DEFAULT
        if block:
            return IMAGE, ""
        if SUBVOLUME in self.back_ends and fs_type in ("", "btrfs"):
            return SUBVOLUME, ""
        if MEMORY in self.back_ends and fs_type in ("", "tmpfs"):
            return MEMORY, "tmpfs"
        if PROJECT in self.back_ends and fs_type in ("", self.kind):
            return PROJECT, self.kind
        return IMAGE, fs_type or DEFAULT

    def place(self, thing: Volume | Snapshot) -> str:
        """The folder of a volume or snapshot."""
        return os.path.join(self.root, _FOLDERS[type(thing)], thing.place)

    def has_place(self, thing: Volume | Snapshot) -> bool:
        """Whether that is there."""
        return os.path.isdir(self.place(thing))

    def back_end(self, thing: Volume | Snapshot) -> BackEnd:
        """What keeps it. Raises Error for a layout of another kind of pool."""
        try:
            return self.back_ends[thing.layout]
        except KeyError:
            raise Error("state", f"is a {thing.layout}, which this pool does not keep any more", subject=thing.id) from None

    def check(self) -> None:
        """See that the pool is still there, and is this one. Raises Error("unavailable")."""
        try:
            found = _identity(self.root)
        except OSError as err:
            raise Error("unavailable", "cannot be read", subject=self.root, cause=err.strerror or "") from None
        if found != self.id:
            raise Error("unavailable", "is not there any more", subject=self.root, hint=_MOUNTED)

    def make_place(self, thing: Volume | Snapshot) -> str:
        """A fresh folder for it; what half an attempt left there is taken away."""
        path = self.place(thing)
        if os.path.isdir(path):
            self.back_end(thing).remove(path)
        else:
            _make_folder(path, 0o700)
        return path

    def remove(self, thing: Volume | Snapshot) -> None:
        """Take it away with its folder."""
        path = self.place(thing)
        if os.path.isdir(path):
            self.back_end(thing).remove(path)
            sys.audit(calls.AUDIT, "rmdir")
            os.rmdir(path)
            self._freed = True

    def sync(self) -> None:
        """Wait until it is on disk which places there are. Raises OSError."""
        for name in _FOLDERS.values():
            _sync(os.path.join(self.root, name))

    def note(self, thing: Volume | Snapshot, *, first: bool = False) -> None:
        """Write beside the data what it is. first: its place was made a moment ago, and has no note.

        The first note makes a thing whole: it is on disk when this returns, with all that was made before it.
        """
        self.back_end(thing).note(self.place(thing), thing)
        _write_note(self.place(thing), thing, first=first)

    def is_made(self, thing: Volume | Snapshot) -> bool:
        """Whether a thing that its row calls half made is whole: it has its note, which is on disk then."""
        place = self.place(thing)
        found = _note(place).thing if self.has_place(thing) else None
        if not isinstance(found, Volume | Snapshot) or (found.id, found.created) != (thing.id, thing.created):
            return False
        _sync(os.path.join(place, RECORD))
        _sync(place)
        return True

    @property
    def outlasts_power(self) -> bool:
        """Whether notes, and what they are of, are there after a power cut."""
        return self.kind != "tmpfs"

    def mend(self, thing: Volume | Snapshot) -> None:
        """After a power cut: let what stands beside the row be as the row says, which alone was waited for. Raises OSError."""
        if self.has_place(thing):
            self.back_end(thing).mend(self.place(thing), thing)
            if _note(self.place(thing)).thing != thing:
                _write_note(self.place(thing), thing)

    def notes(self) -> Iterator[Note]:
        """What lies in the pool, by what its notes say. Raises OSError."""
        for folder in _FOLDERS.values():
            for name in sorted(os.listdir(os.path.join(self.root, folder))):
                yield _note(os.path.join(self.root, folder, name))

    @property
    def arrivals(self) -> str:
        """The folder for what comes from elsewhere."""
        return os.path.join(self.root, _ARRIVALS)

    @contextmanager
    def incoming(self) -> Iterator[str]:
        """A fresh folder there, which goes with all that is in it at the end. What a kill leaves `gc` takes away."""
        _make_folder(self.arrivals, 0o700)
        path = os.path.join(self.arrivals, f"in-{secrets.token_hex(_OWNED)}")
        _make_folder(path, 0o700)
        try:
            yield path
        finally:
            self.sweep(path)

    def sweep(self, place: str) -> None:
        """Take a folder of ours away, whatever is in it."""
        for back_end in reversed(self.back_ends.values()):
            back_end.remove(place)
        os.rmdir(place)

    def left_over(self) -> list[str]:
        """What came from elsewhere and was not taken in."""
        try:
            return [os.path.join(self.arrivals, name) for name in sorted(os.listdir(self.arrivals))]
        except FileNotFoundError:
            return []

    def space(self, volumes: Iterable[Volume]) -> Space:
        """What the pool can still promise beside these volumes."""
        with self._promises.lock:
            if self._freed:
                self._settle()
            return self._space(volumes)

    @contextmanager
    def promised(self, key: str, charge: int, volumes: Iterable[Volume], copied: Volume | None = None) -> Iterator[None]:
        """Promise space for what is made in the `with`. Raises Error("exhausted") with both figures.

        copied: the volume that it is a copy of; a charge of 0 is a snapshot's.
        """
        kept = list(volumes)
        with self._promises.lock:
            needed = charge + (0 if copied is None else copied.charge)
            if not (copied is None or copied.layout in _BOUNDED) or not self._fits_at_worst(kept, needed):
                needed = self._fitted(kept, charge, copied)
            self._promises.pending[key] = needed
        try:
            yield
        finally:
            with self._promises.lock:
                self._promises.pending.pop(key)

    def _fitted(self, volumes: list[Volume], charge: int, copied: Volume | None) -> int:
        """What is needed, once it is there. Raises Error("exhausted")."""
        needed = charge
        if copied is not None:
            self.back_end(copied).flush(self.place(copied), copied)
            needed += self.back_end(copied).burden(self.place(copied), snapshot=not charge)
        found = self._space(volumes)
        if found.available < needed:
            self._settle()
            found = self._space(volumes)
        if found.available < needed:
            text = f"{needed} bytes are needed, and {max(0, found.available)} can be promised"
            raise Error("exhausted", text, subject=f"pool {self.name}", hint=f"of {found.total}, {found.free} are free")
        return needed

    def _fits_at_worst(self, volumes: Iterable[Volume], needed: int) -> bool:
        """Whether there is room even if no volume had anything yet: then none has to be asked, of thousands perhaps.

        Nor does a copy's source have to be flushed and counted, if it has all that it may.
        """
        self.check()
        if self._logical is not None:
            return False
        pending = self._promises.pending
        promised = sum(one.charge for one in volumes if one.place not in pending) + sum(pending.values())
        found = os.statvfs(self.root)
        room = max(0, found.f_bavail - found.f_blocks // _RESERVE) * found.f_frsize
        return int(room * self.settings.over) - promised >= needed

    def _space(self, volumes: Iterable[Volume]) -> Space:
        self.check()
        if self._logical is not None:
            return self._logical_space(self._logical)
        found = os.statvfs(self.root)
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        outstanding = sum(max(0, one.charge - self._own(one)) for one in volumes if one.place not in self._promises.pending)
        promised = outstanding + sum(self._promises.pending.values())
        room = max(0, free - total // _RESERVE)
        return Space(total, free, promised, max(0, int(room * self.settings.over) - promised))

    def _logical_space(self, logical: LogicalVolumes) -> Space:
        pending = self._promises.pending
        room = logical.room(set(pending))
        promised = room.promised + sum(pending.values())
        more = int(room.total * self.settings.over) - room.total if self.settings.thin else 0
        return Space(room.total, room.free, promised, max(0, room.free + more - promised))

    def _restore(self, logical: LogicalVolumes) -> None:
        """Make places and notes that are gone again, of what the volumes' tags say."""
        for name, thing in logical.kept():
            if not _PLACE.fullmatch(name):
                continue
            folder = _FOLDERS[Snapshot if isinstance(thing, Snapshot) or name.startswith("snap-") else Volume]
            place = os.path.join(self.root, folder, name)
            if not os.path.isdir(place):
                _make_folder(place, 0o700)
                if isinstance(thing, Volume | Snapshot):
                    _write_note(place, thing)

    def _settle(self) -> None:
        self._freed = False
        filesystems.sync(self.root)
        for one in self.back_ends.values():
            one.settle()

    def _own(self, volume: Volume) -> int:
        return self.back_end(volume).exclusive(self.place(volume))

    def _identify(self) -> str:
        found = _identity(self.root)
        if found and self._logical is not None and found != self._logical.id:
            raise Error("state", "is a pool of another volume group", subject=self.root, hint="give this one another folder")
        if not found:
            found = self._logical.id if self._logical is not None else secrets.token_hex(_OWNED)
            write(os.path.join(self.root, MARKER), json.dumps({"id": found, "version": 1}))
        return found


def _write_note(place: str, thing: Volume | Snapshot, *, first: bool = False) -> None:
    path, text = os.path.join(place, RECORD), json.dumps({"kind": thing.kind, "body": thing.body()})
    if not first:
        write(path, text, lasting=False)  # the one before is there, or this one: see `mend`
        return
    sys.audit(calls.AUDIT, "note")
    with calls.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW) as fd:  # half of it is no note
        os.write(fd, text.encode())
        os.fsync(fd)
    _sync(place)


def _note(place: str) -> Note:
    if not _PLACE.fullmatch(os.path.basename(place)):
        return Note(place, strange="its name is none of ours")
    if not stat.S_ISDIR(os.lstat(place).st_mode):
        return Note(place, strange="it is not a folder")
    try:
        with open(os.path.join(place, RECORD), encoding="utf-8") as file:
            found = json.load(file)
        return Note(place, model.read(found["kind"], found["body"]))
    except FileNotFoundError:
        return Note(place)
    except (OSError, ValueError, KeyError, TypeError) as err:
        return Note(place, strange=f"its {RECORD} cannot be read: {err}")


def _identity(root: str) -> str:
    """The id of the pool in a folder; "" if there is none."""
    try:
        with open(os.path.join(root, MARKER), encoding="utf-8") as file:
            return str(json.load(file)["id"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        raise Error("corrupt", "does not say which pool this is", subject=os.path.join(root, MARKER)) from None


def write(path: str, text: str, *, lasting: bool = True) -> None:
    """A file whole or not at all. lasting: it is on disk when it returns. Raises OSError."""
    scratch = f"{path}.new"
    with open(scratch, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sys.audit(calls.AUDIT, "rename")
    os.rename(scratch, path)
    if lasting:
        _sync(os.path.dirname(path))


def _sync(path: str) -> None:
    with calls.opened(path, os.O_RDONLY | os.O_NOFOLLOW) as fd:
        os.fsync(fd)


def _make_folder(path: str, mode: int = 0o711) -> None:
    sys.audit(calls.AUDIT, "mkdir")
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise Error("invalid", "is not a folder", subject=path) from None
