"""What `ocirt run --image` asks this floor for (ocirt/cli/fromimage.py): is the image here, and a bundle of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ocirt_images.bundle.options import Options, read_entrypoint, read_env
from ocirt_images.cli.command import Command
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from ocirt_images.bundle.prepare import Prepared
    from ocirt_images.cli.command import Given


def is_here(given: Given) -> bool:
    """Whether the store has the image, unpacked. Raises Error for a name that says nothing, or too much."""
    from ocirt_images.pull.unpack import is_unpacked  # noqa: PLC0415  (loads the store)

    command = Command(given)
    with command.store() as store:
        try:
            return is_unpacked(store, store.images.find(command.text("image")))
        except Error as err:
            if err.code != "not-found":
                raise
            return False


def prepare(given: Given, args: list[str], container: str, state_root: str) -> Prepared:
    """A bundle for a container, in namespaces that this process enters. Raises Error, OSError, with nothing left."""
    from ocirt_images.bundle.prepare import enter, prepare_run  # noqa: PLC0415  (loads the store)

    command = Command(given)  # whose store it is, is decided as who we are now
    options = enter(read_options(command, args, hostname=container))
    return prepare_run(command.root, command.text("image"), container, state_root, options)


def read_options(command: Command, args: list[str], hostname: str = "") -> Options:
    """What the flags say. Raises Error("usage")."""
    return Options(
        args=tuple(args),
        entrypoint=read_entrypoint(command.text("entrypoint")) if command.given("entrypoint") else None,
        env=read_env(command.texts("env"), os.environ),
        user=command.text("user"),
        cwd=command.text("cwd"),
        terminal=command.flag("tty"),
        read_only=command.flag("read-only"),
        hostname=command.text("hostname") or hostname,
        network=command.text("network"),
        no_new_privileges=command.flag("no-new-privs"),
    )
