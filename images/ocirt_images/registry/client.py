"""A registry as those who pull see it (distribution-spec, "Pull"), and the way in for those who push.

Each question is put to the places that `Hosts` names, in order, until one answers; what each of them said is in the error if
none does. Content is checked against its digest here or, for blobs, by who keeps them: a mirror is not trusted.
"""

from __future__ import annotations

import difflib
import time
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ocirt_images import manifest as manifests
from ocirt_images import mediatypes
from ocirt_images.descriptor import Descriptor
from ocirt_images.digest import Digest
from ocirt_images.errors import Error
from ocirt_images.registry import listing
from ocirt_images.registry.auth import scopes
from ocirt_images.registry.body import Body, Opened
from ocirt_images.registry.destination import Destination
from ocirt_images.registry.hosts import PULL, PUSH, RESOLVE
from ocirt_images.registry.messages import content_range, origin, place
from ocirt_images.registry.session import Session, refusal
from ocirt_images.registry.tls import Tls

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from ocirt_images.cancel import Cancel
    from ocirt_images.reference import Reference
    from ocirt_images.registry.credentials import Credentials
    from ocirt_images.registry.hosts import Host, Hosts
    from ocirt_images.registry.limits import Limits
    from ocirt_images.registry.session import Reply

T = TypeVar("T")
_NEAR = 5  # tags that an error names
_ATTEMPTS = 2  # per request, at a host after which others may be asked
_DOWN = 60.0  # seconds for which a mirror that could not be reached is left out


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for: the descriptor of a manifest or index, its bytes, and who gave them."""

    descriptor: Descriptor
    data: bytes
    host: str


class Registry:
    """The registry client. Blocking, thread-safe, a context manager; for one operation, or kept."""

    def __init__(
        self,
        *,
        hosts: Hosts,
        credentials: Credentials,
        limits: Limits | None = None,
        insecure: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """insecure: do not check certificates, and speak plain HTTP with a registry that knows no TLS."""
        self.session = Session(credentials, limits=limits, environ=environ)
        self._hosts = hosts
        self._insecure = insecure
        self._down: dict[str, float] = {}  # until when a host is not asked first

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what waits (in other threads: with Error("cancelled")), close all connections."""
        self.session.close()

    @contextmanager
    def until(self, cancel: Cancel) -> Iterator[Registry]:
        """The same, with the same connections and tokens; what waits in it ends with Error("cancelled") when `cancel` is set."""
        with self.session.until(cancel) as session:
            part = copy(self)
            part.session = session
            yield part

    def others(self, reference: Reference, avoid: Collection[str]) -> bool:
        """Whether a host may be asked for a blob whose name is not in `avoid`."""
        return bool(self._candidates(reference, PULL, avoid))

    def resolve(self, reference: Reference, known: Callable[[Digest], bytes | None] | None = None) -> Resolved:
        """The manifest or index that a tag or digest stands for.

        known: gives the bytes of a manifest that the caller has; then only its digest is asked for. docker.io and others do
        not count that as a pull.
        Raises Error("not-found") with tags that look alike, Error("corrupt") for other content than the digest says,
        Error("unsupported") for docker's schema 1, and what `Session.request` raises.
        """

        def ask(host: Host) -> Resolved:
            if known is not None and (held := self._held(host, reference, known)) is not None:
                return held
            return self._fetch(host, reference)

        return self._each(reference, RESOLVE, ask, str(reference), near=True)

    def manifest(self, reference: Reference, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index that an index names. Raises as `resolve` does."""
        target = reference.with_digest(descriptor.digest)

        def ask(host: Host) -> bytes:
            data = self._fetch(host, target, mediatypes.plain(descriptor.media_type)).data
            if len(data) != descriptor.size:
                raise Error("corrupt", f"{len(data)} bytes, where {descriptor.size} were announced")
            return data

        return self._each(reference, PULL, ask, f"{reference.name}@{descriptor.digest}")

    def blob(
        self,
        reference: Reference,
        descriptor: Descriptor,
        start: int = 0,
        stop: int | None = None,
        *,
        avoid: Collection[str] = (),
    ) -> Body:
        """Bytes `start` to `stop` (None: to the end) of a blob; from 0 if the server knows no ranges: see `Body.start`.

        avoid: names of hosts (`Body.host`) not to ask, as what they sent was wrong
        A layer whose descriptor has `urls` is asked for there if no registry has it, without credentials.
        Raises Error("not-found", "corrupt" for another size, …) as `resolve` does.
        """
        size, subject = descriptor.size, f"{reference.name}@{descriptor.digest}"
        stop = size if stop is None else stop
        if not 0 <= start <= stop <= size:
            raise Error("internal", f"bytes {start} to {stop} of {size}", subject=subject)
        if start == stop:
            nothing = Opened(None, start, stop, "")
            return Body(self.session, subject, stop, nothing, lambda _: nothing)

        def open_at(at: int) -> Opened:
            def ask(host: Host) -> Opened:
                return self._open(host, descriptor, at, stop)

            try:
                return self._each(reference, PULL, ask, subject, avoid=avoid)
            except Error as err:
                if err.code != "not-found" or not descriptor.urls:
                    raise
                return self._foreign(descriptor, at, stop, err)

        return Body(self.session, subject, stop, open_at(start), open_at)

    def tags(self, reference: Reference) -> list[str]:
        """All tags of a repository, in the registry's order."""

        def ask(host: Host) -> list[str]:
            return listing.tags(self.session, host, self.scopes(host))

        return self._each(reference, PULL, ask, reference.name)

    def referrers(self, reference: Reference, digest: Digest, artifact_type: str = "") -> list[Descriptor]:
        """The manifests whose `subject` is `digest`, of one artifact type or of all (distribution-spec, "Listing Referrers")."""

        def ask(host: Host) -> list[Descriptor]:
            return listing.referrers(self.session, host, self.scopes(host), digest, artifact_type)

        return self._each(reference, PULL, ask, f"{reference.name}@{digest}")

    def destination(self, reference: Reference, parting: Session | None = None) -> Destination:
        """Where a push to `reference` goes: the first host for pushes that answers. parting: see `Destination`.

        Raises as `resolve` does.
        """

        def ask(host: Host) -> Destination:
            found = Destination(self.session, host, parting or self.session)
            found.look(reference.tag or reference.target)
            return found

        return self._each(reference, PUSH, ask, str(reference))

    @staticmethod
    def scopes(host: Host, actions: str = "pull") -> tuple[str, ...]:
        """What a token must allow."""
        return scopes(f"repository:{host.repository}:{actions}")

    def _each(
        self,
        reference: Reference,
        capability: str,
        ask: Callable[[Host], T],
        subject: str,
        *,
        avoid: Collection[str] = (),
        near: bool = False,
    ) -> T:
        """The first good answer of the hosts for a reference. Raises the last one's error, with what the others said."""
        said: list[tuple[Host, Error]] = []
        for host in self._candidates(reference, capability, avoid):
            try:
                return ask(host)
            except Error as err:
                if err.code in ("cancelled", "internal"):
                    raise
                if err.code == "unavailable":
                    self._down[host.base] = time.monotonic() + _DOWN
                said.append((host, err))
        if not said:
            raise Error("unavailable", f"no host is left that may be asked to {capability}", subject=subject)
        host, last = said[-1]
        cause = "; before that, ".join(one for one in (last.cause, "; ".join(_said(*one) for one in said[:-1])) if one)
        hint = self._near(reference, host) if near and last.code == "not-found" and not last.hint else ""
        raise Error(last.code, last.message, subject=last.subject or subject, cause=cause, hint=hint or last.hint) from None

    def _candidates(self, reference: Reference, capability: str, avoid: Collection[str]) -> list[Host]:
        """Who is asked. All but the last are given up soon, and not asked for a while if they could not be reached."""
        hosts = self._hosts.lookup(reference, insecure=self._insecure)
        hosts = [one for one in hosts if capability in one.capabilities and one.name not in avoid]
        now = time.monotonic()
        before = [one for one in hosts[:-1] if self._down.get(one.base, 0.0) <= now]
        return [*(replace(one, attempts=_ATTEMPTS) for one in before), *hosts[-1:]]

    def _near(self, reference: Reference, host: Host) -> str:
        """Tags like the one that is not there."""
        if reference.digest is not None:
            return ""
        try:
            found = listing.tags(self.session, host, self.scopes(host), pages=3)
        except Error:
            return ""
        near = difflib.get_close_matches(reference.tag, found, _NEAR, 0.5) or sorted(found)[-_NEAR:]
        return f"there are: {', '.join(near)}" if near else "the repository has no tags"

    def _held(self, host: Host, reference: Reference, known: Callable[[Digest], bytes | None]) -> Resolved | None:
        """The caller's own copy, if the registry says that it is what is wanted."""
        reply = self.session.request(
            host,
            "HEAD",
            host.url(f"manifests/{reference.target}"),
            expect=(200, 404, 405),
            scopes=self.scopes(host),
            headers={"Accept": mediatypes.ACCEPT},
            what=_called(reference),
        )
        if reply.status != 200:
            return None  # GET brings the registry's own words, and there are registries without HEAD
        try:
            digest = reference.digest or Digest(reply.headers.get("docker-content-digest"))
        except Error:
            return None  # it is not bound to say
        data = known(digest)
        if data is None or _of(data, digest) != digest:
            return None
        return _resolved(data, "", digest, host)

    def _fetch(self, host: Host, reference: Reference, media_type: str = "") -> Resolved:
        """A manifest by GET, checked."""
        reply = self.session.request(
            host,
            "GET",
            host.url(f"manifests/{reference.target}"),
            scopes=self.scopes(host),
            headers={"Accept": mediatypes.ACCEPT},
            whole=manifests.LIMIT,
            what=_called(reference),
        )
        encoding = reply.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise Error("invalid", f"{host.name} answers in Content-Encoding {encoding[:40]}, which was not asked for")
        said = mediatypes.plain(reply.headers.get("content-type"))
        found = _of(reply.body, reference.digest)
        if reference.digest is not None and found != reference.digest:
            raise Error("corrupt", f"{host.name} sends content whose digest is {found}")
        return _resolved(reply.body, media_type or said, found, host)

    def _open(self, host: Host, descriptor: Descriptor, start: int, stop: int) -> Opened:
        """A blob, or a part of it, from one host."""
        ranged = start > 0 or stop < descriptor.size
        headers = {"Range": f"bytes={start}-{stop - 1}"} if ranged else {}
        reply = self.session.request(
            host,
            "GET",
            host.url(f"blobs/{descriptor.digest}"),
            expect=(200, 206, 416) if ranged else (200,),
            scopes=scopes(f"repository:{host.repository}:pull"),
            headers=headers,
            what=f"blob {descriptor.digest}",
        )
        if reply.status == 416:
            size = content_range(reply.headers.get("content-range"))[2]
            if size is not None and size != descriptor.size:
                raise Error("corrupt", f"{host.name} has a blob of {size} bytes, where {descriptor.size} were announced")
            return self._open(host, descriptor, 0, descriptor.size)
        return _opened(reply, descriptor, start, host.name)

    def _foreign(self, descriptor: Descriptor, start: int, stop: int, refused: Error) -> Opened:
        """A layer from one of its `urls`."""
        said = [refused.message]
        for url in descriptor.urls:
            try:
                if origin(url)[0] != "https" and not self._insecure:
                    raise Error("unavailable", f"{place(url)} is to be asked in plain HTTP", hint="--insecure allows it")
                ranged = start > 0 or stop < descriptor.size
                reply = self.session.bare(
                    url, Tls(verify=not self._insecure), headers={"Range": f"bytes={start}-{stop - 1}"} if ranged else {}
                )
                if reply.status not in (200, 206):
                    raise refusal(reply.answer, "this layer")
                return _opened(reply, descriptor, start, place(url))
            except Error as err:
                said.append(str(err))
        raise Error("not-found", "the layer is neither in the registry nor at its URLs", cause="; ".join(said))


def _opened(reply: Reply, descriptor: Descriptor, start: int, name: str) -> Opened:
    """What an answer of 200 or 206 sends. Raises Error("corrupt") if its size cannot be right."""
    stream = reply.stream
    assert stream is not None
    size: int | None
    if reply.status == 206:
        first, end, size = content_range(reply.headers.get("content-range"))
        wrong = first != start or end is None or not start < end <= descriptor.size
    else:
        length = reply.headers.get("content-length")
        size, wrong = int(length) if length.isascii() and length.isdigit() else None, False
        start, end = 0, descriptor.size
    if wrong or size not in (None, descriptor.size):
        stream.close()
        encoding = reply.headers.get("content-encoding")
        said = reply.headers.get("content-range") if reply.status == 206 else f"{size} bytes"
        what = f"{name} sends {said[:80]}, where {descriptor.size} bytes were announced"
        raise Error("corrupt", what, cause=f"it is sent in Content-Encoding {encoding[:40]}" if encoding else "")
    return Opened(stream, start, end or descriptor.size, name)


def _said(host: Host, err: Error) -> str:
    """What a host's failure was, in a list of several."""
    text = err.message if host.name in err.message else f"{host.name}: {err.message}"
    return f"{text}: {err.cause}" if err.cause else text


def _of(data: bytes, wanted: Digest | None) -> Digest:
    """The digest of data, by the algorithm that is wanted."""
    return Digest.of(data, wanted.algorithm if wanted is not None else "sha256")


def _resolved(data: bytes, media_type: str, digest: Digest, host: Host) -> Resolved:
    found = manifests.read(data, media_type, str(digest))
    return Resolved(Descriptor(media_type=found.media_type, digest=digest, size=len(data)), data, host.name)


def _called(reference: Reference) -> str:
    return f"manifest {reference.digest}" if reference.digest is not None else f"tag {reference.tag}"
