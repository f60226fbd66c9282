"""HTTP as far as registries need it, without I/O: requests, answers and the headers that say more than a word."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin, urlsplit

from ocirt_images.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

REDIRECTS = frozenset((301, 302, 303, 307, 308))
# What a request may carry to a host that it was only sent on to. All else is between us and the host that was asked first.
_HARMLESS = frozenset(("accept", "accept-encoding", "range", "user-agent"))
_PORTS = {"http": 80, "https": 443}
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", re.ASCII)
_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:"(?:[^"\\]|\\.)*"|[^\s";,]*))?)*)')
_PARAMETER = re.compile(r';\s*([^\s=;,]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";,]*)))?')
_SHOWN = 300  # characters of a registry's own words


class Headers:
    """Header fields in their order; names without regard to case."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = tuple((name.lower(), value) for name, value in pairs)

    def all(self, name: str) -> list[str]:
        """The value of each field of that name."""
        name = name.lower()
        return [value for found, value in self._pairs if found == name]

    def get(self, name: str, default: str = "") -> str:
        """The first field's value."""
        return next(iter(self.all(name)), default)

    def __repr__(self) -> str:
        return f"Headers({list(self._pairs)!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent.

    body: bytes, or what opens it anew for each attempt (with its `size` in bytes)
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], BinaryIO] | None = field(default=None, repr=False)
    size: int | None = None

    def having(self, name: str, value: str) -> Request:
        """The same with one more header."""
        return replace(self, headers={**self.headers, name: value})


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came back. `url` is the one that answered, after redirects; `body` is empty for a body that is still to be read."""

    status: int
    url: str
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what may see each other's credentials. Raises Error("invalid")."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as err:
        raise Error("invalid", "not a URL", subject=url[:200], cause=str(err)) from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise Error("invalid", "not an http or https URL", subject=url[:200])
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def place(url: str) -> str:
    """The host of a URL, and its port if it has one, for a person."""
    return urlsplit(url).netloc.rpartition("@")[2]


def redirected(request: Request, location: str) -> Request:
    """The request that follows a redirect.

    Another host (or port, or scheme) gets none of our credentials, nor any header that is meant for the first one.
    Raises Error("unavailable") for a redirect from https to http, Error("invalid") for one that leads nowhere.
    """
    try:
        target = urljoin(request.url, location.strip()).partition("#")[0]
    except ValueError as err:
        raise Error("invalid", f"{place(request.url)} sends us on to what is no URL", cause=str(err)) from None
    before, after = origin(request.url), origin(target)
    if before[0] == "https" and after[0] == "http":
        hint = "only the registry's operator can mend that"
        raise Error("unavailable", f"{place(request.url)} sends us on to plain HTTP, at {place(target)}", hint=hint)
    headers = request.headers
    if before != after:
        headers = {name: value for name, value in headers.items() if name.lower() in _HARMLESS}
    return replace(request, url=target, headers=headers)


def retry_after(value: str, now: datetime | None = None) -> float | None:
    """Seconds to wait, from a Retry-After in either form (RFC 9110, 10.2.3); None if it says nothing of use."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415  (hardly a registry writes a date)

        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


def content_range(value: str) -> tuple[int | None, int | None, int | None]:
    """First byte, end (one past the last) and size of the whole, from a Content-Range; None for what it does not say."""
    match = _RANGE.fullmatch(value.strip())
    if not match:
        return None, None, None
    first, last, size = match.groups()
    return (
        int(first) if first else None,
        int(last) + 1 if last else None,
        int(size) if size != "*" else None,
    )


def next_link(values: Iterable[str]) -> str:
    """The target of a Link header with rel="next" (RFC 8288), or ""."""
    for value in values:
        for target, parameters in _LINK.findall(value):
            for name, quoted, token in _PARAMETER.findall(parameters):
                if name.lower() == "rel" and "next" in (quoted or token).lower().split():
                    return str(target)
    return ""


def words(answer: Answer) -> str:
    """What a registry says of an error (distribution-spec, "Error codes"), in a line; "" if nothing that can be shown."""
    try:
        found = json.loads(answer.body)
        said = [
            ": ".join(str(one[key]) for key in ("code", "message") if one.get(key))
            for one in (found.get("errors") if isinstance(found.get("errors"), list) else [])
            if isinstance(one, dict)
        ]
        text = "; ".join(one for one in said if one) or str(
            found.get("details") or found.get("message") or found.get("error") or ""
        )
    except (ValueError, AttributeError, RecursionError):
        kind = answer.headers.get("content-type").partition(";")[0].strip()
        text = answer.body.decode("utf-8", "replace") if kind == "text/plain" else ""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:_SHOWN]
