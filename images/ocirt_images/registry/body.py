"""The bytes of a blob as they come, going on by themselves after a connection broke."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from ocirt_images.errors import Error
from ocirt_images.registry.transport import Failure, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocirt_images.registry.session import Session

_CHUNK = 1 << 20
_PROGRESS = 256 << 10  # bytes after which earlier failures are forgotten


@dataclass(slots=True)
class Opened:
    """A stream that sends the bytes from `start` on to `end`; `host` is who was asked."""

    stream: Stream | None
    start: int
    end: int
    host: str


class Body:
    """Bytes `start` to `stop` of a blob. A context manager; for one thread at a time.

    `start` is what the server really sends from: 0 if it knows no ranges. `host` is who was asked last.
    It checks how many bytes come, not which: whoever keeps them knows the digest.
    """

    def __init__(self, session: Session, subject: str, stop: int, opened: Opened, reopen: Callable[[int], Opened]) -> None:
        self.start = opened.start
        self.stop = stop
        self.host = opened.host
        self._session = session
        self._subject = subject
        self._stream = opened.stream
        self._end = opened.end
        self._reopen = reopen
        self._at = opened.start
        self._failures = 0
        self._failed_at = opened.start
        self._waited, self._came = 0.0, 0

    def __enter__(self) -> Body:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill `buffer` from its beginning with what has come; how many bytes, 0 at the end.

        Raises Error("unavailable", "corrupt", "cancelled", …) when no attempt to go on helps.
        """
        with memoryview(buffer) as whole, whole.cast("B") as view:
            data = self.read(len(view))
            view[: len(data)] = data
            return len(data)

    def read(self, amount: int = _CHUNK) -> bytes:
        """Up to `amount` bytes, as soon as there are some; none at the end. Errors as for `readinto`."""
        while self._at < self.stop and amount:
            try:
                data = self._next(min(amount, self.stop - self._at))
            except Failure as failed:
                self._go_on(failed)
                continue
            self._at += len(data)
            return data
        self._finish()
        return b""

    def close(self) -> None:
        """What has not been read is not wanted."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _next(self, amount: int) -> bytes:
        if self._stream is None:
            raise Failure(Error("cancelled", "read after it was closed"), again=False)
        began = monotonic()
        data = self._stream.read1(amount)
        self._session.check()
        if not data:
            what = f"{self.host} sent {self._at} of {self.stop} bytes and then no more"
            raise Failure(Error("unavailable", what), again=True)
        self._watch(monotonic() - began, len(data))
        return data

    def _watch(self, seconds: float, count: int) -> None:
        """Somebody who sends a byte now and then is not making progress."""
        limits = self._session.limits
        self._waited += seconds
        self._came += count
        if self._waited >= limits.stall:
            if self._came < limits.slowest * limits.stall:
                what = f"{self.host} sent {self._came} bytes in {self._waited:.0f} seconds"
                raise Failure(Error("unavailable", what), again=True)
            self._waited, self._came = 0.0, 0

    def _go_on(self, failed: Failure) -> None:
        """Ask again for what is missing. Raises Error if that is no use, or was tried often enough."""
        self.close()
        self._waited, self._came = 0.0, 0
        self._session.check()
        if self._at - self._failed_at >= _PROGRESS:
            self._failures = 0
        self._failures, self._failed_at = self._failures + 1, self._at
        if not failed.again or self._failures >= self._session.limits.attempts:
            raise _about(failed.error, self._subject)
        self._session.pause(self._failures)
        opened = self._reopen(self._at)
        self._stream, self._end, self.host = opened.stream, opened.end, opened.host
        try:
            self._skip(self._at - opened.start)
        except Failure as again:
            self._go_on(again)

    def _skip(self, amount: int) -> None:
        """Read over what we have, from a server that knows no ranges."""
        while amount:
            amount -= len(self._next(min(amount, _CHUNK)))

    def _finish(self) -> None:
        """All has come: the connection can be used again, if nothing else is on it."""
        stream = self._stream
        if stream is None or self._at < self.stop:
            return
        self._stream = None
        if self._end > self.stop:  # it would go on, being asked for less
            stream.close()
            return
        try:
            surplus = stream.read1(1)
        except Failure:
            surplus = b""
        if surplus:
            stream.close()
            raise Error("corrupt", f"{self.host} sends more than {self.stop} bytes", subject=self._subject)
        stream.release()


def _about(err: Error, subject: str) -> Error:
    return Error(err.code, err.message, subject=err.subject or subject, cause=err.cause, hint=err.hint)
