"""A zygote of the node's kind, and shims of it, for tests: a client of their service that waits."""

from __future__ import annotations

import array
import os
import select
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ocirt
from ocirt.errors import Error
from ocirt.zygote import wire
from ocirt_api import status
from ocirt_api.message import Message
from ocirt_api.messages import shim as messages
from ocirt_api.ttrpc import Client, ResponseReceived
from ocirt_shim import zygote
from tests.support.build import ROOT
from tests.support.patience import patience

PATIENCE = patience(30.0)


class Zygote:
    """The zygote; ends with this object or this process."""

    def __init__(self, python: str = sys.executable) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        me = os.pidfd_open(os.getpid())
        self.errors, errors = os.pipe2(os.O_CLOEXEC)
        homes = [str(Path(ocirt.__path__[0]).parent), *(str(ROOT / floor) for floor in ("api", "shim", "cri", "cni", "images"))]
        python = os.path.realpath(python)
        null = os.open(os.devnull, os.O_RDWR)
        high = {there: os.dup(here) for there, here in {0: null, 1: null, 2: errors, 3: theirs.fileno(), 4: me}.items()}
        self.pid = os.posix_spawn(
            python,
            zygote.command(python, homes),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, here, there) for there, here in high.items()],
        )
        for fd in (*high.values(), null, errors, me):
            os.close(fd)
        theirs.close()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "the zygote does not start"
        assert self._control.recv(16) == zygote.READY, os.read(self.errors, 65536).decode()

    def ask(self, message: dict[str, Any]) -> tuple[socket.socket, dict[str, Any]]:
        """Have a fork become something: the connection, and the fork's first word."""
        mine, theirs = socket.socketpair()
        with theirs:
            self._control.sendmsg([b"n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))])
        mine.settimeout(PATIENCE)
        mine.sendall(wire.encode(message))
        decoder = wire.Decoder()
        while (answer := decoder.next()) is None:
            data = mine.recv(65536)
            assert data, "the fork is gone"
            decoder.feed(data)
        if "error" in answer:
            raise wire.to_error(answer)
        return mine, answer

    def shim(self, place: Path, name: str = "c1") -> Shim:
        """A shim with its directory below `place`."""
        (place / "shims").mkdir(exist_ok=True)
        asked = {
            "do": "shim",
            "id": name,
            "state": str(place / "shims" / name),
            "runtime": str(place / "runtime"),
            "instance": "t",
        }
        mine, answer = self.ask(asked)
        return Shim(mine, place / "shims" / name, answer["at"])

    def close(self) -> None:
        """End it, and wait for that."""
        self._control.close()
        os.close(self.errors)
        os.waitpid(self.pid, 0)


class Caller:
    """A connection to a service of a shim's. methods: what each takes and answers."""

    def __init__(self, sock: socket.socket, service: str, methods: Mapping[str, tuple[type[Message], type[Message]]]) -> None:
        self.socket = sock
        self.service = service
        self._methods = methods
        self._client = Client()
        self._answers: dict[int, ResponseReceived] = {}

    def send(self, method: str, request: Message | None = None, descriptor: int = -1) -> int:
        """Begin a call: its number. descriptor: goes with it."""
        kind = self._methods[method][0]
        stream, data = self._client.request(self.service, method, (request or kind()).encode())
        if descriptor >= 0:
            sent = self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])
            data = data[sent:]
        self.socket.sendall(data)
        return stream

    def receive(self, method: str, stream: int) -> Any:
        """The answer of a call. Raises Error."""
        while stream not in self._answers:
            data = self.socket.recv(1 << 20)
            assert data, "the shim is gone"
            for event in self._client.receive(data):
                assert isinstance(event, ResponseReceived)
                self._answers[event.stream] = event
        answer = self._answers.pop(stream)
        if answer.status.code:
            raise Error(status.code(answer.status.code), answer.status.message)
        return self._methods[method][1].decode(answer.payload)

    def call(self, method: str, request: Message | None = None, descriptor: int = -1) -> Any:
        """A call and its answer. Raises Error."""
        return self.receive(method, self.send(method, request, descriptor))


class Shim(Caller):
    """A connection to a shim."""

    def __init__(self, sock: socket.socket, directory: Path, pid: int = 0) -> None:
        super().__init__(sock, messages.SERVICE, messages.METHODS)
        self.directory = directory
        self.pid = pid

    def again(self) -> Shim:
        """One more connection, by the shim's socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(self.directory / "socket"))
        except OSError:
            sock.close()
            raise
        return Shim(sock, self.directory, self.pid)

    def share(self, place: Path, name: str) -> Shim:
        """Another shim, in the process of this one, which gets its directory below `place` with its container."""
        mine, theirs = socket.socketpair()
        mine.settimeout(PATIENCE)
        other = self.again()
        with theirs, other.socket:
            other.call("Share", descriptor=theirs.fileno())
        return Shim(mine, place / "shims" / name, self.pid)
