"""Lists that come in pages: tags and referrers (distribution-spec, "Content Discovery")."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin

from ocirt_images import manifest as manifests
from ocirt_images import mediatypes
from ocirt_images.descriptor import Descriptor
from ocirt_images.errors import Error
from ocirt_images.fields import parse, texts
from ocirt_images.registry.messages import next_link, origin, place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ocirt_images.digest import Digest
    from ocirt_images.registry.hosts import Host
    from ocirt_images.registry.session import Reply, Session

PAGE = 1000  # entries that are asked for at once
_PAGES = 1000  # that are read at most: a list that never ends is a fault


def tags(session: Session, host: Host, scopes: tuple[str, ...], *, pages: int = _PAGES) -> list[str]:
    """The tags of a host's repository; of its first `pages` pages. Raises what `Session.request` does."""
    found: list[str] = []
    url = host.url("tags/list", [("n", str(PAGE))])
    for reply in _pages(session, host, url, scopes, pages, "list of tags", (200,)):
        found += texts(parse(reply.body, f"{host.name}: tags"), "tags", f"{host.name}: tags")
    return list(dict.fromkeys(found))


def referrers(session: Session, host: Host, scopes: tuple[str, ...], digest: Digest, artifact_type: str) -> list[Descriptor]:
    """What refers to a digest: by the API, or by the tag that stands in for it at registries without one."""
    found: list[Descriptor] = []
    query = [("artifactType", artifact_type)] if artifact_type else []
    for reply in _pages(session, host, host.url(f"referrers/{digest}", query), scopes, _PAGES, "list of referrers", (200, 404)):
        # Some registries answer 200 with a page for people where they know no such path.
        kind = mediatypes.plain(reply.headers.get("content-type"))
        known = reply.status == 200 and kind == mediatypes.INDEX
        found += _descriptors(reply if known else _fallback(session, host, scopes, digest), host)
    # A registry need not know the filter.
    one_each = {one.digest: one for one in found}
    return [one for one in one_each.values() if not artifact_type or one.artifact_type == artifact_type]


def _pages(
    session: Session, host: Host, url: str, scopes: tuple[str, ...], pages: int, what: str, expect: tuple[int, ...]
) -> Iterator[Reply]:
    """The pages of a list, the next one by its Link header. Raises Error("invalid") for a list without end."""
    seen = {url}
    for _ in range(pages):
        reply = session.request(host, "GET", url, expect=expect, scopes=scopes, whole=manifests.LIMIT, what=what)
        yield reply
        link = next_link(reply.headers.all("link"))
        if not link or reply.status != 200:
            return
        before, url = url, urljoin(url, link)
        if origin(url) != origin(before):
            raise Error("invalid", f"{host.name} continues its {what} elsewhere, at {place(url)}")
        if url in seen:
            raise Error("invalid", f"the {what} of {host.name} goes in circles")
        seen.add(url)
    if pages == _PAGES:
        raise Error("invalid", f"the {what} of {host.name} does not end after {pages} pages")


def stand_in(digest: Digest) -> str:
    """The tag under which an index lists what refers to a digest (distribution-spec, "Referrers Tag Schema")."""
    return f"{digest.algorithm[:32]}-{digest.encoded[:64]}"


def _fallback(session: Session, host: Host, scopes: tuple[str, ...], digest: Digest) -> Reply | None:
    """The index under the tag that stands in for the API; None if there is none."""
    tag = stand_in(digest)
    headers = {"Accept": mediatypes.INDEX}
    url = host.url(f"manifests/{tag}")
    what = f"tag {tag}"
    reply = session.request(host, "GET", url, expect=(200, 404), scopes=scopes, headers=headers, whole=manifests.LIMIT, what=what)
    return reply if reply.status == 200 else None


def _descriptors(reply: Reply | None, host: Host) -> list[Descriptor]:
    if reply is None:
        return []
    subject = f"{host.name}: referrers"
    found = manifests.read(reply.body, mediatypes.INDEX, subject)
    if not isinstance(found, manifests.Index):
        raise Error("invalid", "not an index", subject=subject)
    return list(found.manifests)
