"""`ocirt push`: an image to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.cli import names, output, progress
from ocirt_images.errors import Error
from ocirt_images.platforms import Platform
from ocirt_images.push import push
from ocirt_images.reference import Reference
from ocirt_images.registry.client import Registry
from ocirt_images.registry.credentials import Credentials
from ocirt_images.registry.hosts import Hosts

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command
    from ocirt_images.store import ImageRecord


def run(command: Command, args: list[str]) -> int:
    """Push the image args[0] to where its name says, or to args[1].

    Raises Error("usage") for an image that is named by its ID, without args[1]; Error, OSError.
    """
    to = names.reference(args[1]) if len(args) > 1 else None
    platform = Platform.named(command.text("platform")) if command.text("platform") else None
    quiet, as_json = command.flag("quiet"), command.flag("json")
    registry = Registry(hosts=Hosts.load(), credentials=Credentials.load(), insecure=command.flag("insecure"))
    with command.store() as store, registry:
        command.settled()
        record = store.images.find(args[0])
        reference = to or _named(record, args[0])
        with progress.choose(quiet=quiet, as_json=as_json) as shown:
            digest = push(store, registry, record, reference, platform, shown)
    if not as_json:
        output.out(f"{digest if quiet else f'{reference}: {digest}'}\n")
    return 0


def _named(record: ImageRecord, text: str) -> Reference:
    """Where an image's own name says that it belongs."""
    reference = names.kept(record.name) if record.name in (text, Reference.full(text)) else None
    if reference is None:
        raise Error("usage", "it is not clear where to", subject=text, hint="ocirt push IMAGE REFERENCE")
    return reference
