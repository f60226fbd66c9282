"""The list of referrers that a client keeps where a registry does not: an index under a tag (distribution-spec, "Pushing
Manifests with Subject").
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ocirt_images import manifest as manifests
from ocirt_images import mediatypes
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.fields import parse
from ocirt_images.registry.listing import stand_in

if TYPE_CHECKING:
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.fields import Json
    from ocirt_images.registry.destination import Destination

_ATTEMPTS = 5  # while others change the list at the same time
_CHANGED = 412


def note(destination: Destination, subject: Digest, referrer: Descriptor) -> None:
    """Have `referrer` in the list of what refers to `subject`; what the list has already stays as it is.

    Two that do so at the same time see each other only at registries that know If-Match.
    Raises Error("invalid") if the tag names something else than such a list, and as `Session.request` does.
    """
    tag = stand_in(subject)
    for _ in range(_ATTEMPTS):
        value, match = _read(destination, tag)
        if any(one.get("digest") == referrer.digest for one in value["manifests"]):
            return
        value["manifests"].append(referrer.json())
        reply = destination.ask(
            "PUT",
            destination.host.url(f"manifests/{tag}"),
            expect=(201, _CHANGED),
            headers={"Content-Type": mediatypes.INDEX, **match},
            body=json.dumps(value, separators=(",", ":")).encode(),
            what=f"list of referrers {tag}",
        )
        if reply.status != _CHANGED:
            return
    raise Error("unavailable", f"others change the list of referrers {tag} all the time")


def _read(destination: Destination, tag: str) -> tuple[Json, dict[str, str]]:
    """The list, and the header that has it replaced only if it is still this one."""
    what = f"list of referrers {tag}"
    reply = destination.ask(
        "GET", destination.host.url(f"manifests/{tag}"), expect=(200, 404), headers={"Accept": mediatypes.INDEX}, what=what
    )
    if reply.status != 200:
        return {"schemaVersion": 2, "mediaType": mediatypes.INDEX, "manifests": []}, {}
    subject = f"{destination.host.name}: tag {tag}"
    found = manifests.read(reply.body, reply.headers.get("content-type"), subject)
    if found.media_type != mediatypes.INDEX:
        raise Error("invalid", "it is no list of referrers", subject=subject, hint="the tag is in the way: delete it")
    value = parse(reply.body, subject)
    value["manifests"] = value.get("manifests") or []
    etag = reply.headers.get("etag")
    return value, {"If-Match": etag} if etag else {}
