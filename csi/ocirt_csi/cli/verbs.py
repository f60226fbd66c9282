"""The verbs and what they do. None of them is loaded for the driver itself but this table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from ocirt_csi.config import Config
from ocirt_csi.errors import Error

Flags = dict[str, str]


@dataclass(frozen=True, slots=True)
class Verb:
    """usage: as a person types it; words: how many follow it, at least and at most; flags: that it takes; module: that has it."""

    usage: str
    text: str
    module: str
    words: tuple[int, int]
    flags: tuple[str, ...] = ()

    def run(self, config: Config, words: list[str], flags: Flags) -> int:
        """Do it; the exit status. Raises Error."""
        name = self.usage.partition(" ")[0]
        least, most = self.words
        if not least <= len(words) <= most:
            raise Error("usage", f"is used like this: ocirt-csi {self.usage}", subject=name)
        for flag in flags:
            if flag not in self.flags:
                raise Error("usage", f"does not take --{flag}", subject=name, hint=f"ocirt-csi {self.usage}")
        found: Callable[[Config, list[str], Flags], int] = getattr(
            import_module(f"ocirt_csi.cli.{self.module}"), {"list": "list_all"}.get(name, name)
        )
        return found(config, words, flags)


VERBS = {
    one.usage.partition(" ")[0]: one
    for one in (
        Verb("list [--json]", "volumes and snapshots", "look", (0, 0), ("json",)),
        Verb("show NAME [--json]", "all that is known of one of them", "look", (1, 1), ("json",)),
        Verb("usage [--json]", "what pools have, and what they promised", "look", (0, 0), ("json",)),
        Verb("doctor [--json]", "why each pool keeps volumes as it does", "look", (0, 0), ("json",)),
        Verb(
            "create NAME [--size SIZE] [--fs-type FS|block] [--class NAME]",
            "make a volume",
            "change",
            (1, 1),
            ("size", "fs-type", "class"),
        ),
        Verb("clone SOURCE NAME [--size SIZE]", "make a volume of a volume or snapshot", "change", (2, 2), ("size",)),
        Verb("snapshot VOLUME NAME", "keep what a volume holds now", "change", (2, 2)),
        Verb("expand VOLUME SIZE", "let a volume be larger", "change", (2, 2)),
        Verb("delete NAME", "take a volume or a snapshot away", "change", (1, 1)),
        Verb("mount VOLUME DIR", "have a volume in a folder, for a bundle's mount", "change", (2, 2)),
        Verb("unmount VOLUME DIR", "undo it", "change", (2, 2)),
        Verb(
            "send NAME [--from SNAPSHOT] > FILE",
            "write a snapshot, or a volume as it is now, as a stream: all of it, or what differs from an older snapshot",
            "move",
            (1, 1),
            ("from",),
        ),
        Verb("receive [NAME] [--class NAME] < FILE", "make a snapshot of a stream", "move", (0, 1), ("class",)),
        Verb(
            "fsck [--dry-run] [--json]",
            "compare state and pools; adopt what the state lost",
            "repair",
            (0, 0),
            ("dry-run", "json"),
        ),
        Verb("gc [--dry-run] [--json]", "free what nothing owns", "repair", (0, 0), ("dry-run", "json")),
    )
}
