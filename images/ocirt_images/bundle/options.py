"""What a caller wants to be different from what an image says."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ocirt_images.snapshots.namespace import Mappings

NETWORKS = ("", "none", "host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a bundle. Empty: what the image says.

    args: the command, in place of the image's Cmd; entrypoint: in place of its Entrypoint *and* its Cmd, empty for none
    env: `NAME=VALUE`, which replace the image's; user: see users.py; cwd: the working directory
    terminal: whether the process gets one; read_only: whether the root file system is
    hostname: "" for `ocirt`; network: `none` (a namespace with nothing but lo), `host`, or "" for host where `unprivileged`, else
    none
    no_new_privileges: whether set-user-ID programs lose their effect
    unprivileged: the runtime is not root of the machine; mappings: of the user namespace of the container, None for none;
    entered: the runtime is in that namespace, and does not make one
    annotations: of ours, which no label of the image replaces
    """

    args: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str = ""
    cwd: str = ""
    terminal: bool = False
    read_only: bool = False
    hostname: str = ""
    network: str = ""
    no_new_privileges: bool = False
    unprivileged: bool = False
    mappings: Mappings | None = None
    entered: bool = False
    annotations: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raises Error("usage") for what cannot be meant."""
        for entry in self.env:
            name, equals, _ = entry.partition("=")
            if not name or not equals or "\0" in entry:
                raise Error("usage", f"--env {entry[:200]!r}: not NAME=VALUE")
        if self.cwd and not self.cwd.startswith("/"):
            raise Error("usage", f"working directory {self.cwd[:200]!r}: not an absolute path")
        if self.network not in NETWORKS:
            raise Error("usage", f"--network {self.network[:80]!r}", hint="none or host")

    def with_annotation(self, name: str, value: str) -> Options:
        """The same with one annotation more."""
        return replace(self, annotations=(*self.annotations, (name, value)))

    def with_privileges(self, mappings: Mappings | None, *, unprivileged: bool, entered: bool = False) -> Options:
        """The same for a runtime that has other rights."""
        return replace(self, mappings=mappings, unprivileged=unprivileged, entered=entered)

    @property
    def host_network(self) -> bool:
        """Whether the container uses the host's network."""
        return self.network == "host" or (not self.network and self.unprivileged)


def read_entrypoint(text: str) -> tuple[str, ...]:
    """`--entrypoint`: one program, a JSON list of words, or nothing. Raises Error("usage")."""
    if not text.startswith("["):
        return (text,) if text else ()
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Error("usage", f"--entrypoint {text[:200]!r}: not a JSON list of strings", hint="one program needs no brackets")
    return tuple(words)


def read_size(text: str) -> int:
    """`--size`: bytes, or a number with k, m, g or t (powers of 1024, `10g`, `512MiB`). Raises Error("usage")."""
    found = re.fullmatch(r"([0-9]{1,18}) ?(?:([kmgt])(?:i?b)?|b)?", text.strip().lower())
    size = int(found[1]) << 10 * " kmgt".index(found[2] or " ") if found else 0
    if not 0 < size < 1 << 63:
        raise Error("usage", f"--size {text[:80]!r}", hint="a number of bytes such as 10g, 512m or 4096")
    return size


def read_env(given: Iterable[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """`--env`: `NAME=VALUE`, or `NAME` for the caller's own value (nothing if it has none)."""
    found = (
        entry if "=" in entry else f"{entry}={environment[entry]}" for entry in given if "=" in entry or entry in environment
    )
    return tuple(found)
