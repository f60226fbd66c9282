"""gRPC on a unix socket: the services' methods in threads, and the one place that turns what they raise into a status.

A service is an object whose methods have the names of RPCs; each takes the request and returns the answer, or yields answers.
A call goes on when its client has gone: what was begun is ended, and the client's next attempt finds it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.wrappers_pb2 import StringValue

from ocirt_api import status
from ocirt_csi.errors import Error, status_of
from ocirt_csi.services.moves import NAME as LOCAL
from ocirt_csi.services.moves import MoveService

_THREADS = 16
_GRACE = 10.0  # seconds that calls have to end
_LONGEST = 107  # bytes of a socket's path (unix(7))
_LARGEST_MESSAGE = 4 << 20
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)


class Server:
    """A server of all services of a .proto file, which listens between `start` and `stop`."""

    def __init__(self, file: FileDescriptor, services: Iterable[object]) -> None:
        options = (("grpc.max_receive_message_length", _LARGEST_MESSAGE), ("grpc.so_reuseport", 0))
        self._server = grpc.server(ThreadPoolExecutor(_THREADS, "call"), options=options)
        found = list(services)
        for descriptor in file.services_by_name.values():
            self._server.add_generic_rpc_handlers((_handlers(descriptor, found),))
        local = next((one for one in found if isinstance(one, MoveService)), None)
        if local is not None:
            take_in = grpc.unary_unary_rpc_method_handler(
                answered("TakeIn", local.TakeIn), StringValue.FromString, StringValue.SerializeToString
            )
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(LOCAL, {"TakeIn": take_in}),))
        self._path = ""

    def start(self, path: str) -> None:
        """Listen at `path`, for root alone; a socket that nobody answers at is replaced. Raises Error, OSError.

        No other file is made beside it, as CSI wants it. The process has to have an umask of 077.
        """
        if len(os.fsencode(path)) > _LONGEST:
            raise Error("usage", f"has more than {_LONGEST} bytes", subject=path)
        make_way(path)
        try:
            self._server.add_insecure_port(f"unix:{path}")
        except RuntimeError as err:
            raise Error("kernel", "cannot be listened at", subject=path, cause=str(err)) from None
        os.chmod(path, 0o600)
        self._server.start()
        self._path = path

    def stop(self) -> None:
        """Listen no more; calls get a moment to end."""
        self._server.stop(_GRACE).wait()
        if self._path:
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass


def make_way(path: str) -> None:
    """Take a socket away that nobody answers at. Raises Error("in-use") for one with somebody behind it, Error("invalid")."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Error("invalid", "is there, and is no socket", subject=path)
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError as err:
            if err.errno != errno.ECONNREFUSED:
                raise
        else:
            raise Error("in-use", "somebody listens there", subject=path)
    os.unlink(path)


def _handlers(descriptor: Any, services: list[object]) -> grpc.GenericRpcHandler:
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in descriptor.methods:
        taken = next((getattr(one, method.name) for one in services if hasattr(one, method.name)), None)
        streams = method.server_streaming
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        found[method.name] = make(
            (streamed if streams else answered)(method.name, taken),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(descriptor.full_name, found)


def answered(name: str, method: Callable[[Any], Any] | None) -> Callable[[Any, grpc.ServicerContext], Any]:
    """A handler of gRPC for a service's method (None: there is none) with one answer."""

    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return _known(name, method)(request)
        except Exception as err:  # noqa: BLE001  (whatever it is, the client gets a status)
            context.abort(*_said(name, err))

    return handle


def streamed(name: str, method: Callable[[Any], Any] | None) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    """The same, for a method with many answers."""

    def handle(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from _known(name, method)(request)
        except Exception as err:  # noqa: BLE001
            context.abort(*_said(name, err))

    return handle


def _known(name: str, method: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    if method is None:
        raise Error("unsupported", f"ocirt-csi does not have {name}")
    return method


def _said(name: str, err: Exception) -> tuple[grpc.StatusCode, str]:
    number = status_of(err)
    if number == status.INTERNAL and not isinstance(err, Error):
        _log.error("%s: a bug in ocirt-csi", name, exc_info=err)
        return _CODES[number], f"a bug in ocirt-csi: {type(err).__name__}: {err}"
    _log.info("%s: %s", name, err)
    return _CODES[number], str(err)
