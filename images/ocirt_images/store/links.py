"""What content refers to other content: manifests and indexes, read leniently.

Whether a manifest is good is for its user to judge (manifest.py). Here it only says what it keeps in the store: what cannot be
read keeps nothing. A `subject` keeps nothing either: a signature does not hold the image that it signs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.manifest import LIMIT


def links(data: bytes) -> set[Digest]:
    """The digests that a manifest or an index holds; empty for everything else."""
    if data.lstrip()[:1] != b"{":
        return set()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return set()
    if not isinstance(value, dict) or value.get("schemaVersion") != 2:
        return set()
    found = set()
    for one in (value.get("config"), *_list(value.get("layers")), *_list(value.get("manifests"))):
        try:
            found.add(Digest(one["digest"]))
        except (TypeError, KeyError, AttributeError, Error):
            continue
    return found


def links_of_file(path: Path, size: int) -> set[Digest]:
    """The same for a file."""
    if size > LIMIT:
        return set()
    with path.open("rb") as file:
        head = file.read(64)
        return links(head + file.read()) if head.lstrip()[:1] in (b"{", b"") else set()


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
