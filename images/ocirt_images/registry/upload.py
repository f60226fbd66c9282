"""One blob to a registry (distribution-spec, "Pushing blobs").

It is asked for first, then mounted from another repository if one may have it, else sent: in one piece. What breaks off goes on
where the registry has got to, in chunks from then on, so that less is lost the next time; an upload that the registry has
forgotten begins anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, cast

from ocirt_images.errors import Error
from ocirt_images.events import Retrying
from ocirt_images.registry.destination import answered, with_query
from ocirt_images.registry.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ocirt_images.descriptor import Descriptor
    from ocirt_images.events import OnEvent
    from ocirt_images.registry.destination import Destination
    from ocirt_images.registry.session import Reply

SMALL = 64 << 10  # bytes of a blob that goes along with the first request
CHUNK = 16 << 20  # bytes of a chunk, if the registry does not want more
_LEAST = 256 << 10  # bytes of a chunk below which it is of no use to try smaller ones
_PROGRESS = 256 << 10  # bytes after which earlier failures are forgotten
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)", re.ASCII)
_OCTETS = {"Content-Type": "application/octet-stream"}
_GONE = 404


class Upload:
    """The way of one blob. For one thread.

    descriptor: where its bytes are read from; it stays the caller's
    """

    def __init__(self, destination: Destination, blob: Descriptor, descriptor: int, moved: Callable[[int], None]) -> None:
        """moved: called with the position of what is being sent; it may raise, to give up."""
        self._to = destination
        self._blob = blob
        self._descriptor = descriptor
        self._moved = moved
        self._what = f"the upload of blob {blob.digest}"
        self._location = ""  # of the upload that is under way
        self._offset = 0
        self._refused = -1  # the offset from which on nothing was taken
        self._chunk = CHUNK
        self._least = 0  # OCI-Chunk-Min-Length
        self._in_chunks = False

    def run(self, sources: Sequence[str] = (), on_event: OnEvent | None = None) -> str:
        """Have the blob at the destination: "" if it was sent, `exists` if it was there, `mounted`.

        sources: repositories of the same registry that may have it. What is under way when this fails is given up there.
        Raises Error: what `Session.request` does, "corrupt" if the registry has other bytes than were sent.
        """
        if self._to.has(self._blob):
            return "exists"
        try:
            if self._mounted(sources):
                return "mounted"
            self._send(on_event)
        except BaseException:
            self._give_up()
            raise
        return ""

    # Beginning

    def _mounted(self, sources: Sequence[str]) -> bool:
        """Whether one of the repositories had it. If not, what the last answer began is used for the upload."""
        for source in [one for one in sources if one not in self._to.unreadable]:
            query = [("mount", str(self._blob.digest)), ("from", source)]
            url = self._to.host.url("blobs/uploads/", query)
            try:
                reply = self._to.ask("POST", url, expect=(201, 202), what=self._what, source=source)
            except Error as err:
                # A token server may know nothing of that repository, or not let us read it.
                if err.code not in ("unauthorized", "not-found", "invalid"):
                    raise
                if err.code == "unauthorized":
                    self._to.unreadable.add(source)
                continue
            self._give_up()
            if reply.status == 201:
                self._check(reply)
                return True
            self._begun(reply)
        return False

    def _begin(self) -> bool:
        """Begin an upload; a small blob goes along. Whether that was all."""
        algorithm = self._blob.digest.algorithm
        query = [] if algorithm == "sha256" else [("digest-algorithm", algorithm)]
        if self._blob.size <= SMALL and not self._in_chunks:
            data = self._part(0, self._blob.size).read()
            url = self._to.host.url("blobs/uploads/", [*query, ("digest", str(self._blob.digest))])
            reply = self._to.ask("POST", url, expect=(201, 202, 400, 404, 405), what=self._what, headers=_OCTETS, body=data)
            if reply.status == 201:
                self._check(reply)
                return True
            if reply.status == 202:
                self._begun(reply)
                return False
        reply = self._to.ask("POST", self._to.host.url("blobs/uploads/", query), expect=(202,), what=self._what)
        self._begun(reply)
        return False

    def _begun(self, reply: Reply) -> None:
        self._location, self._offset, self._refused = self._to.location(reply), 0, -1
        self._note_least(reply)

    # Sending

    def _send(self, on_event: OnEvent | None) -> None:
        """Send it, as often as it takes. Raises the last error if there is no progress between several of them."""
        failures, before = 0, 0
        while True:
            try:
                if (not self._location and self._begin()) or self._attempt():
                    return
            except _Again as again:
                failures = 1 if self._offset >= before + _PROGRESS else failures + again.counts
                before = self._offset
                if failures >= self._to.session.limits.attempts:
                    raise again.error from None
                if on_event is not None:
                    on_event(Retrying(self._blob.digest, str(again.error), 0))
            if failures:
                self._to.session.pause(failures)
            if self._look():
                return

    def _attempt(self) -> bool:
        """Send what is missing. Whether it is all there: if not, what was sent has to be looked at. Raises _Again, Error."""
        size = self._blob.size
        while self._in_chunks and self._offset < size:
            stop = min(size, self._offset + max(self._chunk, self._least))
            headers = {"Content-Range": f"{self._offset}-{stop - 1}"}
            reply = self._transfer("PATCH", self._location, self._offset, stop, headers, 202)
            self._moved_on(reply)
            # It may have taken less. One that does not say so in a way that can be is taken at its word, and says 416 next.
            end = _end(reply)
            self._offset = end if end is not None and self._offset < end <= stop else stop
        url = with_query(self._location, "digest", str(self._blob.digest))
        self._check(self._transfer("PUT", url, self._offset, size, {}, 201))
        self._location = ""
        return True

    def _transfer(self, method: str, url: str, start: int, stop: int, headers: dict[str, str], good: int) -> Reply:
        """Send bytes `start` to `stop`, once. Raises _Again where another try may come further, Error where not."""

        def body() -> BinaryIO:
            return cast("BinaryIO", self._part(start, stop))

        expect = (good, 204, _GONE, 413, 416) if method == "PUT" else (good, _GONE, 413, 416)
        try:
            reply = self._to.ask(
                method,
                url,
                expect=expect,
                what=self._what,
                headers=_OCTETS | headers,
                body=body if stop > start else b"",
                size=stop - start,
                attempts=1,
            )
        except Error as err:
            if err.code != "unavailable":
                raise
            self._in_chunks = True
            raise _Again(err) from None
        host = self._to.host.name
        if reply.status == 413:
            self._smaller(stop - start)
        elif reply.status == 416:
            self._in_chunks, self._refused = True, start
            raise _Again(Error("invalid", f"{host} does not take the bytes from {start} on (HTTP 416) of {self._what}"))
        elif reply.status == _GONE:
            raise _Again(Error("not-found", f"{host} does not know {self._what} any more (HTTP 404)"))
        else:
            return reply
        raise _Again(Error("invalid", f"{host} refuses {stop - start} bytes at once (HTTP 413)"), counts=False)

    def _smaller(self, refused: int) -> None:
        """Less at once from now on. Raises Error("invalid") if that is no use."""
        least = max(self._least, _LEAST)
        if refused <= least:
            what = f"{self._to.host.name} refuses {refused} bytes at once (HTTP 413)"
            raise Error("invalid", what, hint="the registry, or a proxy before it, has a limit for bodies of requests")
        self._in_chunks = True
        self._chunk = max(least, min(self._chunk, refused // 4))

    # Looking what came of it

    def _look(self) -> bool:
        """See where the registry has got to, or that it has forgotten. Whether the blob is there in spite of the failure."""
        reply = self._to.ask("GET", self._location, expect=(200, 204, 400, _GONE, 410, 416), what=self._what)
        end = _end(reply) if reply.status in (200, 204) else None
        if end is not None and end <= self._blob.size and end != self._refused:
            self._offset, self._in_chunks = end, self._in_chunks or end > 0
            self._moved_on(reply)
            return False
        if reply.status == _GONE:
            self._location = ""
        self._give_up()
        return self._to.has(self._blob)

    def _moved_on(self, reply: Reply) -> None:
        """Where the next request goes."""
        if reply.headers.get("location"):
            self._location = self._to.location(reply)
        self._note_least(reply)

    def _note_least(self, reply: Reply) -> None:
        said = reply.headers.get("oci-chunk-min-length")
        if said.isascii() and said.isdigit():
            self._least = min(int(said), self._blob.size)

    def _check(self, reply: Reply) -> None:
        """Raises Error("corrupt") if the registry has another blob than was sent."""
        said = answered(reply.headers)
        digest = self._blob.digest
        if said is not None and said.algorithm == digest.algorithm and said != digest:
            raise Error("corrupt", f"{self._to.host.name} took the blob for another one, {said}", subject=str(digest))

    def _give_up(self) -> None:
        """End what is under way."""
        location, self._location = self._location, ""
        if location:
            self._to.abandon(location)

    def _part(self, start: int, stop: int) -> Part:
        return Part(self._descriptor, start, stop, self._moved, str(self._blob.digest))


class _Again(Exception):
    """An attempt that came to nothing, and may not the next time. counts: it is one of the few that there are."""

    def __init__(self, error: Error, *, counts: bool = True) -> None:
        super().__init__(str(error))
        self.error = error
        self.counts = counts


def _end(reply: Reply) -> int | None:
    """How many bytes of an upload a registry has; None if it does not say. One byte and none look the same: none is meant."""
    match = _RANGE.fullmatch(reply.headers.get("range").strip())
    if not match:
        return None
    return int(match[1]) + 1 if int(match[1]) else 0
