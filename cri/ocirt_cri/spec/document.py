"""A document as bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocirt_cri.spec.inputs import Json


def text(data: bytes) -> str:
    """Bytes of a request, which need not be UTF-8, as a string of a document: what is none becomes lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def encode(document: Json) -> bytes:
    """A config.json or process.json as JSON text; a string that came from bytes has just these bytes in it.

    Where they are no UTF-8 the text is none either: `ocirt.jsonlite.loads` reads it with `any_bytes`.
    """
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")
