"""Looks at hooks: whether the programs are there that run outside the container."""

from __future__ import annotations

import posix

from ocirt import paths
from ocirt.kernel import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ocirt.containers.looks import Looks

_S_IFREG = 0o100000


def hook(looks: Looks, index: int, kind: str, number: int, hook: dict[str, Any], status: str) -> None:
    """A hook that the plan runs."""
    del index, status
    if kind != "startContainer":  # that one is looked up in the container
        _executable(looks, hook["path"], f"/hooks/{kind}/{number}/path", "error")


def of_the_host(looks: Looks) -> None:
    """The hooks that come after the plan. A poststop hook that fails does not make `run` fail."""
    for kind, severity in (("poststart", "error"), ("poststop", "warning")):
        for number, each in enumerate((looks.spec.get("hooks") or {}).get(kind) or ()):
            _executable(looks, each["path"], f"/hooks/{kind}/{number}/path", severity)


def _executable(looks: Looks, path: str, pointer: str, severity: str) -> None:
    if not paths.exists(path):
        looks.say(pointer, f'"{path}" is not there', "the path of a program on this machine", severity)
    elif posix.stat(path).st_mode & resolve.S_IFMT != _S_IFREG or not posix.access(path, posix.X_OK, effective_ids=True):
        looks.say(pointer, f'"{path}" cannot be executed', "a file with the right mode: chmod +x", severity)
