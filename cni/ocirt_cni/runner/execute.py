"""Plugins as executables: where they are, and one call of one (SPEC.md, sections 2 and 4)."""

from __future__ import annotations

import os

from ocirt_cni import plugins
from ocirt_cni.call import Call
from ocirt_cni.errors import INVALID_CONFIG, Error
from ocirt_cni.results import Result


def find(name: str, path: tuple[str, ...]) -> str | None:
    """The executable of a plugin: the first of that name in the directories of CNI_PATH. Raises Error(INVALID_CONFIG)."""
    if not name or "/" in name or name in (".", ".."):
        raise Error(INVALID_CONFIG, f"{name!r} is not the name of a plugin", subject="/type")
    for directory in path:
        found = f"{directory}/{name}"
        if os.path.isfile(found) and os.access(found, os.X_OK):
            return found
    return None


def is_ours(name: str, path: tuple[str, ...]) -> bool:
    """Whether a call of this plugin is done in this process. Raises Error(INVALID_CONFIG) for what is no name."""
    found = find(name, path)
    if found is None:
        return name in plugins.PLUGINS
    return name in plugins.PLUGINS and os.path.basename(os.path.realpath(found)) in ("ocirt", "ocirt-cni")


def execute(name: str, call: Call) -> Result | None:
    """Execute a foreign plugin. Raises Error: its own, or one that says how it ended."""
    raise NotImplementedError
