"""`ocirt tag`: further names for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.cli import names
from ocirt_images.errors import Error

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command


def run(command: Command, args: list[str]) -> int:
    """Name the image args[0] by args[1:] as well. A name that another image had goes over.

    Raises Error("not-found"), Error("invalid") for what is no name or has a digest in it.
    """
    image, *others = args
    wanted = [names.reference(other) for other in others]
    for reference in wanted:
        if reference.digest is not None:
            raise Error("invalid", "a name with a digest", subject=str(reference), hint="leave the digest out")
    with command.store() as store:
        for reference in wanted:
            store.images.tag(image, str(reference))
    return 0
