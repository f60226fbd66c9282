"""What `ocirt run --image` asks this floor for (ocirt/cli/fromimage.py): is the image here, and a bundle of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ocirt_images.bundle.options import Options, read_entrypoint, read_env, read_size
from ocirt_images.cli.command import Command
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from ocirt_images.bundle.prepare import Prepared
    from ocirt_images.cli.command import Given


def state(given: Given) -> str:
    """`unpacked`, `loaded` if it is in the store and has to be unpacked, `` if it is not there.

    Raises Error for a name that says nothing, or too much.
    """
    from ocirt_images.pull.unpack import is_unpacked  # noqa: PLC0415  (loads the store)
    from ocirt_images.store import Store  # noqa: PLC0415

    command = Command(given)
    # By the caller, who becomes somebody else only when the bundle is made; so what is to be removed has to wait till then.
    with Store.open(command.root, recover=False) as store:
        try:
            record = store.images.find(command.text("image"))
        except Error as err:
            if err.code != "not-found":
                raise
            return ""
        return "unpacked" if is_unpacked(store, record) else "loaded"


def unpack_here(given: Given) -> None:
    """Unpack an image that is in the store. Raises Error, OSError."""
    from ocirt_images.cli import progress  # noqa: PLC0415
    from ocirt_images.pull import unpack  # noqa: PLC0415

    command = Command(given)
    with command.store() as store, progress.choose(quiet=False, as_json=False) as shown:
        unpack(store, store.images.find(command.text("image")), shown)


def prepare(given: Given, args: list[str], container: str, state_root: str) -> Prepared:
    """A bundle for a container, in namespaces that this process enters. Raises Error, OSError, with nothing left."""
    from ocirt_images.bundle.prepare import enter, prepare_run  # noqa: PLC0415  (loads the store)

    command = Command(given)  # whose store it is, is decided as who we are now
    size = size_of(command)
    options = enter(read_options(command, args, hostname=container))
    return prepare_run(command.root, command.text("image"), container, state_root, options, size)


def size_of(command: Command) -> int:
    """`--size` in bytes, 0 without. Raises Error("usage")."""
    return read_size(command.text("size")) if command.given("size") else 0


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
