"""Requests to a host: with authentication, redirects and retries. What pull and push have in common.

A session is one operation's, or a daemon's for long. It is thread-safe; `close` from another thread ends what waits.
"""

from __future__ import annotations

import os
import random
import threading
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from ocirt_images.errors import Error
from ocirt_images.registry.auth import Authority
from ocirt_images.registry.credentials import NOBODY, Found
from ocirt_images.registry.limits import Limits
from ocirt_images.registry.messages import REDIRECTS, Answer, Headers, Request, origin, place, redirected, retry_after, words
from ocirt_images.registry.transport import Failure, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ocirt_images.cancel import Cancel
    from ocirt_images.registry.credentials import Credentials
    from ocirt_images.registry.hosts import Host
    from ocirt_images.registry.tls import Tls

TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))


@dataclass(slots=True)
class Reply:
    """An answer of a kind that was expected. `stream` is its body, if that was not read; then it must be closed."""

    answer: Answer
    stream: Stream | None = None

    @property
    def status(self) -> int:
        """HTTP's status."""
        return self.answer.status

    @property
    def headers(self) -> Headers:
        """Its header fields."""
        return self.answer.headers

    @property
    def body(self) -> bytes:
        """What was read of it."""
        return self.answer.body

    @property
    def url(self) -> str:
        """Who answered, after redirects."""
        return self.answer.url


class Session:
    """Requests with all that they need around them."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        limits: Limits | None = None,
        environ: Mapping[str, str] | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._credentials = credentials
        self._transport = Transport(self.limits, os.environ if environ is None else environ)
        self._authority = Authority()
        self._closed = threading.Event()
        self._cancels: tuple[Cancel, ...] = ()
        self._parts: set[Session] = set()
        self._sleep = sleep

    def request(
        self,
        host: Host,
        method: str,
        url: str,
        *,
        expect: tuple[int, ...] = (200,),
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | Callable[[], BinaryIO] | None = None,
        size: int | None = None,
        whole: int | None = None,
        attempts: int | None = None,
        what: str = "",
    ) -> Reply:
        """Send a request to a host, at one of its URLs, and give back an answer with one of the statuses in `expect`.

        whole: read the body, of up to so many bytes (else it is `stream`, for a success of GET)
        attempts: instead of the limits' (1: what must not be sent twice); what: is asked for, for errors
        Raises Error("unauthorized", "not-found", "unavailable", "invalid", "cancelled"), without a subject.
        """
        # A URL of another host (an upload's Location may be one) is none of this host's business.
        ours = origin(url) == origin(host.base)
        own = dict(host.headers) if ours else {}
        fields = {"User-Agent": "ocirt", "Accept-Encoding": "identity", **own, **(headers or {})}
        request = Request(method=method, url=url, headers=fields, body=body, size=size)
        tried = NOBODY

        def find() -> Found:
            nonlocal tried
            tried = self._credentials.find(host.account)
            return tried

        flow = self._authority.flow(request, scopes, find if ours else _nobody)
        outgoing = next(flow)
        while True:
            mine = outgoing.url == url
            tries = attempts or host.attempts or self.limits.attempts
            tls = host.tls if origin(outgoing.url) == origin(host.base) else host.tls.anonymous()
            reply = self._retried(outgoing, tls, host.dial_timeout, whole if mine else TOKEN_LIMIT, tries)
            try:
                outgoing = flow.send(reply.answer)
            except StopIteration:
                break
            if reply.stream is not None:
                reply.stream.close()
        if reply.status not in expect:
            if reply.stream is not None:
                reply.stream.close()
            raise refusal(reply.answer, what, tried)
        return reply

    def bare(self, url: str, tls: Tls, *, headers: Mapping[str, str], whole: int | None = None) -> Reply:
        """GET a URL that is no registry's: without credentials, and without answering to any challenge."""
        fields = {"User-Agent": "ocirt", "Accept-Encoding": "identity", **headers}
        request = Request(method="GET", url=url, headers=fields)
        return self._retried(request, tls, None, whole, self.limits.attempts)

    def pause(self, attempt: int) -> None:
        """Wait before the next attempt; `attempt` counts from 1. Raises Error("cancelled")."""
        self._wait(self.limits.backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))

    @contextmanager
    def until(self, cancel: Cancel) -> Iterator[Session]:
        """The same, which ends when `cancel` is set: what waits then, in other threads, raises Error("cancelled")."""
        part = copy(self)
        part._closed, part._parts, part._cancels = threading.Event(), set(), (*self._cancels, cancel)
        self._parts.add(part)
        if self._closed.is_set():
            part._closed.set()
        forget = cancel.waker(part._end)
        try:
            yield part
        finally:
            forget()
            self._parts.discard(part)

    def _end(self) -> None:
        self._closed.set()
        for part in list(self._parts):
            part._end()
        self._transport.interrupt(self._closed)

    def check(self) -> None:
        """Raises Error("cancelled") after `close`."""
        for cancel in self._cancels:
            cancel.check()
        if self._closed.is_set():
            raise Error("cancelled", "the connection to the registry was closed by us")

    def close(self) -> None:
        """End what waits, close all connections."""
        self._end()
        self._transport.close()

    def _retried(self, request: Request, tls: Tls, dial: float | None, whole: int | None, attempts: int) -> Reply:
        """One request, as often as it takes."""
        for attempt in range(1, attempts + 1):
            self.check()
            try:
                reply = self._followed(request, tls, dial, whole)
            except Failure as failed:
                self.check()
                if not failed.again or attempt == attempts:
                    raise failed.error from None
                self.pause(attempt)
                continue
            if reply.status not in _AGAIN or attempt == attempts:
                return reply
            wait = retry_after(reply.headers.get("retry-after"))
            if wait is None:
                self.pause(attempt)
            elif wait > self.limits.patience:
                return reply
            else:
                self._wait(wait)
        raise AssertionError

    def _followed(self, request: Request, tls: Tls, dial: float | None, whole: int | None) -> Reply:
        """One attempt, with the redirects that it meets. Raises Failure."""
        first = origin(request.url)
        for _ in range(self.limits.redirects + 1):
            answer, stream = self._transport.send(request, tls, dial=dial, whole=whole, ended=self._closed)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or not location:
                return Reply(answer, stream)
            if answer.status < 307 and request.method not in ("GET", "HEAD"):
                return Reply(answer, stream)
            onward = redirected(request, location)
            if origin(onward.url) != first:
                if request.body is not None:  # which may be a password, for a token server
                    return Reply(answer, stream)
                tls = tls.anonymous()
            request = onward
        what = f"{place(request.url)} sends us in circles: more than {self.limits.redirects} redirects"
        raise Failure(Error("unavailable", what), again=False)

    def _wait(self, seconds: float) -> None:
        (self._sleep or self._closed.wait)(seconds)
        self.check()


def _nobody() -> Found:
    return NOBODY


def refusal(answer: Answer, what: str, tried: Found = NOBODY) -> Error:
    """What an answer with an unexpected status is called."""
    host, said, status = place(answer.url), words(answer), answer.status
    if status in (401, 403):
        return Error("unauthorized", f"{host} refuses {what or 'this'} (HTTP {status})", cause=said, hint=str(tried))
    if status == 404:
        return Error("not-found", f"{host} has no {what or 'such thing'}", cause=said)
    if status == 429:
        wait = retry_after(answer.headers.get("retry-after"))
        hint = f"it asks to wait for {wait:.0f} seconds" if wait else "it limits how often it may be asked; log in, or wait"
        return Error("unavailable", f"{host} was asked too often (HTTP 429)", cause=said, hint=hint)
    if status == 400 and "HTTP request" in answer.body.decode("latin-1") and "HTTPS" in answer.body.decode("latin-1"):
        return Error(
            "unavailable",
            f"{host} speaks TLS, and was asked in plain HTTP",
            hint='name it with `server = "https://…"` in hosts.toml',
        )
    code = "unavailable" if status >= 500 or status in REDIRECTS or status == 408 else "invalid"
    return Error(code, f"{host} answers HTTP {status}" + (f" when asked for {what}" if what else ""), cause=said)
