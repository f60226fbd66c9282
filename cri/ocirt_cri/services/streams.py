"""Exec, Attach, PortForward: where the client gets its stream, and who serves it there."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from typing import TYPE_CHECKING

from ocirt.errors import Error
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.messages import shim as messages
from ocirt_cri.shims import pass_on
from ocirt_cri.spec.document import encode
from ocirt_cri.spec.execprocess import exec_process
from ocirt_cri.streams.port import Port
from ocirt_cri.streams.tokens import Tokens, Wish
from ocirt_shim.remote import ATTACH, EXEC, PORT_FORWARD, READY

if TYPE_CHECKING:
    from ocirt_cri.node import Node
    from ocirt_cri.streams.upgrade import Upgrade

_MODULE = "ocirt_shim.remote.forward"  # its `serve` runs in the fork
_MOST_PORT = 0xFFFF
_RUNNING = "only a running one has streams"


class StreamService:
    """Gives out URLs, and connections. An async context manager, which has the port open."""

    def __init__(self, node: Node) -> None:
        self._node = node
        config = node.config
        self._port = Port(config["streams.address"], config["streams.port"], Tokens(), self._give)

    async def __aenter__(self) -> StreamService:
        await self._port.__aenter__()
        return self

    async def __aexit__(self, *how: object) -> None:
        await self._port.__aexit__(*how)

    # -- what is asked for --

    async def Exec(self, request: cri.ExecRequest) -> cri.ExecResponse:
        """Of one more program in a container, whose streams the client has."""
        container = self._node.container(request.container_id)
        _check(request)
        process = exec_process(container.process, request.cmd, terminal=request.tty)
        container.need_running(_RUNNING)
        wish = _stream_request(request, terminal=request.tty)
        wish.process = encode(process)
        return cri.ExecResponse(url=self._port.url(Wish(EXEC, container.id, wish)))

    async def Attach(self, request: cri.AttachRequest) -> cri.AttachResponse:
        """Of a container's own streams. Whether they are a terminal is the container's to say."""
        container = self._node.container(request.container_id)
        _check(request)
        container.need_running(_RUNNING)
        wish = _stream_request(request, terminal=container.config.tty)
        return cri.AttachResponse(url=self._port.url(Wish(ATTACH, container.id, wish)))

    async def PortForward(self, request: cri.PortForwardRequest) -> cri.PortForwardResponse:
        """Of connections to a pod's ports, which the client names later; `port` is what old clients of WebSocket mean."""
        sandbox = self._node.pod(request.pod_sandbox_id)
        for number, port in enumerate(request.port):
            if not 0 < port <= _MOST_PORT:
                raise Error("invalid", f"{port} is no port", subject=f"port[{number}]", hint=f"1 to {_MOST_PORT}")
        if not sandbox.is_ready:
            raise Error("state", "the pod was stopped", subject=sandbox.id, hint="run another attempt of it")
        return cri.PortForwardResponse(url=self._port.url(Wish(PORT_FORWARD, sandbox.id, list(request.port))))

    # -- and who gets it --

    async def _give(self, wish: Wish, agreed: Upgrade, client: socket.socket, rest: bytes) -> None:
        if wish.kind == PORT_FORWARD:
            await self._forward(wish, agreed, client, rest)
            return
        container = self._node.container(wish.target)
        container.need_running(_RUNNING)
        request: messages.StreamRequest = wish.of
        request.transport, request.protocol, request.answer = agreed.transport, agreed.protocol, agreed.answer
        request.rest = rest
        method = "StreamExec" if wish.kind == EXEC else "Attach"
        await pass_on(container.id, self._node.shim_directory(container.id), method, request, client.fileno())

    async def _forward(self, wish: Wish, agreed: Upgrade, client: socket.socket, rest: bytes) -> None:
        node = self._node
        sandbox = node.pod(wish.target)
        if not sandbox.is_ready:
            raise Error("state", "the pod was stopped", subject=sandbox.id)
        request = {
            "do": "serve",
            "module": _MODULE,
            "transport": agreed.transport,
            "protocol": agreed.protocol,
            "answer": agreed.answer.decode("latin-1"),
            "rest": rest.decode("latin-1"),
            "ports": wish.of,
            "path": sandbox.netns or node.pod_directory(sandbox.id),
        }
        descriptors = array.array("i", [client.fileno()])
        if sandbox.netns:
            descriptors.append(os.open(sandbox.netns, os.O_RDONLY | os.O_CLOEXEC))
        try:
            connection, _ = await node.zygote.ask(request)
            with connection:
                connection.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
                if await asyncio.get_running_loop().sock_recv(connection, 1) != READY:
                    raise Error("kernel", "the process that was to serve the client has failed", subject=sandbox.id)
        finally:
            for fd in descriptors[1:]:
                os.close(fd)


def _check(request: cri.ExecRequest | cri.AttachRequest) -> None:
    """Raise Error for streams that contradict each other."""
    if request.tty and request.stderr:
        hint = "a terminal has one output: ask for stdout"
        raise Error("invalid", "cannot be had beside a terminal (tty)", subject="stderr", hint=hint)
    if not (request.stdin or request.stdout or request.stderr):
        raise Error("invalid", "none of stdin, stdout and stderr is asked for", subject="stdout")


def _stream_request(request: cri.ExecRequest | cri.AttachRequest, *, terminal: bool) -> messages.StreamRequest:
    return messages.StreamRequest(stdin=request.stdin, stdout=request.stdout, stderr=request.stderr, terminal=terminal)
