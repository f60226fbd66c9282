"""ttrpc (https://github.com/containerd/ttrpc, PROTOCOL.md): calls between processes of one machine, without I/O.

    server = Server()
    for event in server.receive(socket.recv(65536)):
        if isinstance(event, RequestReceived):
            socket.sendall(server.respond(event.stream, answer(event.request)))
        elif isinstance(event, Refused):
            socket.sendall(event.answer)

Both sides are here, streams too. It needs `struct` and builtins; messages are those of `ocirt_api.messages`.
"""

from __future__ import annotations

from ocirt_api.ttrpc.client import Client
from ocirt_api.ttrpc.envelope import KeyValue, Request, Response, Status
from ocirt_api.ttrpc.events import DataReceived, Refused, RequestReceived, ResponseReceived
from ocirt_api.ttrpc.frames import LIMIT, ProtocolError, TooLargeError
from ocirt_api.ttrpc.server import Server
from ocirt_api.ttrpc.states import HALF, OPEN, UNARY, StateError

__all__ = [
    "HALF",
    "LIMIT",
    "OPEN",
    "UNARY",
    "Client",
    "DataReceived",
    "KeyValue",
    "ProtocolError",
    "Refused",
    "Request",
    "RequestReceived",
    "Response",
    "ResponseReceived",
    "Server",
    "StateError",
    "Status",
    "TooLargeError",
]
