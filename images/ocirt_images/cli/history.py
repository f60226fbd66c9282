"""`ocirt history`: the steps that made an image, the last one first, as docker shows them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ocirt_images.cli import look, output

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command
    from ocirt_images.cli.look import Image

_SHELL = "/bin/sh -c "
_NOP = "#(nop) "  # how the classic builder marks what ran nothing
_WIDEST = 45  # columns of a command


def run(command: Command, args: list[str]) -> int:
    """Print the history of the image args[0]. Raises Error("not-found"), Error("invalid"), Error("corrupt")."""
    with command.store() as store:
        found = look.image(store, store.images.find(args[0]))
    steps = list(reversed(_steps(found)))
    if command.flag("quiet"):
        output.out("".join(f"{step['layer']}\n" for step in steps if step["layer"]))
    elif command.flag("json"):
        output.say_json(steps)
    else:
        output.out(
            output.table([("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), *_rows(steps, whole=command.flag("no-trunc"))])
        )
    return 0


def _steps(image: Image) -> list[dict[str, Any]]:
    """All steps, the first one first; layers of which the history says nothing stand at the end."""
    layers = list(image.manifest.layers)
    steps = []
    for entry in image.config.history:
        layer = layers.pop(0) if layers and not entry.get("empty_layer") else None
        steps.append(
            {
                "layer": layer.digest if layer else None,
                "created": str(entry.get("created") or ""),
                "created_by": str(entry.get("created_by") or ""),
                "size": layer.size if layer else 0,
                "comment": str(entry.get("comment") or ""),
            }
        )
    steps += [{"layer": one.digest, "created": "", "created_by": "", "size": one.size, "comment": ""} for one in layers]
    return steps


def _rows(steps: list[dict[str, Any]], *, whole: bool) -> list[tuple[str, ...]]:
    now = time.time()
    rows: list[tuple[str, ...]] = []
    for step in steps:
        layer, created = step["layer"], output.time(step["created"])
        by = " ".join(step["created_by"].removeprefix(_SHELL).removeprefix(_NOP).split())
        if not whole and len(by) > _WIDEST:
            by = by[: _WIDEST - 1] + "…"
        shown = (layer if whole else layer.short) if layer else "-"
        rows.append((shown, output.age(created, now) if created else "-", by, output.size(step["size"]), step["comment"]))
    return rows
