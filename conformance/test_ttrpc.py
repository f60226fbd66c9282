"""Our ttrpc and containerd's own: each is the client of the other, for calls, failures, streams and large messages."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance import goprograms
from ocirt_api import status
from ocirt_api.messages.task import KillRequest, StateRequest, StateResponse
from ocirt_api.ttrpc import OPEN, Client, DataReceived, Refused, RequestReceived, ResponseReceived, Server

TASK = "containerd.task.v3.Task"
MODULES = {"github.com/containerd/containerd/api": "v1.12.0", "github.com/containerd/ttrpc": "v1.2.10"}


@pytest.fixture(scope="module")
def peer() -> Path:
    """The program of ttrpcpeer.go."""
    text = Path(__file__).with_name("ttrpcpeer.go").read_text()
    return goprograms.build("ttrpcpeer", MODULES, ["."], go="1.26", files={"main.go": text}) / "ttrpcpeer"


def answers(server: Server, event: RequestReceived | DataReceived) -> Iterator[bytes]:
    """What ttrpcpeer.go's server would answer."""
    if isinstance(event, DataReceived):
        if event.payload is not None:
            yield server.send(event.stream, event.payload)
        if event.last:
            yield server.send(event.stream, None, last=True)
    elif event.request.method == "State":
        request = StateRequest.decode(event.request.payload)
        words = [pair.value for pair in event.request.metadata if pair.key == "words"]
        timed = 0 < event.request.timeout_nano <= 60 * 10**9
        state = StateResponse(id=request.id, exec_id=request.exec_id, pid=42, stdin=f"[{' '.join(words)}]", terminal=timed)
        yield server.respond(event.stream, state.encode())
    elif event.request.method == "Kill":
        killed = KillRequest.decode(event.request.payload)
        yield server.respond(event.stream, code=status.NOT_FOUND, text=f"no container {killed.id}")
    else:
        assert (event.request.service, event.request.method, event.kind) == ("test.Streams", "Echo", OPEN)


def test_a_client_in_go(peer: Path, tmp_path: Path) -> None:
    """Go calls us."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(60)
        with subprocess.Popen([peer, "call", tmp_path / "s"], stdout=subprocess.PIPE, text=True) as process:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                server = Server()
                while data := connection.recv(65536):
                    for event in server.receive(data):
                        assert not isinstance(event, Refused), event
                        for answer in answers(server, event):
                            connection.sendall(answer)
                server.end()
            assert process.stdout is not None
            said = process.stdout.read()
    assert said.splitlines() == [
        "state c e 42 [a b] true",
        "kill NotFound no container c",
        'echo "one"',
        'echo ""',
        "end EOF",
        f"large {3 << 20}",
    ]
    assert (process.returncode, server.active) == (0, 0)


class Connection:
    """Our client at a socket."""

    def __init__(self, path: Path) -> None:
        self.client = Client()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(path))

    def next(self) -> Any:
        """The next event."""
        while True:
            if events := self.client.receive(self.socket.recv(65536)):
                [event] = events
                return event

    def call(self, method: str, payload: bytes, **more: Any) -> ResponseReceived:
        """Call the Task service."""
        stream, sent = self.client.request(TASK, method, payload, **more)
        self.socket.sendall(sent)
        event = self.next()
        assert isinstance(event, ResponseReceived)
        assert event.stream == stream
        return event


@pytest.fixture
def connection(peer: Path, tmp_path: Path) -> Iterator[Connection]:
    """Our client at the server in Go."""
    with subprocess.Popen([peer, "serve", tmp_path / "s"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            found = Connection(tmp_path / "s")
            with found.socket:
                yield found
        finally:
            process.kill()


def test_a_server_in_go(connection: Connection) -> None:
    """We call Go."""
    sent = StateRequest(id="c", exec_id="e").encode()
    answer = connection.call("State", sent, timeout=30 * 10**9, metadata=[("words", "a"), ("words", "b")])
    assert answer.status.code == status.OK
    state = StateResponse.decode(answer.payload)
    assert state == StateResponse(id="c", exec_id="e", pid=42, stdin="[a b]", terminal=True)
    answer = connection.call("Kill", KillRequest(id="c").encode())
    assert (answer.status.code, answer.status.message) == (status.NOT_FOUND, "no container c")
    assert connection.call("NoSuchMethod", b"").status.code == status.UNIMPLEMENTED
    assert connection.call("State", b"\x0a\x09x").status.code != status.OK
    answer = connection.call("State", StateRequest(id="x" * (3 << 20)).encode())
    assert len(StateResponse.decode(answer.payload).id) == 3 << 20


def test_a_stream_of_a_server_in_go(connection: Connection) -> None:
    """Data of both sides, an empty message too, and the end."""
    stream, sent = connection.client.request("test.Streams", "Echo", kind=OPEN)
    connection.socket.sendall(sent)
    for payload in (StateRequest(id="one").encode(), b""):
        connection.socket.sendall(connection.client.send(stream, payload))
        assert connection.next() == DataReceived(stream, payload, last=False)
    connection.socket.sendall(connection.client.finish(stream))
    assert connection.next() == DataReceived(stream, None, last=True)
    assert connection.client.active == 0


def test_a_frame_that_is_too_large_for_go(connection: Connection) -> None:
    """Both refuse the same: one byte more than 4 MiB, and the connection goes on."""
    connection.client.request(TASK, "State")
    length = (4 << 20) + 1
    connection.socket.sendall(length.to_bytes(4, "big") + (1).to_bytes(4, "big") + b"\1\0" + bytes(length))
    refused = connection.next()
    assert refused.status.code == status.RESOURCE_EXHAUSTED
    assert connection.call("State", b"").status.code == status.OK
