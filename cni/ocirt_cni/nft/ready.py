"""What the compiler makes of the texts that are the same on every host. It is there in an executable's archive alone.

To compile them takes the ADD that makes the tables a millisecond. So launcher/build.py does it, and puts it into the archive in
the place of what `READY` is here.
"""

from __future__ import annotations

READY: dict[str, list[tuple[int, int, bytes, str]]] = {}  # the fields of each `Request`


def made() -> dict[str, list[tuple[int, int, bytes, str]]]:
    """What `READY` is in the archive."""
    from ocirt_cni.nft import base, compiler, forward  # noqa: PLC0415  (who asks for what is ready needs none of it)

    texts = [*(base.table(family) for family in base.FAMILIES), *forward.first()]
    return {text: [(one.kind, one.flags, one.contents, one.what) for one in compiler.compiled(text)] for text in texts}
