"""A repository at the one host that a push goes to (distribution-spec, "Push").

What is asked here is asked with the right to push, so that a push needs one token.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from ocirt_images import manifest as manifests
from ocirt_images import mediatypes
from ocirt_images.cancel import Cancel
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.registry.auth import scopes
from ocirt_images.registry.messages import Headers, origin, place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.registry.hosts import Host
    from ocirt_images.registry.session import Reply, Session

_PARTING = 5.0  # seconds that the end of an upload may take which nobody wants any more
_THERE, _NOT_THERE = 200, (404, 405)  # there are registries without HEAD


class Destination:
    """Where a push goes. Thread-safe.

    parting: the session by which uploads are given up, when `session` has ended
    before: the digest of what the tag (or digest) to push to has stood for until now, if the registry says so
    unreadable: repositories from which we may not mount, as was found out
    """

    def __init__(self, session: Session, host: Host, parting: Session) -> None:
        self.session = session
        self.host = replace(host, attempts=None)  # it is not one of several any more
        self._parting = parting
        self.before: Digest | None = None
        self.unreadable: set[str] = set()
        self._scope = f"repository:{host.repository}:pull,push"

    def ask(
        self,
        method: str,
        url: str,
        *,
        expect: tuple[int, ...],
        what: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], BinaryIO] | None = None,
        size: int | None = None,
        source: str = "",
        attempts: int | None = None,
    ) -> Reply:
        """Send a request, and read the answer. source: another repository that has to be read. Raises as `Session.request`."""
        return self.session.request(
            self.host,
            method,
            url,
            expect=expect,
            scopes=scopes(self._scope, f"repository:{source}:pull") if source else scopes(self._scope),
            headers=headers,
            body=body,
            size=size,
            whole=manifests.LIMIT,
            attempts=attempts,
            what=what,
        )

    # Blobs

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there. Raises Error("corrupt") if it is with another size."""
        reply = self.ask("HEAD", self.host.url(f"blobs/{blob.digest}"), expect=(_THERE, *_NOT_THERE), what=f"blob {blob.digest}")
        if reply.status != _THERE:
            return False
        length = reply.headers.get("content-length")
        if length.isascii() and length.isdigit() and int(length) not in (0, blob.size):
            what = f"{self.host.name} has a blob of {length} bytes by this digest, and {blob.size} are to be sent"
            raise Error("corrupt", what, subject=str(blob.digest))
        return True

    def location(self, reply: Reply) -> str:
        """Where an upload goes on. It is to be used as it stands, whatever is in its query.

        Raises Error("invalid") for none, Error("unavailable") for one that would go on without TLS.
        """
        said = reply.headers.get("location").strip()
        if not said:
            raise Error("invalid", f"{self.host.name} begins an upload and does not say where (no Location)")
        try:
            found = urljoin(reply.url, said).partition("#")[0]
        except ValueError as err:
            raise Error("invalid", f"{self.host.name} names a place for an upload that is no URL", cause=str(err)) from None
        before, after = origin(reply.url), origin(found)
        if before[0] == "https" and after[0] == "http":
            # Behind a proxy that ends TLS, registries do not know how they are called.
            if urlsplit(found).netloc != urlsplit(reply.url).netloc:
                raise Error("unavailable", f"{self.host.name} wants the upload in plain HTTP, at {place(found)}")
            found = f"https{found.removeprefix('http')}"
        return found

    def abandon(self, location: str) -> None:
        """End an upload that will not be finished. That it fails does not matter: registries forget them some day."""
        enough = Cancel()
        timer = threading.Timer(_PARTING, enough.set)
        timer.daemon = True
        timer.start()
        try:
            with self._parting.until(enough) as session:
                session.request(
                    self.host,
                    "DELETE",
                    location,
                    expect=(202, 204),
                    scopes=scopes(self._scope),
                    whole=manifests.LIMIT,
                    attempts=1,
                )
        except Error:
            pass
        finally:
            timer.cancel()

    # Manifests

    def look(self, target: str) -> None:
        """See whether the host answers at all, and what a tag or digest stands for there. Raises as `ask` does."""
        self.before = self.digest_of(target)

    def digest_of(self, target: str) -> Digest | None:
        """The digest of the manifest with this tag or digest. None: there is none, or the registry does not say."""
        reply = self.ask(
            "HEAD",
            self.host.url(f"manifests/{target}"),
            expect=(_THERE, *_NOT_THERE),
            headers={"Accept": mediatypes.ACCEPT},
            what=f"manifest {target}",
        )
        if reply.status != _THERE:
            return None
        return Digest(target) if ":" in target else answered(reply.headers)

    def put_manifest(self, data: bytes, media_type: str, digest: Digest, tag: str = "") -> bool:
        """Have a manifest kept by its digest, and with a tag, if one is given. Whether the registry took note of its `subject`.

        Raises Error("corrupt") if the registry says that it has another digest, and as `Session.request` does.
        """
        if not tag or digest.algorithm == "sha256":
            return self._put(data, media_type, digest, tag or digest)[0]
        # By a tag alone it would become a sha256.
        noted, tags = self._put(data, media_type, digest, digest, [("tag", tag)])
        return noted if tag in tags else self._put(data, media_type, digest, tag)[0]

    def _put(
        self, data: bytes, media_type: str, digest: Digest, target: str, query: list[tuple[str, str]] | None = None
    ) -> tuple[bool, list[str]]:
        """One request; whether the subject was noted, and which tags were given."""
        reply = self.ask(
            "PUT",
            self.host.url(f"manifests/{target}", query),
            expect=(201,),
            headers={"Content-Type": media_type},
            body=data,
            what=f"manifest {target}",
        )
        said = answered(reply.headers)
        if said is not None and said != Digest.of(data, said.algorithm):
            raise Error("corrupt", f"{self.host.name} took the manifest for another one, {said}", subject=str(digest))
        tags = [tag.strip() for value in reply.headers.all("oci-tag") for tag in value.split(",")]
        return bool(reply.headers.all("oci-subject")), tags


def answered(headers: Headers) -> Digest | None:
    """The digest that an answer names (Docker-Content-Digest), if it is one that can be compared."""
    try:
        return Digest(headers.get("docker-content-digest"))
    except Error:
        return None


def with_query(url: str, name: str, value: str) -> str:
    """A URL with one parameter more; what it has already stays byte for byte."""
    separator = "&" if urlsplit(url).query else "" if url.endswith("?") else "?"
    return f"{url}{separator}{urlencode({name: value})}"
