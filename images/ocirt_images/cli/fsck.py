"""`ocirt fsck`: whether the store holds what it says, and with --repair, that it does."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING

from ocirt_images.cli import output
from ocirt_images.cli.progress import REDRAW, printable
from ocirt_images.store.checks import fsck

if TYPE_CHECKING:
    from ocirt_images.cli.command import Command

# What a killed command leaves, and the next one finishes: it is named, but is no damage.
_UNFINISHED = frozenset(("ingest-stale", "removal-unfinished", "staging-stale"))


def run(command: Command, args: list[str]) -> int:
    """Print a line for each finding. Returns 1 if damage is left.

    Raises Error("not-found") if there is no store, Error("in-use") for a repair while others use it.
    """
    del args
    command.enter()
    shown = _Progress() if os.isatty(2) and not command.flag("quiet") else None
    found = fsck(command.root, repair=command.flag("repair"), progress=shown)
    if shown is not None:
        shown.clear()
    if command.flag("json"):
        output.say_json([dataclasses.asdict(one) for one in found])
    elif not command.flag("quiet"):
        for one in found:
            end = "repaired" if one.repaired else "not repaired" if command.flag("repair") else ""
            output.out(f"{one.kind} {printable(one.subject)}: {printable(one.text)}{f' ({end})' if end else ''}\n")
    left = sum(not one.repaired and one.kind not in _UNFINISHED for one in found)
    if left and not (command.flag("repair") or command.flag("quiet") or command.flag("json")):
        output.out(f"{left} damaged: ocirt fsck --repair\n", 2)
    return 1 if left else 0


class _Progress:
    """How much was read, in one line of a terminal."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last >= REDRAW:
            self._last = now
            output.out(f"\r{output.size(done)} of {output.size(total)} read\x1b[K", 2)

    def clear(self) -> None:
        output.out("\r\x1b[K", 2)
