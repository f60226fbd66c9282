"""`ocirt prune`: free what nothing needs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ocirt_images.cli import output
from ocirt_images.errors import Error
from ocirt_images.snapshots import Snapshots
from ocirt_images.store.prune import prune

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command


def run(command: Command, args: list[str]) -> int:
    """Remove it, and say what went. Raises Error("usage") for an age that is none."""
    del args
    older = output.seconds(command.text("older")) if command.text("older") else 0.0
    if older is None:
        raise Error("usage", f"--older {command.text('older')}", hint="an age such as 90m, 24h or 7d")
    with command.store() as store:
        # Those of containers that are gone first: images that only they used are then free.
        written = Snapshots(store).prune(until=time.time() - older)
        gone = prune(store, older=older, images=command.flag("all"))
    freed = written.freed
    freed += gone.freed
    size = written.size + freed.content_bytes + freed.layer_bytes + gone.ingest_bytes
    if command.flag("json"):
        output.say_json(
            {
                "images": gone.images,
                "writables": written.keys,
                "writable_bytes": written.size,
                "contents": freed.contents,
                "content_bytes": freed.content_bytes,
                "layers": freed.layers,
                "layer_bytes": freed.layer_bytes,
                "downloads": gone.ingests,
                "download_bytes": gone.ingest_bytes,
            }
        )
    elif not command.flag("quiet"):
        parts = [
            output.count(len(gone.images), "image"),
            output.count(len(written.keys), "writable layer"),
            output.count(freed.contents, "blob"),
            output.count(freed.layers, "unpacked layer"),
            output.count(gone.ingests, "unfinished download"),
        ]
        output.out("".join(f"Untagged: {name}\n" for name in gone.images))
        output.out(f"{output.size(size)} freed: {', '.join(part for part in parts if part) or 'there was nothing'}\n")
    return 0
