"""From a volume to a path, and back: staged once on the node, published at targets.

A use is written down before anything is mounted. Mounts are looked at before they are believed in: what somebody else put at a
path stays, and what is gone is made again by the next attempt.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ocirt_csi import flags as mount_flags
from ocirt_csi import model, paths
from ocirt_csi.driver import Driver, now
from ocirt_csi.errors import Error
from ocirt_csi.iolimits import limit
from ocirt_csi.kernel import loops, mounts
from ocirt_csi.model import Use, Volume
from ocirt_csi.pools.base import Options
from ocirt_csi.volumes import Volumes

# csi.v1.VolumeCapability.AccessMode.Mode
SINGLE_READER, MULTI_READER, SINGLE_WRITER = 2, 3, 6
_STAGING, _TARGET = "staging_target_path", "target_path"


@dataclass(frozen=True, slots=True)
class Access:
    """How a volume is to be used. group: the owner of its files, -1 for none; asked: all of it as text, for comparing."""

    block: bool
    fs_type: str
    flags: tuple[str, ...]
    group: int
    mode: int
    read_only: bool
    asked: str

    @property
    def reads_only(self) -> bool:
        """Whether nothing is to be written."""
        return self.read_only or self.mode in (SINGLE_READER, MULTI_READER)


class Uses:
    """The operations of a node. All raise Error, OSError."""

    def __init__(self, driver: Driver, volumes: Volumes) -> None:
        self._driver = driver
        self._volumes = volumes

    def stage(self, identifier: str, path: str, access: Access) -> None:
        """Have a volume at its staging path."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}", f"path {path}"):
            volume = self._fitting(identifier, access)
            there = driver.store.get(Use, path)
            if there is not None and not self._same(there, volume, access):
                raise Error("exists", "another use of it is there", subject=f"{_STAGING} {path}", hint=there.volume)
            for use in driver.uses(identifier):
                if use.staged and use.id != path:
                    raise Error("state", "is staged elsewhere", subject=identifier, hint=f"at {use.id}")
            with paths.folder(path, _STAGING) as target:
                if there is not None and self._is_there(there, volume):
                    self._finish(there, volume)
                    return
                if not volume.block:
                    self._clear(path, _STAGING)
                use = driver.store.put(_use(path, volume, access, staged=True))
                with self._or_nothing(use, volume):
                    if volume.block:
                        pool = driver.pool_of(volume)
                        pool.back_end(volume).device(pool.place(volume), volume)
                    else:
                        self._mount(volume, use, target)
                    self._finish(use, volume)

    def _finish(self, use: Use, volume: Volume) -> None:
        """Let the file system be as large as its volume, and belong to whom it shall, when it comes to a path."""
        self._follow(use, volume)
        if use.group >= 0 and _is_writable(use, volume):
            with paths.folder(use.id, "volume_mount_group") as fd:
                # By way of the mount: a descriptor that was opened before shows what lies below it.
                real = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    paths.give_to_group(real, use.group)
                finally:
                    os.close(real)
        if use.phase != model.READY:
            self._driver.store.put(replace(use, phase=model.READY))

    def _follow(self, use: Use, volume: Volume) -> None:
        if _is_writable(use, volume):
            pool = self._driver.pool_of(volume)
            pool.back_end(volume).follow(pool.place(volume), volume, use.id)

    def unstage(self, identifier: str, path: str) -> None:
        """Take a volume from its staging path. Raises Error("in-use") while it is published."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}", f"path {path}"):
            volume = driver.store.get(Volume, identifier)
            use = driver.store.get(Use, path) or self._forgotten(path, volume, staged=True)
            if use is None or use.volume != identifier:
                return  # nothing of ours is there
            if volume is None:
                self._end_orphan(use)
                return
            others = [one for one in driver.uses(identifier) if not one.staged]
            if others:
                raise Error("in-use", "is published", subject=identifier, hint=f"at {others[0].id}")
            self._end(use, volume)

    def publish(self, identifier: str, path: str, staging: str, access: Access) -> None:
        """Have a staged volume at a target."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}", f"path {path}"):
            volume = self._fitting(identifier, access)
            there = self._other_publications(volume, path, access)
            staged = driver.store.get(Use, staging)
            if staged is None or staged.volume != identifier or not self._is_there(staged, volume):
                raise Error("state", "is not staged there", subject=identifier, hint=f"{_STAGING} {staging}")
            self._publish(volume, path, staging, access, there)

    def publish_inline(self, identifier: str, path: str, access: Access, size: int, parameters: dict[str, str]) -> None:
        """Make a volume that lives as long as its one target, and have it there."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}", f"path {path}"):
            volume = driver.store.get(Volume, identifier)
            if volume is not None and not volume.ephemeral:
                raise Error("exists", "there is another volume with this id", subject=identifier)
            if volume is not None and volume.phase != model.READY:
                self._volumes.undo(volume)
                volume = driver.store.get(Volume, identifier)
            if volume is None:
                volume = self._make_inline(identifier, access, size, parameters)
            made = max(size, driver.pool_of(volume).back_end(volume).least)
            if volume.size != made or volume.parameters != parameters:
                raise Error("exists", "an inline volume with this id is there, and is another", subject=identifier)
            there = self._other_publications(volume, path, access)
            try:
                self._publish(volume, path, "", access, there)
            except Error:
                if not driver.uses(identifier):
                    self._volumes.undo(replace(volume, phase=model.REMOVING))
                raise

    def _make_inline(self, identifier: str, access: Access, size: int, parameters: dict[str, str]) -> Volume:
        driver = self._driver
        if access.block:
            raise Error("invalid", "an inline volume is mounted", subject="volume_capability")
        pool = driver.pool(parameters.get("class", "") or driver.default)
        layout, fs_type = pool.layout(block=False, fs_type=parameters.get("fsType", "") or access.fs_type)
        mount_flags.read(access.flags, fs_type)
        back_end = pool.back_ends[layout]
        volume = Volume(
            id=identifier,
            phase=model.MAKING,
            pool=pool.name,
            place="inline-" + hashlib.sha256(identifier.encode()).hexdigest()[:24],
            size=max(size, back_end.least),
            charge=back_end.charge(max(size, back_end.least), fs_type),
            layout=layout,
            fs_type=fs_type,
            parameters=parameters,
            created=now(),
            ephemeral=True,
        )
        return self._volumes.make(pool, volume)

    def unpublish(self, identifier: str, path: str) -> None:
        """Take a volume from a target, and the target away; an inline volume goes with it."""
        driver = self._driver
        with driver.keys.hold(f"volume {identifier}", f"path {path}"):
            volume = driver.store.get(Volume, identifier)
            use = driver.store.get(Use, path) or self._forgotten(path, volume, staged=False)
            if use is not None and use.volume != identifier:
                raise Error("state", "another volume is there", subject=f"{_TARGET} {path}", hint=use.volume)
            if use is not None and volume is not None:
                self._end(use, volume)
            elif use is not None:
                self._end_orphan(use)
            elif mounts.at(path):
                raise Error("state", "somebody else's mount is there", subject=f"{_TARGET} {path}")
            else:
                paths.forget(path, _TARGET)
            if volume is not None and volume.ephemeral and not driver.uses(identifier):
                self._volumes.undo(replace(volume, phase=model.REMOVING))

    def point(self, identifier: str, path: str) -> tuple[Volume, Use]:
        """A volume and its use at a path. Raises Error("not-found")."""
        volume = self._driver.volume(identifier)
        use = self._driver.store.get(Use, path)
        if use is None or use.volume != identifier or not self._is_there(use, volume):
            raise Error("not-found", "is not there", subject=identifier, hint=f"volume_path {path}")
        return volume, use

    def expand(self, identifier: str, path: str, required: int) -> Volume:
        """Let the file system at a path have all of its volume."""
        with self._driver.keys.hold(f"volume {identifier}"):
            volume, use = self.point(identifier, path)
            if required > volume.size:
                raise Error(
                    "state", f"it has {volume.size} bytes", subject=identifier, hint="the controller has to expand it first"
                )
            self._follow(use, volume)
            return volume

    def is_whole(self, use: Use, volume: Volume) -> bool:
        """Whether what was put at a path is still there."""
        return self._is_there(use, volume)

    def undo(self, use: Use) -> None:
        """For a fresh start: take away what is half there."""
        volume = self._driver.store.get(Volume, use.volume)
        if volume is None:
            self._end_orphan(use)
        elif use.phase != model.READY:
            self._end(use, volume)

    def _forgotten(self, path: str, volume: Volume | None, *, staged: bool) -> Use | None:
        """A use that is there though the state was lost."""
        if volume is None:
            return None
        use = _use(path, volume, Access(volume.block, "", (), -1, 0, False, ""), staged=staged)
        return use if mounts.at(path) and self._is_there(use, volume) else None

    def _fitting(self, identifier: str, access: Access) -> Volume:
        volume = self._driver.volume(identifier)
        if volume.block != access.block:
            kind = "a block device" if volume.block else "a file system"
            raise Error("invalid", f"the volume is {kind}", subject="volume_capability")
        if access.fs_type and not volume.block and access.fs_type != (volume.fs_type or "btrfs"):
            raise Error("invalid", f"the volume has {volume.fs_type or 'btrfs'}", subject="fs_type")
        mount_flags.read(access.flags, volume.fs_type)
        return volume

    def _same(self, use: Use, volume: Volume, access: Access) -> bool:
        return use.volume == volume.id and use.asked == access.asked

    def _other_publications(self, volume: Volume, path: str, access: Access) -> Use | None:
        """The use at a path, if it is the same. Raises Error("exists"), and Error("state") for the one writer's second target."""
        there = self._driver.store.get(Use, path)
        if there is not None and not self._same(there, volume, access):
            raise Error("exists", "another use of it is there", subject=f"{_TARGET} {path}", hint=there.volume)
        for use in self._driver.uses(volume.id):
            alone = SINGLE_WRITER in (use.mode, access.mode) or volume.ephemeral
            if not use.staged and use.id != path and alone:
                raise Error("state", "has one writer, and is published elsewhere", subject=volume.id, hint=f"at {use.id}")
        return there

    def _publish(self, volume: Volume, path: str, staging: str, access: Access, there: Use | None) -> None:
        driver = self._driver
        if there is not None and there.phase == model.READY and self._is_there(there, volume):
            return
        self._clear(path, _TARGET)
        with paths.target(path, _TARGET, block=volume.block) as target:
            use = driver.store.put(_use(path, volume, access, staged=False))
            with self._or_nothing(use, volume):
                if volume.block:
                    pool = driver.pool_of(volume)
                    device = pool.back_end(volume).device(pool.place(volume), volume, read_only=access.reads_only)
                    self._bind(device, target, 0)
                elif staging:
                    attributes, read_only, _ = mount_flags.read(access.flags, volume.fs_type)
                    self._bind(staging, target, attributes | (mounts.READ_ONLY if access.reads_only or read_only else 0))
                else:
                    self._mount(volume, use, target)
                limit(driver.pool_of(volume), volume, path)
                if staging:
                    driver.store.put(replace(use, phase=model.READY))
                else:
                    self._finish(use, volume)

    @contextlib.contextmanager
    def _or_nothing(self, use: Use, volume: Volume) -> Iterator[None]:
        """Take a use away again if what is done in the `with` fails. What cannot be taken away the next attempt finds."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Error, OSError):
                self._end(use, volume)
            raise

    def _mount(self, volume: Volume, use: Use, target: int) -> None:
        attributes, read_only, words = mount_flags.read(use.flags, volume.fs_type)
        pool = self._driver.pool_of(volume)
        options = Options(read_only=read_only or (use.read_only and not use.staged), attributes=attributes, words=words)
        mount = pool.back_end(volume).mount(pool.place(volume), volume, options)
        try:
            mounts.put(mount, target)
        finally:
            os.close(mount)

    def _bind(self, source: str, target: int, attributes: int) -> None:
        mount = mounts.clone(source, attributes)
        try:
            mounts.put(mount, target)
        finally:
            os.close(mount)

    def _clear(self, path: str, field: str) -> None:
        """Raises Error("state") if somebody else's mount is at a path."""
        if mounts.at(path):
            raise Error("state", "somebody else's mount is there", subject=f"{field} {path}")

    def _is_there(self, use: Use, volume: Volume) -> bool:
        """Whether a volume is at a path, as the table of mounts says: a file system that is dead can be asked nothing."""
        if use.staged and volume.block:
            return True  # the device is made when it is asked for
        found = mounts.at(use.id)
        pool = self._driver.pool_of(volume, checked=False)
        return bool(found) and pool.back_end(volume).shows(pool.place(volume), volume, found[-1])

    def _end(self, use: Use, volume: Volume) -> None:
        """Take away a use, what is mounted for it, its target, and the devices that nothing needs any more."""
        driver = self._driver
        use = driver.store.put(replace(use, phase=model.REMOVING))
        field = _STAGING if use.staged else _TARGET
        while found := mounts.at(use.id):
            # Where somebody took a block volume's device away, its node is what we put there all the same.
            lost = volume.block and os.path.basename(found[-1].root).startswith(("loop", "dm-"))
            if not lost and not self._is_there(use, volume):
                raise Error("state", "somebody else's mount is there", subject=f"{field} {use.id}")
            _unmount(use)
        if not use.staged:
            paths.forget(use.id, field)
        self._release(use, volume)
        driver.store.delete(use)

    def _end_orphan(self, use: Use) -> None:
        """The same for a use whose volume is gone: what is at its path we put there, as its row says."""
        driver = self._driver
        there = mounts.at(use.id)
        devices = [one for pool in list(driver.pools.values()) for one in pool.images.marks() if mounts.of_device(one, there)]
        while mounts.at(use.id):
            _unmount(use)
        table = mounts.table()
        for device in devices:
            if not mounts.of_device(device, table):
                loops.detach(device)
        if not use.staged:
            paths.forget(use.id, _TARGET)
        driver.store.delete(use)

    def _release(self, use: Use, volume: Volume) -> None:
        """Detach what only this use needed."""
        others = [one for one in self._driver.uses(volume.id) if one.id != use.id]
        pool = self._driver.pool_of(volume, checked=False)
        place = pool.place(volume)
        if not others:
            pool.back_end(volume).release(place, volume)
        elif volume.block and not any(
            one.read_only or one.mode in (SINGLE_READER, MULTI_READER) for one in others if not one.staged
        ):
            with contextlib.suppress(FileNotFoundError):
                pool.back_end(volume).release(place, volume, read_only=True)


def _unmount(use: Use) -> None:
    try:
        mounts.take_away(use.id)
    except OSError as err:
        if err.errno == errno.EBUSY:
            hint = "a process has a file of it open"
            raise Error("in-use", "is busy", subject=f"{_STAGING if use.staged else _TARGET} {use.id}", hint=hint) from None
        raise


def _is_writable(use: Use, volume: Volume) -> bool:
    """Whether a file system is at a path that its flags let be written."""
    return not volume.block and not mount_flags.read(use.flags, volume.fs_type)[1]


def _use(path: str, volume: Volume, access: Access, *, staged: bool) -> Use:
    return Use(
        id=path,
        phase=model.MAKING,
        volume=volume.id,
        staged=staged,
        block=volume.block,
        read_only=access.reads_only,
        mode=access.mode,
        asked=access.asked,
        group=access.group,
        flags=access.flags,
    )
