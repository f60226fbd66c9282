"""One request out, one answer in, over urllib3: connections, proxies, TLS, and what is said when they fail.

Nothing is tried twice here and no redirect is followed: `session` decides that.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import urllib3
from urllib3 import exceptions

from ocirt_images.errors import Error
from ocirt_images.registry import connections, proxies
from ocirt_images.registry.messages import Answer, Headers, Request, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocirt_images.registry.limits import Limits
    from ocirt_images.registry.tls import Tls

_CONNECTIONS = 16  # that are kept open to one host
_ERROR_BODY = 64 << 10  # bytes of an error's body that are looked at
_BLOCK = 256 << 10  # bytes that are read at once of what is sent


class Failure(Exception):
    """An exchange that came to no good end: the error to raise for it, and whether trying it again may help."""

    def __init__(self, error: Error, *, again: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.again = again


class Stream:
    """A body that is still to be read. Each method raises Failure."""

    def __init__(self, response: urllib3.BaseHTTPResponse, url: str, stall: float) -> None:
        self._response = response
        self._url = url
        self._stall = stall

    def read1(self, amount: int) -> bytes:
        """Up to `amount` bytes, as soon as there are some; none at the end. As they come: no Content-Encoding is undone."""
        try:
            return self._response.read1(amount, decode_content=False)
        except (exceptions.HTTPError, OSError, ValueError) as err:
            raise failure(err, self._url, self._stall) from err

    def read(self, limit: int) -> bytes:
        """All of it. Raises Failure if that is more than `limit` bytes, or takes longer than a stall may."""
        found = bytearray()
        end = time.monotonic() + self._stall
        while data := self.read1(64 << 10):
            found += data
            if time.monotonic() > end:
                self.close()
                what = f"{place(self._url)} sent {len(found)} bytes in {self._stall:g} seconds"
                raise Failure(Error("unavailable", what), again=True)
            if len(found) > limit:
                self.close()
                what = f"{place(self._url)} sends more than {limit} bytes where a small document was expected"
                raise Failure(Error("invalid", what), again=False)
        self.release()
        return bytes(found)

    def release(self) -> None:
        """It was read to its end: the connection can be used again."""
        self._response.release_conn()

    def close(self) -> None:
        """What is left is not wanted; the connection is closed."""
        self._response.close()
        self._response.release_conn()


class Transport:
    """Pools of connections by proxy and TLS settings. Thread-safe."""

    def __init__(self, limits: Limits, environ: Mapping[str, str]) -> None:
        self._limits = limits
        self._environ = environ
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, Tls | None], urllib3.PoolManager] = {}
        self._live = connections.Live()

    def send(
        self,
        request: Request,
        tls: Tls,
        *,
        dial: float | None = None,
        whole: int | None = None,
        ended: threading.Event | None = None,
    ) -> tuple[Answer, Stream | None]:
        """Send a request; the answer, and its body if that is still to be read.

        ended: when it is set, and `interrupt` is called for it, all that was asked for it ends
        whole: read the body of a success as well, of up to so many bytes; that of any other answer always is
        Raises Failure; Error("invalid", "unsupported") for a URL, proxy or certificate that cannot be used.
        """
        proxy = proxies.find(request.url, self._environ)
        manager = self._manager(proxy, tls if "https" in (request.url[:5].lower(), proxy[:5].lower()) else None)
        timeout = urllib3.Timeout(connect=dial or self._limits.dial, read=self._limits.stall)
        body = request.body() if callable(request.body) else request.body
        headers = dict(request.headers)
        if request.size is not None:
            headers["Content-Length"] = str(request.size)
        try:
            with connections.used_until(ended):
                response = manager.urlopen(
                    request.method,
                    request.url,
                    headers=headers,
                    body=body,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                    timeout=timeout,
                )
        except (exceptions.HTTPError, OSError, ValueError) as err:
            raise failure(err, request.url, self._limits.stall, proxy=proxy) from err
        finally:
            if body is not None and not isinstance(body, bytes):
                body.close()
        stream = Stream(response, request.url, self._limits.stall)
        answer = Answer(status=response.status, url=request.url, headers=Headers(response.headers.items()))
        if 200 <= answer.status < 300 and whole is None and request.method != "HEAD":
            return answer, stream
        if whole is None or not 200 <= answer.status < 300:
            answer.body = self._beginning(stream)
            return answer, None
        answer.body = stream.read(whole)
        framed = answer.headers.all("content-length") or answer.headers.all("transfer-encoding")
        sized = answer.status == 204 or request.method == "HEAD" or framed
        if not answer.body and not sized:
            # Where a connection ends within the head, http.client sees the end of the head.
            raise Failure(
                Error("unavailable", f"the connection to {place(request.url)} broke before the answer's end"), again=True
            )
        return answer, None

    def close(self) -> None:
        """Close all connections; what waits for one, in other threads, ends."""
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        self._live.interrupt()
        for pool in pools:
            pool.clear()

    def interrupt(self, ended: threading.Event) -> None:
        """End what waits, in other threads, for answers that were asked for until `ended` is set, which it is."""
        self._live.interrupt(ended)

    def _manager(self, proxy: str, tls: Tls | None) -> urllib3.PoolManager:
        with self._lock:
            found = self._pools.get((proxy, tls))
            if found is None:
                # Reading the system's certificates takes longer than a request.
                context = None if tls is None else tls.context()
                if proxy:
                    found = urllib3.ProxyManager(
                        proxies.bare(proxy),
                        proxy_headers=proxies.headers(proxy),
                        maxsize=_CONNECTIONS,
                        blocksize=_BLOCK,
                        ssl_context=context,
                    )
                else:
                    found = urllib3.PoolManager(maxsize=_CONNECTIONS, blocksize=_BLOCK, ssl_context=context)
                verified = tls is None or tls.verify
                found.pool_classes_by_scheme = connections.pools(self._live, verified=verified, stall=self._limits.stall)
                self._pools[proxy, tls] = found
            return found

    @staticmethod
    def _beginning(stream: Stream) -> bytes:
        """What a person may want to read of an error. How it ends does not matter."""
        found = bytearray()
        try:
            while data := stream.read1(_ERROR_BODY):
                found += data
                if len(found) > _ERROR_BODY:
                    stream.close()
                    break
            else:
                stream.release()
        except Failure:
            stream.close()
        return bytes(found)


def failure(err: Exception, url: str, stall: float, *, proxy: str = "") -> Failure:
    """What a failed exchange is called. `stall`: after how many seconds without a byte a read was given up."""
    name = place(url)
    if isinstance(err, exceptions.ProxyError):
        inner = failure(err.original_error, proxies.bare(proxy) if proxy else url, stall)
        hint = "HTTP_PROXY, HTTPS_PROXY and NO_PROXY say which proxy is used for which host"
        inner.error = Error(
            inner.error.code, f"by the proxy for {name}: {inner.error.message}", cause=inner.error.cause, hint=hint
        )
        return inner
    if isinstance(err, exceptions.NameResolutionError):
        found = err.__cause__
        lasting = isinstance(found, socket.gaierror) and found.errno != socket.EAI_AGAIN
        reason = found.strerror if isinstance(found, socket.gaierror) else ""
        hint = "is it spelled right, and does /etc/resolv.conf name a server that answers?"
        return Failure(Error("unavailable", f"the name {name} is not known", cause=reason or "", hint=hint), again=not lasting)
    if isinstance(err, exceptions.NewConnectionError):
        reason = _reason(err.__cause__)
        if isinstance(err.__cause__, ConnectionRefusedError):
            return Failure(Error("unavailable", f"{name} refuses the connection"), again=True)
        return Failure(Error("unavailable", f"no connection to {name}", cause=reason), again=True)
    if isinstance(err, exceptions.ConnectTimeoutError):
        return Failure(Error("unavailable", f"{name} did not take the connection in time"), again=True)
    if isinstance(err, exceptions.ReadTimeoutError):
        return Failure(Error("unavailable", f"{name} kept us waiting for {stall:g} seconds"), again=True)
    if isinstance(err, (exceptions.SSLError, ssl.SSLError)):
        return _tls_failure(err, name)
    if isinstance(err, (exceptions.LocationValueError, ValueError)):
        return Failure(Error("invalid", "a URL that cannot be used", subject=url[:200], cause=str(err)[:200]), again=False)
    return Failure(Error("unavailable", f"the connection to {name} broke", cause=_reason(err)), again=True)


def _tls_failure(err: Exception, name: str) -> Failure:
    inner = err.args[0] if err.args and isinstance(err.args[0], Exception) else err
    if isinstance(inner, ssl.SSLCertVerificationError):
        hint = "give its certificate authority as `ca` in hosts.toml"
        if "hostname mismatch" in inner.verify_message.lower() or "ip address mismatch" in inner.verify_message.lower():
            hint = "the certificate is made out to another name"
        what = f"the certificate of {name} is not trusted"
        return Failure(Error("unavailable", what, cause=inner.verify_message, hint=hint), again=False)
    reason = inner.reason if isinstance(inner, ssl.SSLError) and inner.reason else str(inner)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        hint = 'if it is meant to speak plain HTTP, give --plain-http or `server = "http://…"` in hosts.toml'
        return Failure(Error("unavailable", f"{name} does not speak TLS", hint=hint), again=False)
    # An end in the middle of a handshake may be a server that restarts; a refused certificate of ours is for ever.
    again = isinstance(inner, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    hint = "it may want a client certificate: `client` in hosts.toml" if again or "ALERT" in reason.upper() else ""
    return Failure(Error("unavailable", f"no TLS connection to {name}", cause=reason, hint=hint), again=again)


def _reason(err: BaseException | None) -> str:
    """The innermost error's own words."""
    seen: list[BaseException] = []
    while err is not None and err not in seen:
        seen.append(err)
        inner = next((one for one in reversed(err.args) if isinstance(one, BaseException)), None)
        err = inner or err.__cause__
    if not seen:
        return ""
    last = seen[-1]
    if isinstance(last, OSError) and last.strerror:
        return last.strerror
    return (str(last) or type(last).__name__)[:200]
