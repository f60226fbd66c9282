"""Writing a bundle: `DIR/config.json` and `DIR/rootfs`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images import platforms
from ocirt_images.bundle.config import present, runtime_config
from ocirt_images.bundle.users import User, resolve
from ocirt_images.config import ImageConfig
from ocirt_images.digest import chain_ids
from ocirt_images.errors import Error
from ocirt_images.snapshots import ANNOTATION, Owner, Snapshots, Writable, attach, copy_layers, detach
from ocirt_images.store.changes import Changes
from ocirt_images.store.trees import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ocirt_images.bundle.options import Options
    from ocirt_images.digest import Digest
    from ocirt_images.store import Store

CONFIG = "config.json"
ROOTFS = "rootfs"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is unpacked. name: for errors; chain_id: of its topmost layer, None for an image without layers."""

    name: str
    config: ImageConfig
    chain_id: Digest | None

    @classmethod
    def find(cls, store: Store, text: str) -> Image:
        """The image that a person means. Raises Error("not-found"), Error("invalid") for what is not to be run here."""
        record = store.images.find(text)
        config = ImageConfig.read(store.content.read(record.config), record.name)
        config.check_platform(platforms.host(), record.name)
        chain = chain_ids(list(config.diff_ids))
        return cls(record.name, config, chain[-1] if chain else None)


def write_copy(image: Image, layers: list[Path], directory: Path, options: Options) -> None:
    """A bundle with a root file system of its own: it needs no store, and survives a reboot.

    `directory` is made, or is there and empty. Raises Error, OSError, with nothing left of what was made.
    """
    check(image, options)
    with Undo() as undo:
        make_directory(directory, undo)
        rootfs = directory / ROOTFS
        undo.add(lambda: remove_tree(rootfs, Changes(sync=False)))
        copy_layers(layers, rootfs)
        write_config(image, directory, options)


def write_mounted(image: Image, directory: Path, options: Options, snapshots: Snapshots, size: int = 0) -> Writable:
    """A bundle whose root file system is mounted, in this process's mount namespace, with a writable layer in the store.

    Returns that layer, which may take `size` bytes (0: no limit); the bundle keeps it.
    Raises Error, OSError, with nothing left of what was made.
    """
    check(image, options)
    with Undo() as undo:
        make_directory(directory, undo)
        writable = snapshots.create(Owner.bundle(directory), image.chain_id, size)
        undo.add(lambda: snapshots.remove(writable))
        mount = snapshots.mount(image.chain_id, writable)
        try:
            rootfs = directory / ROOTFS
            rootfs.mkdir(0o755)
            undo.add(rootfs.rmdir)
            attach(mount, rootfs)
            undo.add(lambda: detach(rootfs))
        finally:
            os.close(mount)
        write_config(image, directory, options.with_annotation(ANNOTATION, str(writable.record.id)))
        return writable


def mount_again(directory: Path, store: Store, snapshots: Snapshots) -> None:
    """Mount the root file system of a bundle of `write_mounted`'s, with all that was written to it, where it is not any more.

    Does nothing if it is mounted. Raises Error("not-found") for another directory, or if the store has not what was written;
    OSError.
    """
    number = read_annotation(directory)
    owner = Owner.bundle(directory)
    record = store.writables.get(owner.key)
    if record is None or str(record.id) != number:
        made = [one for one in map(Owner.parse, (each.key for each in store.writables.list() if str(each.id) == number)) if one]
        hint = f"it was made as {made[0].name}" if made else "another store may have it: see --image-root"
        raise Error("not-found", f"there is no writable layer {number} for it", subject=str(directory), hint=hint)
    rootfs = directory / ROOTFS
    rootfs.mkdir(0o755, exist_ok=True)
    with store.leases.lease(owner.key) as lease:
        writable = Writable(record, lease)
        alone = os.open(writable.upper.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Two mounts over the same writable layer would spoil it: who comes second finds it mounted.
            fcntl.flock(alone, fcntl.LOCK_EX)
            if not rootfs.is_mount():
                mount = snapshots.mount(record.chain_id, writable)
                try:
                    attach(mount, rootfs)
                finally:
                    os.close(mount)
        finally:
            os.close(alone)


def read_annotation(directory: Path) -> str:
    """The number of the writable layer that a bundle is mounted with. Raises Error("not-found")."""
    try:
        return str(json.loads((directory / CONFIG).read_bytes())["annotations"][ANNOTATION])
    except (OSError, ValueError, KeyError, TypeError):
        what = "no bundle that `ocirt bundle --mount IMAGE DIRECTORY` made"
        raise Error("not-found", what, subject=str(directory)) from None


def check(image: Image, options: Options) -> None:
    """What can be said without the image's files, before anything is made. Raises Error("invalid")."""
    runtime_config(image.config, options, User(), subject=image.name)


def make_directory(directory: Path, undo: Undo) -> None:
    """Make the bundle's directory, unless it is there and empty. Raises Error("not-found"), Error("exists")."""
    try:
        directory.mkdir(0o755)
        undo.add(directory.rmdir)
    except FileNotFoundError:
        what = "it cannot be made"
        raise Error("not-found", what, subject=str(directory), cause="its parent is not there") from None
    except FileExistsError:
        if not directory.is_dir() or any(directory.iterdir()):
            what = "it is there, and not an empty directory"
            hint = "choose another name, or remove it"
            with contextlib.suppress(Error):
                read_annotation(directory)
                hint = f"`ocirt bundle --mount {directory}` mounts it again, if it is not"
            raise Error("exists", what, subject=str(directory), hint=hint) from None


def write_config(image: Image, directory: Path, options: Options) -> None:
    """Write config.json for the root file system that is there. Raises Error, OSError, with no file left."""
    root = os.open(directory / ROOTFS, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        user = resolve(options.user or image.config.user, root)
    except Error as err:
        subject = f"{image.name}: {err.subject}" if err.subject else image.name
        raise Error(err.code, err.message, subject=subject, cause=err.cause, hint=err.hint) from None
    finally:
        os.close(root)
    config = runtime_config(image.config, options, user, subject=image.name, network_files=present())
    data = json.dumps(config, indent=4, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    path = directory / CONFIG
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            file.write(data)
    except BaseException:
        path.unlink()
        raise


class Undo:
    """What is to be undone if the block fails, in the order of its making. Failures of that must not hide what went wrong."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], object]] = []

    def add(self, action: Callable[[], object]) -> None:
        """Undo something by `action`."""
        self._actions.append(action)

    def __enter__(self) -> Undo:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for action in reversed(self._actions):
                with contextlib.suppress(OSError, Error):
                    action()
