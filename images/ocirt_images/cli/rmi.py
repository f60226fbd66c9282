"""`ocirt rmi`: remove names, and with its last name the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocirt_images.cli import output
from ocirt_images.errors import Error
from ocirt_images.reference import Reference

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command
    from ocirt_images.store import ImageRecord, Store


def run(command: Command, args: list[str]) -> int:
    """Remove images, those that can be, and say what went.

    Raises Error("not-found"), Error("invalid") for an ID that several images could be, Error("in-use") for an image of a
    container, or for an ID that has several names, without --force.
    """
    with command.store() as store:
        command.for_each(args, lambda text: _remove(command, store, text))
    return 0


def _remove(command: Command, store: Store, text: str) -> None:
    force = command.flag("force")
    try:
        found = store.images.find(text)
    except Error as err:
        if err.code == "not-found" and force:
            return
        raise
    records = [one for one in store.images.list() if one.config == found.config]
    if found.name in (text, Reference.full(text)):
        removed = [found]
    else:  # by ID or digest
        removed = records
        if len(removed) > 1 and not force:
            hint = f"it is {', '.join(one.name for one in removed)}: remove one of these, or all by --force"
            raise Error("in-use", f"an image with {len(removed)} names", subject=text, hint=hint)
    if len(removed) == len(records) and not force:
        _check_unused(store, found)
    lines = []
    for one in removed:
        freed = store.images.delete(one.name)
        lines.append(f"Untagged: {one.name}")
        if one is removed[-1] and len(removed) == len(records):
            lines.append(f"Deleted: {found.config} ({output.size(freed.content_bytes + freed.layer_bytes)} freed)")
    if not command.flag("quiet"):
        output.out("".join(f"{line}\n" for line in lines))


def _check_unused(store: Store, record: ImageRecord) -> None:
    """Raises Error("in-use") if a container runs on the image."""
    users = [one.key for one in store.writables.list() if record.layer is not None and one.chain_id == record.layer]
    if users:
        hint = "delete the container first, or use --force: it keeps what it needs"
        raise Error("in-use", f"the container {users[0]} uses it", subject=record.name, hint=hint)
