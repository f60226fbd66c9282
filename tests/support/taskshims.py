"""containerd's part for tests of our shim: it starts one as containerd does, calls it, and takes its events."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

from ocirt_api import status
from ocirt_api.messages import events, task
from ocirt_api.messages.bootstrap import BootstrapParams, BootstrapResult, Extension
from ocirt_api.messages.google import Any as Wrapped
from ocirt_api.ttrpc import RequestReceived, Server
from tests.support.build import ROOT
from tests.support.patience import patience
from tests.support.shims import Caller

PATIENCE = patience(30.0)
NAMESPACE = "tests"
PROGRAM = ROOT / "build" / "containerd-shim-ocirt-v2"
KINDS = {topic: kind for kind, topic in events.TOPICS.items()}


class Events:
    """containerd's socket for events: a server that takes them all, and can be stopped, and started again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[tuple[str, Any]] = []  # topic, event
        self.refusals = 0  # how many of those that come are refused
        self._listener: socket.socket | None = None
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._run(self._accept, self._listener)

    def _run(self, call: Any, sock: socket.socket) -> None:
        thread = threading.Thread(target=call, args=(sock,))
        thread.start()
        self._threads.append(thread)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        server = Server()
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                return
            if not data:
                connection.close()
                return
            for event in server.receive(data):
                assert isinstance(event, RequestReceived)
                taken, answer = self._answer(server, event)
                try:
                    connection.sendall(answer)
                except OSError:
                    return  # the shim was killed
                self.taken += taken  # once it was answered: else it comes again

    def _answer(self, server: Server, event: RequestReceived) -> tuple[list[tuple[str, Any]], bytes]:
        assert (event.request.service, event.request.method) == events.FORWARD
        assert [(pair.key, pair.value) for pair in event.request.metadata] == [("containerd-namespace-ttrpc", NAMESPACE)]
        if self.refusals:
            self.refusals -= 1
            return [], server.respond(event.stream, code=status.UNAVAILABLE, text="not now")
        envelope = events.ForwardRequest.decode(event.request.payload).envelope
        assert envelope is not None
        assert envelope.namespace == NAMESPACE
        assert envelope.event is not None
        assert envelope.timestamp is not None
        return [(envelope.topic, envelope.event.read(KINDS[envelope.topic]))], server.respond(event.stream)

    def topics(self) -> list[str]:
        """What has come, in its order, without `/tasks/`."""
        return [topic.removeprefix("/tasks/") for topic, _ in self.taken]

    def stop(self) -> None:
        """As containerd's end."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self.path.unlink()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._threads.clear()


class TaskShim(Caller):
    """A shim, and one connection to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(address.removeprefix("unix://"))
        super().__init__(sock, task.SERVICES[1], task.METHODS)
        self.pid: int = self.call("Connect", task.ConnectRequest()).shim_pid


class Containerd:
    """Its directories below `place`, which has to be short (a socket's path has 107 bytes), and its events."""

    def __init__(self, place: Path, program: Path = PROGRAM) -> None:
        self.place = place
        self.program = program
        self.address = f"{place}/c.sock"
        self.events = Events(place / "c.sock.ttrpc")
        self.events.start()

    def command(self, container: str, action: str) -> list[str]:
        """How the shim's program is called."""
        flags = ("-namespace", NAMESPACE, "-address", self.address, "-publish-binary", "/bin/false", "-id", container, "-debug")
        return [str(self.program), *flags, action]

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "TTRPC_ADDRESS": str(self.events.path), **more}

    def bundle(self, container: str) -> Path:
        return self.place / "b" / container

    def start(self, container: str, config: dict[str, Any], options: Wrapped | None = None) -> str:
        """A bundle, and its shim as containerd 2.3 starts one; the shim's address."""
        bundle = self.bundle(container)
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(config))
        os.mkfifo(bundle / "log")
        params = BootstrapParams(
            instance_id=container,
            namespace=NAMESPACE,
            log_level=-4,
            containerd_grpc_address=self.address,
            containerd_ttrpc_address=str(self.events.path),
            socket_dir=f"{self.place}/s",
        )
        if options is not None:
            params.extensions.append(Extension(value=options))
        result = BootstrapResult.decode(self.run(container, "start", params.encode()))
        assert (result.version, result.protocol) == (3, "ttrpc")
        return result.address

    def run(self, container: str, action: str, data: bytes = b"", **environment: str) -> bytes:
        """What the program prints; it has to succeed, and to say nothing on standard error."""
        argv = self.command(container, action)
        done = subprocess.run(
            argv,
            input=data,
            capture_output=True,
            cwd=self.bundle(container),
            env=self.environment(**environment),
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        return done.stdout

    def delete(self, container: str) -> task.DeleteResponse:
        """What `delete` of the program says."""
        return task.DeleteResponse.decode(self.run(container, "delete"))

    def stop(self) -> None:
        self.events.stop()


def kill(pid: int) -> None:
    """As a crash of a process that is not our child."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
