"""The back end of LVM: a logical volume for a volume, thin in a pool of the group or with blocks of its own (thick).

Thin ones share blocks with snapshots and clones, which are made at once, and of what is in use too: lvm2 holds the file system
still for that moment. Each may need all of its blocks one day, so that a pool promises them all but where it is told otherwise.
Thick ones have no snapshots, since a snapshot that takes a copy at each write costs every writer and ends when it is full; a
clone is a copy of all, of a volume that is not in use.

What a volume is stands in its tags, so that a folder of notes that was lost is made again of them. Others' volumes stay as they
are: ours have our tag.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from ocirt_csi import model
from ocirt_csi.errors import Error
from ocirt_csi.kernel import calls, filesystems, loops, lvm
from ocirt_csi.model import LOGICAL, Record, Snapshot, Volume
from ocirt_csi.pools.devices import Devices, make_file_system, rounded, set_apart

_OWN = "ocirt-csi"  # a tag of all that is ours; others begin so
_POOL = f"{_OWN}.pool="
_PIECE = f"{_OWN}.record"
_LONGEST = 900  # characters of one tag's share of a record
_IDENTITY = 8  # characters of a pool's id
_FULL = 10  # a pool of whose metadata less than a part of this many is left takes no more
_MOMENT = 1.0  # seconds for which a report is good enough to look at


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: all, not used by anybody, and those of them that volumes may still come to need."""

    total: int
    free: int
    promised: int


class LogicalVolumes(Devices):
    """Volumes of a group, in one of its thin pools or thick (""). Raises Error."""

    layout = LOGICAL

    def __init__(self, group: str, thin: str) -> None:
        why_not = lvm.is_there()
        if why_not:
            raise Error("unsupported", why_not, subject=group)
        found = lvm.group(group)
        self.unit = self.least = found.extent
        self.copies_in_use = self.snapshots = bool(thin)
        self._group = group
        self._thin = thin
        self._seen: tuple[float, list[lvm.Logical]] = (-_MOMENT, [])
        self._fresh: set[str] = set()  # names of what was made and has no record in its tags yet
        if thin:
            pool = self._pool(self._look_again())
            if not pool.zeroes:
                # A volume would show what one before it wrote, in the rest of a block that is written for the first time.
                hint = f"lvchange --zero y {group}/{thin}"
                raise Error("unsupported", "hands out blocks without clearing them", subject=f"{group}/{thin}", hint=hint)
        self.id = hashlib.sha256(f"{found.uuid} {thin}".encode()).hexdigest()[:_IDENTITY]
        self._mark = f"{_OWN}:{self.id}"

    @property
    def why(self) -> str:
        """Why and how volumes are kept here."""
        if self._thin:
            where = f"thin in its pool {self._thin}"
            return f"volumes are logical volumes of the group {self._group}, {where}: snapshots and clones share blocks"
        return f"volumes are logical volumes of the group {self._group} with blocks of their own: no snapshots, clones are copies"

    def is_copied_frozen(self, volume: Volume | Snapshot) -> bool:
        """lvm2 freezes what is on a device; but a btrfs is not known by it, and its copy would have a log of another age."""
        return volume.fs_type == "btrfs"

    def charge(self, size: int, fs_type: str) -> int:
        """What the file system needs too, in whole extents."""
        return rounded(super().charge(size, fs_type), self.unit)

    def make(self, place: str, volume: Volume) -> None:
        """A volume of zeros, or with a file system in it."""
        self._check_metadata()
        name = os.path.basename(place)
        needs_device = bool(volume.fs_type) or not self._thin
        self._fresh.add(name)
        lvm.create(self._group, name, volume.charge, self._tags(), pool=self._thin, active=needs_device)
        if needs_device:
            with self._active(name, made=True) as device:
                if volume.fs_type:
                    make_file_system(device, volume, zeros=bool(self._thin))
                else:
                    _clear(device, 0, volume.charge)

    def copy(self, source: str, place: str, volume: Volume) -> None:
        """A thin one shares all; a thick one is copied as a whole."""
        self._check_metadata()
        old, name = os.path.basename(source), os.path.basename(place)
        self._fresh.add(name)
        if self._thin:
            lvm.snapshot(self._group, old, name, self._tags(), read_only=False)
            lvm.extend(self._group, name, volume.charge)
        else:
            lvm.create(self._group, name, volume.charge, self._tags())
            with self._active(old) as there, self._active(name, made=True) as here:
                length = loops.size(there)
                _copy(there, here, length)
                if volume.block:
                    _clear(here, length, volume.charge)
        if volume.fs_type == "btrfs":
            with self._active(name) as device:
                set_apart(device, volume.fs_type)

    def snapshot(self, source: str, place: str) -> None:
        """A thin one that cannot be written. Raises Error("unsupported") for thick ones."""
        if not self._thin:
            hint = "a pool with thin=POOL has snapshots"
            raise Error("unsupported", "a volume with blocks of its own has no snapshots", subject=self._group, hint=hint)
        self._check_metadata()
        name = os.path.basename(place)
        self._fresh.add(name)
        lvm.snapshot(self._group, os.path.basename(source), name, self._tags(), read_only=True)

    def grow(self, place: str, volume: Volume) -> None:
        """A longer volume, and what a thick block volume has more is cleared."""
        name = os.path.basename(place)
        charge = self.charge(volume.target, volume.fs_type)
        lvm.extend(self._group, name, charge)
        if volume.block and not self._thin:
            with self._active(name) as device:
                _clear(device, volume.charge, charge)
        reader = loops.find(self._name(place))
        if reader:
            loops.resize(reader)

    def exclusive(self, place: str) -> int:
        """Bytes that it has blocks for. Which of them a thin one shares is not told."""
        found = self._look(place)
        return 0 if found is None else found.mapped if self._thin else found.size

    def burden(self, place: str, *, snapshot: bool) -> int:
        """A snapshot keeps what its volume has now, whatever becomes of that; a clone has its charge for it."""
        found = lvm.volume(self._group, os.path.basename(place)) if snapshot and self._thin else None
        return found.mapped if found is not None else 0

    def room(self, pending: Collection[str]) -> Room:
        """What the group or its thin pool has. pending: names of volumes that are promised in another way."""
        found = self._look_again()
        if not self._thin:
            group = lvm.group(self._group)
            return Room(group.size, group.free + sum(one.size for one in found if one.name in pending), 0)
        pool = self._pool(found)
        needed = sum(worst(one) for one in found if one.pool == self._thin and one.name not in pending)
        return Room(pool.size, pool.size - pool.mapped, max(0, needed - pool.mapped))

    def device(self, place: str, volume: Volume, *, read_only: bool = False) -> str:
        """Its device; one that cannot be written is a loop device on that."""
        name = os.path.basename(place)
        found = lvm.device(self._group, name)
        if found is None:
            lvm.activate(self._group, name)
            found = self._active_device(name)
        if not read_only:
            return found
        return loops.find(self._name(place)) or loops.attach(found, self._name(place), read_only=True)

    def attached(self, place: str) -> list[str | None]:
        """Its own, and the loop device on that."""
        return [lvm.device(self._group, os.path.basename(place)), loops.find(self._name(place))]

    def flush(self, place: str, volume: Volume) -> None:
        """What is on its way to the device."""
        found = lvm.device(self._group, os.path.basename(place))
        if found:
            loops.flush(found)

    def release(self, place: str, volume: Volume, *, read_only: bool | None = None) -> None:
        """Take its devices away."""
        reader = loops.find(self._name(place))
        if reader and read_only is not False:
            loops.detach(reader)
        name = os.path.basename(place)
        if not read_only and lvm.device(self._group, name):
            lvm.deactivate(self._group, name)

    def remove(self, place: str) -> None:
        """The volume, after its devices, and what lies in the place. Raises Error("state") for one that is none of ours."""
        name = os.path.basename(place)
        self._fresh.discard(name)
        reader = loops.find(self._name(place))
        if reader:
            loops.detach(reader)
        found = lvm.volume(self._group, name)
        if found is not None:
            if not self._is_ours(found):
                raise Error("state", "is none of ours", subject=f"{self._group}/{name}", hint="it has not our tag")
            lvm.remove(self._group, name)
        super().remove(place)

    def damage(self, place: str, thing: Volume | Snapshot) -> str:
        """Whether the volume is there, as long as it was made, and its pool has blocks for it."""
        found = self._look(place)
        if found is None:
            return "its volume is gone"
        if isinstance(thing, Volume) and found.size < thing.charge:
            return "its volume is shorter than it was made"
        if self._thin:
            pool = self._pool(self._report())
            if pool.mapped >= pool.size:
                return "its thin pool is full, and what is written to it fails"
        return ""

    @contextlib.contextmanager
    def reading(self, place: str) -> Iterator[str]:
        """Its device, for as long as it is read."""
        with self._active(os.path.basename(place)) as device:
            yield device

    def note(self, place: str, thing: Volume | Snapshot) -> None:
        """Say in its tags what it is."""
        name = os.path.basename(place)
        wanted = pieces(thing)
        if name in self._fresh:
            lvm.tag(self._group, name, wanted)
            self._fresh.discard(name)
            return
        found = lvm.volume(self._group, name)
        if found is None:
            raise Error("corrupt", "its volume is gone", subject=thing.id)
        lvm.tag(self._group, name, set(wanted) - set(found.tags), _of_record(found.tags) - set(wanted))

    def kept(self) -> Iterator[tuple[str, Record | None]]:
        """All that is ours here: names, and what their tags say that they are (None: it was not finished)."""
        for one in self._report():
            if self._is_ours(one):
                yield one.name, joined(one.tags)

    @contextlib.contextmanager
    def _active(self, name: str, *, made: bool = False) -> Iterator[str]:
        """The device of a volume, which it has afterwards if it had it before and not else. made: it got one just now."""
        before = None if made else lvm.device(self._group, name)
        if before is None and not made:
            lvm.activate(self._group, name)
        found = self._active_device(name)
        try:
            yield found
        finally:
            if before is None:
                with contextlib.suppress(Error):  # somebody else reads it too
                    lvm.deactivate(self._group, name)

    def _active_device(self, name: str) -> str:
        found = lvm.device(self._group, name)
        if found is None:
            raise Error("kernel", "has no device though it is active", subject=f"{self._group}/{name}")
        return found

    def _tags(self) -> tuple[str, ...]:
        return _OWN, f"{_POOL}{self.id}"

    def _is_ours(self, one: lvm.Logical) -> bool:
        return f"{_POOL}{self.id}" in one.tags

    def _name(self, place: str) -> str:
        """The mark of the loop device that cannot be written."""
        return f"{self._mark}:{os.path.basename(place)}:ro"

    def _pool(self, found: Iterable[lvm.Logical]) -> lvm.Logical:
        for one in found:
            if one.name == self._thin:
                if one.segments != lvm.THIN_POOL:
                    raise Error("invalid", f"is {one.segments}, not a thin pool", subject=f"{self._group}/{self._thin}")
                return one
        raise Error("unavailable", "there is no such thin pool", subject=f"{self._group}/{self._thin}", hint="lvs")

    def _check_metadata(self) -> None:
        """Raises Error("exhausted") if the thin pool can hardly say any more which blocks are whose."""
        if not self._thin:
            return
        used, size = self._pool(self._report()).metadata
        if size and size - used < size // _FULL:
            hint = f"lvextend --poolmetadatasize +{size}b {self._group}/{self._thin}"
            text = f"{used} of {size} bytes of its metadata are used"
            raise Error("exhausted", text, subject=f"{self._group}/{self._thin}", hint=hint)

    def _look(self, place: str) -> lvm.Logical | None:
        name = os.path.basename(place)
        return next((one for one in self._report() if one.name == name), None)

    def _report(self) -> list[lvm.Logical]:
        """A report that is a moment old at most: many volumes are looked at one after the other."""
        at, found = self._seen
        return found if time.monotonic() - at < _MOMENT else self._look_again()

    def _look_again(self) -> list[lvm.Logical]:
        found = lvm.volumes(self._group)
        self._seen = (time.monotonic(), found)
        return found


def worst(one: lvm.Logical) -> int:
    """Bytes that a thin volume may need: a snapshot what it has, any other all of itself."""
    record = joined(one.tags)
    return one.mapped if isinstance(record, Snapshot) else one.size


def pieces(thing: Record) -> list[str]:
    """The tags that say what a volume is."""
    text = json.dumps({"kind": thing.kind, "body": thing.body()}).encode()
    packed = base64.b64encode(zlib.compress(text, 9)).decode("ascii")
    parts = [packed[at : at + _LONGEST] for at in range(0, len(packed), _LONGEST)]
    return [f"{_PIECE}{number}of{len(parts)}={part}" for number, part in enumerate(parts)]


def joined(tags: Iterable[str]) -> Record | None:
    """What tags say; None for nothing, or for less than all of it."""
    parts = dict(one.removeprefix(_PIECE).split("=", 1) for one in _of_record(tags) if "=" in one)
    try:
        whole = "".join(parts[f"{number}of{len(parts)}"] for number in range(len(parts)))
        found = json.loads(zlib.decompress(base64.b64decode(whole, validate=True)))
        return model.read(found["kind"], found["body"])
    except (ValueError, KeyError, TypeError, zlib.error):
        return None


def _of_record(tags: Iterable[str]) -> set[str]:
    return {one for one in tags if one.startswith(_PIECE)}


def _clear(device: str, start: int, end: int) -> None:
    if end > start:
        with calls.opened(device, os.O_RDWR) as fd:
            filesystems.write_zeros(fd, start, end - start)


def _copy(source: str, target: str, length: int) -> None:
    with calls.opened(source, os.O_RDONLY) as old, calls.opened(target, os.O_RDWR) as new:
        filesystems.copy_device(old, new, length)
