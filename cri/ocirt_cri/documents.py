"""The config.json of a container as it was made, kept in its own directory: what NRI plugins and checkpoints see of it later.

For a thread.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from ocirt_cri.spec.document import encode

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Json

_NAME = "config.json"


def place(directory: str) -> str:
    """Its path in a container's directory."""
    return os.path.join(directory, _NAME)


def keep(directory: str, document: Json) -> None:
    """Write it. Raises OSError."""
    os.makedirs(directory, 0o700, exist_ok=True)
    with open(place(directory), "wb") as file:
        file.write(encode(document))


def read(directory: str) -> Json:
    """The document. Raises OSError; ValueError for what is none."""
    with open(place(directory), encoding="utf-8", errors="surrogateescape") as file:
        found: Json = json.load(file)
    return found
