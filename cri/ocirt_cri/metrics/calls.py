"""Calls of the CRI, counted where gRPC passes them on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from ocirt_cri.metrics.text import Family, Histogram, Labels

_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_OK = "OK"
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Calls(grpc.aio.ServerInterceptor):
    """An interceptor that counts calls by method and status, and times those with one answer."""

    def __init__(self) -> None:
        self._counts: dict[Labels, int] = {}
        self._seconds = Histogram("ocirtd_rpc_seconds", "How long calls with one answer took.", _BOUNDS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler, with a clock around it."""
        handler = await continuation(handler_call_details)
        # Only methods that are known: a name that somebody makes up must not become a label.
        if handler is None or handler.unary_unary is None:
            return handler
        method = handler_call_details.method.rpartition("/")[2]
        inner: Callable[[Any, Any], Awaitable[Any]] = handler.unary_unary

        async def timed(request: Any, context: Any) -> Any:
            start = time.monotonic()
            code = "CANCELLED"
            try:
                answer = await inner(request, context)
                code = _OK
                return answer
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            finally:
                self.note(method, code, time.monotonic() - start)

        return grpc.unary_unary_rpc_method_handler(timed, handler.request_deserializer, handler.response_serializer)

    def note(self, method: str, code: str, seconds: float) -> None:
        """One call has ended."""
        key = (("method", method), ("code", code))
        self._counts[key] = self._counts.get(key, 0) + 1
        self._seconds.observe(seconds, key[:1])

    def families(self) -> list[Family]:
        """What was counted."""
        counts = Family("ocirtd_rpc_total", "counter", "Calls of the CRI that have ended.")
        for labels, count in sorted(self._counts.items()):
            counts.add(count, labels)
        return [counts, self._seconds.family()]


def _name(code: Any) -> str:
    """gRPC gives a number, or the code itself."""
    return code.name if isinstance(code, grpc.StatusCode) else _CODES.get(code, "UNKNOWN")
