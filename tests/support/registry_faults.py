"""What can go wrong with a registry's answer: faults to plant in a `LocalRegistry`."""

from __future__ import annotations

import threading

from tests.support.registry_http import Fault, Reply, Seen, error


def cut(at: int, *, reset: bool = False) -> Fault:
    """The connection ends after `at` bytes of the body; with RST, if asked for."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.cut, reply.reset = at, reset

    return fault


def hang_up(*, reset: bool = False) -> Fault:
    """The connection ends instead of an answer."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.silent, reply.reset = True, reset

    return fault


def cut_head(at: int) -> Fault:
    """The connection ends after `at` bytes of status and headers."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.head_cut = at

    return fault


def status(code: int, name: str = "UNKNOWN", message: str = "", **headers: str) -> Fault:
    """Another answer. Underscores in the names of headers stand for dashes."""

    def fault(reply: Reply, _: Seen) -> None:
        found = error(code, name, message)
        reply.status, reply.body, reply.span = found.status, found.body, None
        reply.headers = found.headers | {key.replace("_", "-"): value for key, value in headers.items()}

    return fault


def redirect(location: str, code: int = 307) -> Fault:
    """Sent on. `{digest}` in the location stands for the last part of the path."""

    def fault(reply: Reply, seen: Seen) -> None:
        target = location.replace("{digest}", seen.path.rpartition("/")[2])
        reply.status, reply.headers, reply.body, reply.span = code, {"Location": target}, b"", None

    return fault


def too_many(wait: str = "", code: int = 429) -> Fault:
    """Asked too often, with this Retry-After."""
    return status(code, "TOOMANYREQUESTS", "slow down", **({"Retry_After": wait} if wait else {}))


def wrong_bytes(reply: Reply, _: Seen) -> None:
    """One bit of the content is another one."""
    data = bytearray(reply.data)
    data[len(data) // 2] ^= 1
    reply.body, reply.span = bytes(data), None


def wrong_size(by: int) -> Fault:
    """So many bytes more, or less, than there are; the Content-Length agrees."""

    def fault(reply: Reply, _: Seen) -> None:
        data = reply.data
        reply.body, reply.span = (data + b"\0" * by if by > 0 else data[:by]), None

    return fault


def wrong_length(by: int) -> Fault:
    """A Content-Length that is off by so many bytes."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.length = len(reply.data) + by

    return fault


def slow(step: int, pause: float) -> Fault:
    """A slow loris: `step` bytes, a pause of so many seconds, and so on."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.step, reply.pause = step, pause

    return fault


def slow_head(pause: float) -> Fault:
    """The same with status and headers, a byte at a time."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.head_pause = pause

    return fault


def held(until: threading.Event) -> Fault:
    """The body waits for an event."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.hold = until

    return fault


def unanswered(until: threading.Event) -> Fault:
    """Nothing at all until an event."""

    def fault(_reply: Reply, _: Seen) -> None:
        until.wait(60)

    return fault


def stuck(at: int, until: threading.Event) -> Fault:
    """`at` bytes, then nothing until an event; then the connection ends."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.stuck = (at, until)

    return fault


def ignored_range(reply: Reply, seen: Seen) -> None:
    """The whole, though a part was asked for."""
    if reply.status == 206:
        reply.status, reply.span = 200, None
        del reply.headers["Content-Range"]


def refused_range(size: int | None = None) -> Fault:
    """416, with the size if given."""

    def fault(reply: Reply, seen: Seen) -> None:
        if seen.range:
            status(416, "RANGE_INVALID", **({"Content_Range": f"bytes */{size}"} if size is not None else {}))(reply, seen)

    return fault


def shifted_range(by: int) -> Fault:
    """206, but from another byte than was asked for."""

    def fault(reply: Reply, _: Seen) -> None:
        if reply.span is not None:
            start, stop = reply.span[0] + by, reply.span[1]
            reply.span = (start, stop)
            reply.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{reply.whole}"

    return fault


def short_range(count: int) -> Fault:
    """206 with fewer bytes than were asked for, and it says so."""

    def fault(reply: Reply, _: Seen) -> None:
        if reply.span is not None:
            start = reply.span[0]
            reply.span = (start, start + count)
            reply.headers["Content-Range"] = f"bytes {start}-{start + count - 1}/{reply.whole}"

    return fault


def content(body: bytes, kind: str = "application/json", status: int = 200) -> Fault:
    """Another body, of another type."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.status, reply.body, reply.span = status, body, None
        reply.headers["Content-Type"] = kind

    return fault


def header(name: str, value: str | None) -> Fault:
    """Another value for a header, or (None) no such header."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.headers = {key: one for key, one in reply.headers.items() if key.lower() != name.lower()}
        if value is not None:
            reply.headers[name] = value

    return fault


def chunked(step: int = 1000) -> Fault:
    """Transfer-Encoding: chunked, and so without a size."""

    def fault(reply: Reply, _: Seen) -> None:
        reply.chunked, reply.step = True, step

    return fault
