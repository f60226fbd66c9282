"""Writing a bundle: `DIR/config.json` and `DIR/rootfs`."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocirt_images.bundle.config import present, runtime_config
from ocirt_images.bundle.users import User, resolve
from ocirt_images.errors import Error
from ocirt_images.snapshots import ANNOTATION, Owner, Snapshots, Writable, attach, copy_layers, detach, tree

if TYPE_CHECKING:
    from pathlib import Path

    from ocirt_images.bundle.options import Options
    from ocirt_images.config import ImageConfig

CONFIG = "config.json"
ROOTFS = "rootfs"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is unpacked. name: for errors; layers: directories, from the lowest up."""

    name: str
    config: ImageConfig
    layers: tuple[Path, ...]


def write_copy(image: Image, directory: Path, options: Options) -> None:
    """A bundle with a root file system of its own: it needs no store, and survives a reboot.

    `directory` is made, or is there and empty. Raises Error, OSError, with nothing left of what was made.
    """
    _check(image, options)
    with _Making(directory) as made:
        rootfs = directory / ROOTFS
        made.trees.append(rootfs)
        copy_layers(image.layers, rootfs)
        _write_config(image, directory, options, rootfs)


def write_mounted(image: Image, directory: Path, options: Options, snapshots: Snapshots, owner: Owner) -> Writable:
    """A bundle whose root file system is mounted, in this process's mount namespace, with a writable layer in the store.

    Returns that layer, held. Raises Error, OSError, with nothing left of what was made.
    """
    _check(image, options)
    with _Making(directory) as made:
        writable = snapshots.create(owner, image.layers)
        made.writable = writable
        mount_into(image, directory, options, snapshots, writable, made=made)
        return writable


def mount_into(
    image: Image,
    directory: Path,
    options: Options,
    snapshots: Snapshots,
    writable: Writable,
    *,
    volatile: bool = False,
    made: _Making | None = None,
) -> None:
    """Mount the image with `writable` at rootfs of a bundle directory that is there, and write its config.json."""
    rootfs = directory / ROOTFS
    mount = snapshots.mount(image.layers, writable, volatile=volatile)
    try:
        rootfs.mkdir(0o755)
        if made is not None:
            made.trees.append(rootfs)
        attach(mount, rootfs)
        if made is not None:
            made.mounts.append(rootfs)
    finally:
        os.close(mount)
    _write_config(image, directory, options.with_annotation(ANNOTATION, writable.id), rootfs)


def _check(image: Image, options: Options) -> None:
    """What can be said without the image's files, before anything is made."""
    runtime_config(image.config, options, User(), subject=image.name)


def _write_config(image: Image, directory: Path, options: Options, rootfs: Path) -> None:
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        user = resolve(options.user or image.config.user, root)
    except Error as err:
        raise Error(
            err.code,
            err.message,
            subject=f"{image.name}: {err.subject}" if err.subject else image.name,
            cause=err.cause,
            hint=err.hint,
        ) from None
    finally:
        os.close(root)
    config = runtime_config(image.config, options, user, subject=image.name, network_files=present())
    data = json.dumps(config, indent=4, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
    fd = os.open(directory / CONFIG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(data)


class _Making:
    """A bundle directory that is being filled: what fails leaves it as it was."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.trees: list[Path] = []
        self.mounts: list[Path] = []
        self.writable: Writable | None = None
        self._new = False

    def __enter__(self) -> _Making:
        try:
            self.directory.mkdir(0o755)
            self._new = True
        except FileNotFoundError:
            hint = "its parent has to be there"
            raise Error("not-found", "it cannot be made", subject=str(self.directory), hint=hint) from None
        except FileExistsError:
            if not self.directory.is_dir() or any(self.directory.iterdir()):
                what = "it is there, and not an empty directory"
                raise Error("exists", what, subject=str(self.directory), hint="choose another name, or remove it") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        # What goes wrong in the undoing must not hide what went wrong.
        for mount in self.mounts:
            with contextlib.suppress(OSError):
                detach(mount)
        for path in self.trees:
            with contextlib.suppress(OSError):
                tree.remove(path)
        with contextlib.suppress(OSError):
            (self.directory / CONFIG).unlink(missing_ok=True)
        if self._new:
            with contextlib.suppress(OSError):
                self.directory.rmdir()
        if self.writable is not None:
            with contextlib.suppress(OSError):
                self.writable.remove()
