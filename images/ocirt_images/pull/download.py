"""A blob's bytes into an ingest: by several connections, each for a range, where it is large enough for that."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ocirt_images.cancel import Cancel
    from ocirt_images.descriptor import Descriptor
    from ocirt_images.reference import Reference
    from ocirt_images.registry.body import Body
    from ocirt_images.registry.client import Registry
    from ocirt_images.store import Ingest

T = TypeVar("T")
RANGE = 16 << 20  # bytes asked for at once; a blob that misses less than two of these comes in one piece
_CHUNK = 1 << 20


class Downloads:
    """The connections of one pull, shared by its blobs: who asks first is served first. A context manager."""

    def __init__(self, registry: Registry, reference: Reference, connections: int, cancel: Cancel) -> None:
        """registry: one that ends with `cancel`."""
        self.registry = registry
        self.reference = reference
        self.cancel = cancel
        self.pool = ThreadPoolExecutor(connections, "download")

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def bring(self, blob: Descriptor, ingest: Ingest, moved: Callable[[], None], avoid: Collection[str] = ()) -> None:
        """Fetch what `ingest` is missing, and commit it.

        moved: called by any thread when more has come; avoid: names of hosts not to ask.
        Raises HostsFailedError, what the registry client raises, and what `Ingest` raises.
        """
        arriving = _Blob(self, blob, ingest, moved, avoid)
        arriving.fill()
        try:
            ingest.commit()
        except Error as err:
            if err.code != "corrupt":
                raise
            raise HostsFailedError(err, arriving.hosts, resumed=ingest.resumed > 0) from None

    def persist(self, attempt: Callable[[Collection[str]], T], retrying: Callable[[Error], None] = lambda _: None) -> T:
        """What `attempt` returns, which is called anew without the host that failed, as long as there are others.

        It is given the names of the hosts not to ask. retrying: is told why it is called once more. Raises what `attempt` raises.
        """
        avoid: dict[str, None] = {}
        while True:
            try:
                return attempt(avoid)
            except HostsFailedError as failed:
                if not failed.resumed:
                    # One at a time: of several that sent parts, only one need have been wrong.
                    blamed = next((one for one in failed.hosts if one not in avoid), None)
                    if blamed is None or not self.registry.others(self.reference, {*avoid, blamed}):
                        raise failed.error from None
                    avoid[blamed] = None
                self.cancel.check()
                retrying(failed.error)


class HostsFailedError(Exception):
    """What hosts sent is of no use, or they stopped sending it. error: to be raised if nobody else can be asked."""

    def __init__(self, error: Error, hosts: Iterable[str], *, resumed: bool = False) -> None:
        """resumed: it may not be theirs: an earlier attempt left a part of it, which is gone now."""
        super().__init__(str(error))
        self.hosts = list(hosts)
        self.resumed = resumed
        cause = error.cause or f"sent by {', '.join(self.hosts)}" if self.hosts and error.code == "corrupt" else error.cause
        self.error = Error(error.code, error.message, subject=error.subject, cause=cause, hint=error.hint)


class _NoRangesError(Exception):
    """The server sends from the beginning, whatever it is asked for."""


class _Blob:
    """One blob on its way. hosts: the names of those that sent something of it, in order."""

    def __init__(
        self, downloads: Downloads, blob: Descriptor, ingest: Ingest, moved: Callable[[], None], avoid: Collection[str]
    ) -> None:
        self.downloads = downloads
        self.blob = blob
        self.ingest = ingest
        self.moved = moved
        self.avoid = avoid
        self.hosts: dict[str, None] = {}

    def fill(self) -> None:
        gaps = self.ingest.missing
        if sum(stop - start for start, stop in gaps) > 2 * RANGE:
            gaps = [(at, min(at + RANGE, stop)) for start, stop in gaps for at in range(start, stop, RANGE)]
        try:
            self._all(gaps)
        except _NoRangesError:
            self._all([(0, self.blob.size)])

    def _all(self, gaps: list[tuple[int, int]]) -> None:
        """Fetch all parts. A failure of one ends the others at once, whatever they wait for; so does an interrupt."""
        with self.downloads.cancel.within() as ends, self.downloads.registry.until(ends) as registry:
            failures: list[BaseException] = []
            parts = [self.downloads.pool.submit(self._part, registry, ends, failures, *gap) for gap in gaps]
            try:
                wait(parts, return_when=FIRST_EXCEPTION)
                for failure in failures:
                    raise failure  # the first one: the others ended because of it
                for part in parts:
                    part.result()
            except BaseException:
                ends.set()
                for part in parts:
                    part.cancel()
                wait(parts)
                self.downloads.cancel.check()  # who gave up hears of that, and not of the connections that this closed
                raise

    def _part(self, registry: Registry, ends: Cancel, failures: list[BaseException], start: int, stop: int) -> None:
        """The same as `_range`; a failure ends the others before this thread turns to one of them."""
        try:
            ends.check()
            self._range(registry, ends, start, stop)
        except BaseException as err:
            failures.append(err)
            ends.set()
            raise

    def _range(self, registry: Registry, ends: Cancel, start: int, stop: int) -> None:
        """Write bytes `start` to `stop` as they come; those that are there stay."""
        with registry.blob(self.downloads.reference, self.blob, start, stop, avoid=self.avoid) as body:
            if body.start != start:
                raise _NoRangesError
            at = start
            while data := _read(body):
                ends.check()
                self.hosts.setdefault(body.host)
                self.ingest.write_at(at, data)
                self.moved()
                at += len(data)


def _read(body: Body) -> bytes:
    """The next bytes. Raises HostsFailedError for a failure of the host that was sending, which only another host can mend."""
    try:
        return body.read(_CHUNK)
    except Error as err:
        if err.code in ("unavailable", "corrupt"):
            raise HostsFailedError(err, [body.host]) from None
        raise
