"""`ocirt bundle IMAGE DIRECTORY`: a bundle that `ocirt run DIRECTORY/` runs."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images.bundle.write import Image, mount_again, write_copy, write_mounted
from ocirt_images.cli.run import read_options, size_of
from ocirt_images.errors import Error
from ocirt_images.pull import unpack
from ocirt_images.snapshots import Snapshots
from ocirt_images.snapshots.namespace import enter_user, is_host_root, own_mappings

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command


def run(command: Command, args: list[str]) -> int:
    """Make the bundle args[1] of the image args[0]; args[2:] replace the image's command.

    Of one argument alone, a bundle, the root file system is mounted again. Raises Error, OSError.
    """
    if len(args) == 1:
        return _mount_again(command, Path(args[0]))
    name, directory, *words = args
    options = read_options(command, words)
    size = size_of(command)
    if size and not command.flag("mount"):
        raise Error("usage", "--size without --mount", hint="a copy has no writable layer of its own")
    if not command.given("tty"):
        options = replace(options, terminal=not words and os.isatty(0) and os.isatty(1))
    for_user = os.geteuid() != 0
    if for_user and command.flag("mount"):
        raise _not_for_users()
    with command.store() as store:
        unpack(store, store.images.find(name))
    if for_user:
        mappings = command.mappings or own_mappings()
        options = options.with_privileges(mappings, unprivileged=True)
        if command.mappings is None:
            # Files that even their owner may not read (mode 0) can be copied there.
            with contextlib.suppress(Error):
                enter_user(mappings)
    else:
        options = options.with_privileges(None, unprivileged=not is_host_root())
    with command.store() as store, store.leases.lease(f"bundle {directory}") as lease:
        image = Image.find(store, name)
        if image.chain_id is not None:
            lease.pin(layers=[image.chain_id])
        snapshots = Snapshots(store)
        if command.flag("mount"):
            write_mounted(image, Path(directory), options, snapshots, size)
        else:
            write_copy(image, snapshots.layers(image.chain_id), Path(directory), options)
    return 0


def _mount_again(command: Command, directory: Path) -> int:
    if os.geteuid() != 0:
        raise _not_for_users()
    with command.store() as store:
        mount_again(directory, store, Snapshots(store))
    return 0


def _not_for_users() -> Error:
    what = "--mount: a mount of a user's is seen by nobody else"
    return Error("unsupported", what, hint="leave it out: the bundle gets a copy")
