"""The CRI's log format, without I/O: `TIME STREAM TAG TEXT`, where TAG is F at a line's end and P where it goes on.

(kubernetes/design-proposals, "CRI: dockershim log format"; facts of the running kubelet: TIME is RFC 3339 with nanoseconds.)
"""

from __future__ import annotations

from time import gmtime, strftime

LIMIT = 16384
_SECOND = 1_000_000_000


class Clock:
    """Times as the log has them. The text of a second is made once."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def stamp(self, now: int) -> bytes:
        """Nanoseconds since the epoch, as `2026-11-29T10:00:00.000000001Z`."""
        second, rest = divmod(now, _SECOND)
        if second != self._second:
            self._second = second
            self._text = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        return f"{self._text}.{rest:09d}Z".encode()


class Lines:
    """One stream. What comes in goes out as lines of the log; the part of a line that may still grow is kept, up to `limit`."""

    __slots__ = ("_limit", "_rest", "_stream")

    def __init__(self, stream: str, limit: int = LIMIT) -> None:
        self._stream = stream.encode()
        self._limit = limit
        self._rest = b""

    def feed(self, data: bytes, stamp: bytes) -> bytes:
        """What is to be written for `data`, which came at the time `stamp`."""
        if self._rest:
            data = self._rest + data
        at = data.rfind(b"\n")
        if at < 0:
            self._rest = data
            return self._cut(stamp) if len(data) > self._limit else b""
        self._rest = data[at + 1 :]
        lines = data[:at].split(b"\n")
        head = stamp + b" " + self._stream
        whole = head + b" F "
        limit = self._limit
        if at <= limit or max(map(len, lines)) <= limit:
            out = whole + (b"\n" + whole).join(lines) + b"\n"
        else:
            part = head + b" P "
            out = b"".join(
                [
                    b"".join([part + line[start : start + limit] + b"\n" for start in range(0, last, limit)])
                    + whole
                    + line[last:]
                    + b"\n"
                    for line in lines
                    for last in (max(0, len(line) - 1) // limit * limit,)
                ]
            )
        return out + self._cut(stamp) if len(self._rest) > limit else out

    def _cut(self, stamp: bytes) -> bytes:
        """The parts of the unfinished line that are as long as one may be."""
        limit, rest = self._limit, self._rest
        last = (len(rest) - 1) // limit * limit
        head = stamp + b" " + self._stream + b" P "
        self._rest = rest[last:]
        return b"".join([head + rest[start : start + limit] + b"\n" for start in range(0, last, limit)])

    def end(self, stamp: bytes) -> bytes:
        """What is left at the stream's end: a line without an end."""
        rest, self._rest = self._rest, b""
        return stamp + b" " + self._stream + b" P " + rest + b"\n" if rest else b""
