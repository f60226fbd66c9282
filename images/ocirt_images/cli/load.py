"""`ocirt load`: images from an archive, a directory, or a containerd."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ocirt_images import platforms
from ocirt_images.archive import containerd, load
from ocirt_images.cli import names, output, progress
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_images.archive.load import Loaded, Wish
    from ocirt_images.cli.command import Command
    from ocirt_images.events import OnEvent
    from ocirt_images.store import Store


def run(command: Command, args: list[str]) -> int:
    """Take the images of args[0], of standard input without one, or of a containerd.

    Raises Error("usage") if it is not clear which, and what `ocirt_images.archive.load` raises.
    """
    sources = [*args, *(text for flag in ("input", "from-containerd") if (text := command.text(flag)))]
    if len(sources) > 1:
        raise Error("usage", "more than one archive", cause=" and ".join(sources), hint="load one after the other")
    if command.text("namespace") and not command.text("from-containerd"):
        raise Error("usage", "--namespace says nothing without --from-containerd")
    wish = load.Wish(
        platform=Platform.named(command.text("platform")) if command.text("platform") else platforms.host(),
        everything=command.flag("all-platforms"),
        name=str(names.reference(command.text("name"), tag="")) if command.text("name") else "",
    )
    quiet, as_json = command.flag("quiet"), command.flag("json")
    with command.store() as store, progress.choose(quiet=quiet, as_json=as_json) as shown:
        command.settled()

        def done(loaded: list[Loaded]) -> None:
            """Say what came, where the pictures of bars do not overwrite it."""
            shown.close()
            if not as_json:
                output.out("".join(_lines(one, quiet=quiet) for one in loaded))

        if command.text("from-containerd"):
            namespace = command.text("namespace") or containerd.KUBERNETES
            _from_containerd(command, store, Path(sources[0]), namespace, wish, shown, done)
        else:
            done(_load(store, sources[0] if sources else "-", wish, shown))
    return 0


def _load(store: Store, source: str, wish: Wish, shown: OnEvent) -> list[Loaded]:
    if source != "-":
        return load.load(store, Path(source), source, wish, shown)
    if os.isatty(0):
        raise Error("usage", "no archive is given, and standard input is a terminal", hint="ocirt load FILE")
    return load.load(store, 0, "standard input", wish, shown)


def _from_containerd(
    command: Command,
    store: Store,
    path: Path,
    namespace: str,
    wish: Wish,
    shown: OnEvent,
    done: Callable[[list[Loaded]], None],
) -> None:
    """All images of a containerd, those that can be had: containerd may have let go of layers, once they were unpacked."""
    if path.is_socket():

        def export(name: str) -> None:
            with containerd.exported(path, namespace, name, everything=wish.everything) as fd:
                done(load.load(store, fd, f"{path}: {name}", wish, shown))

        command.for_each(containerd.names(path, namespace), export)
        return
    if not path.is_dir():
        hint = "as in /run/containerd/containerd.sock or /var/lib/containerd"
        raise Error("not-found", "neither a socket nor a directory of containerd's", subject=str(path), hint=hint)
    archive = containerd.directory(path, namespace)
    with store.leases.lease(f"load {path}") as lease:
        taker = load.Taker(store, lease, shown)
        command.for_each(archive.entries, lambda entry: done([taker.image(archive, entry, wish)]))


def _lines(loaded: Loaded, *, quiet: bool) -> str:
    if quiet:
        return f"{loaded.image_id}\n"
    return "".join(f"Loaded image: {name}\n" for name in loaded.names) or f"Loaded image ID: {loaded.image_id}\n"
