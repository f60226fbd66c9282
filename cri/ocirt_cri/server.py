"""gRPC on a unix socket: the services' methods, and the one place that turns what they raise into a status.

A service is an object whose methods have the names of RPCs; each takes the request and returns the answer, or is an async
generator of them. An RPC that no service has is answered by UNIMPLEMENTED and its name.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from ocirt import spans
from ocirt_api import status
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri.errors import status_of

LARGEST = 16 << 20  # bytes of a message, both ways, as the kubelet has it
_MODE = 0o660
_GRACE = 2.0  # seconds that calls have to end
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_SERVICES = ("RuntimeService", "ImageService")
_OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST),
    ("grpc.max_send_message_length", LARGEST),
    ("grpc.so_reuseport", 0),
)
_log = logging.getLogger(__name__)


class Server:
    """A server, which listens between `start` and `stop`."""

    def __init__(
        self,
        services: Iterable[object],
        *,
        until: asyncio.Event | None = None,
        always: Collection[str] = (),
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        """until: what calls wait for, but for those of `always`."""
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=interceptors)
        found = list(services)
        for name in _SERVICES:
            self._server.add_generic_rpc_handlers((_handlers(name, found, until, always),))
        self._path = ""

    async def start(self, path: str) -> None:
        """Listen at `path`: bound where nobody else comes, given its rights, and put into place. Raises OSError."""
        directory = os.path.dirname(path)
        os.makedirs(directory, 0o755, exist_ok=True)
        scratch = os.path.join(directory, f".{secrets.token_hex(4)}")
        os.mkdir(scratch, 0o700)
        try:
            bound = os.path.join(scratch, "s")
            self._server.add_insecure_port(f"unix:{bound}")
            await self._server.start()
            os.chmod(bound, _MODE)
            os.rename(bound, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        self._path = path

    async def stop(self) -> None:
        """Listen no more; calls get a moment to end."""
        if self._path:
            # First, so that a client does not find a socket that nobody answers at.
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
        await self._server.stop(_GRACE)


def _handlers(name: str, services: list[object], until: asyncio.Event | None, always: Collection[str]) -> grpc.GenericRpcHandler:
    descriptor = cri.DESCRIPTOR.services_by_name[name]
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in descriptor.methods:
        taken = [getattr(one, method.name) for one in services if hasattr(one, method.name)]
        make = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        wrap = streamed if method.server_streaming else answered
        found[method.name] = make(
            wrap(method.name, taken[0] if taken else None, None if method.name in always else until),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(descriptor.full_name, found)


def answered(name: str, method: Callable[..., Any] | None, until: asyncio.Event | None = None) -> Callable[..., Any]:
    """A handler of gRPC for a service's method (None: there is none) with one answer."""

    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        if method is None:
            await _refuse(context, name)
        assert method is not None
        if until is not None and not until.is_set():
            await until.wait()
        began = spans.now()
        try:
            return await method(request)
        except Exception as err:  # noqa: BLE001  (whatever it is, the client gets a status)
            await _abort(context, name, err)
        finally:
            spans.add("rpc", name, began)

    return handle


def streamed(name: str, method: Callable[..., Any] | None, until: asyncio.Event | None = None) -> Callable[..., Any]:
    """The same, for a method with many answers."""

    async def handle(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        if method is None:
            await _refuse(context, name)
        assert method is not None
        if until is not None and not until.is_set():
            await until.wait()
        answers = method(request)
        try:
            async for answer in answers:
                yield answer
        except Exception as err:  # noqa: BLE001
            await _abort(context, name, err)
        finally:
            if inspect.isasyncgen(answers):
                await answers.aclose()

    return handle


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], name: str) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"ocirtd does not have {name}")


async def _abort(context: grpc.aio.ServicerContext[Any, Any], name: str, err: Exception) -> None:
    if isinstance(err, grpc.aio.AbortError):
        raise err
    number = status_of(err)
    if number == status.INTERNAL and not hasattr(err, "code"):
        _log.error("%s: a bug in ocirtd", name, exc_info=err, extra={"rpc": name})
        text = f"a bug in ocirtd: {type(err).__name__}: {err}"
    else:
        text = str(err)
        _log.info("%s: %s", name, text, extra={"rpc": name})
    await context.abort(_CODES[number], text)
