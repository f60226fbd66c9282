"""Streams under bad luck: ocirtd and shims that die, clients that are slow, silent or rude, heads in pieces."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from ocirt_shim.remote import spdy
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.streams import (
    ForwardClient,
    RefusedError,
    SpdyClient,
    WebSocketClient,
    answer_of,
    dial,
    spdy_head,
    websocket_head,
)
from tests.system.cri.test_port_forward import networked_pod, serve, url_of
from tests.system.cri.test_streams import attach_url, exec_url

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

MIB = 1 << 20
MUCH = 100 * MIB
DEATHS = 10
V4 = "v4.channel.k8s.io"


def shim_of(node: Ocirtd, container: str) -> int:
    """The pid of a container's shim."""
    return int(json.loads((node.place / "v" / "shims" / container / "state.json").read_text())["pid"])


def sessions(shim: int) -> list[int]:
    """The processes of a shim's that serve clients."""
    found = []
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdecimal() and (place / "comm").read_text() == "ocirt-stream\n":
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
                found += [int(place.name)] if int(parent) == shim else []
        except OSError:
            pass
    return found


def are_there(pids: list[int]) -> bool:
    """Whether any of these processes is still what it was."""
    return any(Path(f"/proc/{pid}/comm").exists() and Path(f"/proc/{pid}/comm").read_text() == "ocirt-stream\n" for pid in pids)


def while_ocirtd_dies(node: Ocirtd, what: Callable[[], None]) -> None:
    """Do something, while ocirtd is killed and started again and again."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            what()
        except BaseException as err:  # noqa: BLE001  (raised below)
            failures.append(err)

    running = threading.Thread(target=run)
    running.start()
    for _ in range(DEATHS):
        node.kill()
        node.start()
    running.join(PATIENCE * 4)
    assert not running.is_alive(), "it does not end"
    if failures:
        raise failures[0]


def test_much_by_exec_while_ocirtd_dies(node: Ocirtd) -> None:
    """100 MiB go to a program and come back, each byte once, in order."""
    made = node.run(node.run_pod(), "sleep", "1000")
    client = SpdyClient(exec_url(node, made, "cat", stdin=True, stdout=True), wanted="stdin stdout")
    block = os.urandom(MIB)
    sent, came = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for _ in range(MUCH // MIB):
            sent.update(block)
            client.send(block)
        client.end_input()

    def move() -> None:
        sending = threading.Thread(target=send)
        sending.start()
        while client.pump():
            came.update(client.came["stdout"])
            client.came["stdout"].clear()
        sending.join()

    while_ocirtd_dies(node, move)
    assert client.finish()["status"] == "Success"
    assert client.counts["stdout"] == MUCH
    assert came.digest() == sent.digest()


def test_much_by_port_forward_while_ocirtd_dies(networked: Ocirtd) -> None:
    pod = networked_pod(networked)
    serve(networked, pod, 7001, "cat")
    client = ForwardClient(url_of(networked, pod))
    key = client.open(7001)
    block = os.urandom(MIB)
    sent, came = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for _ in range(MUCH // MIB):
            sent.update(block)
            client.send(key, block)
        client.send(key, b"", last=True)

    def move() -> None:
        sending = threading.Thread(target=send)
        sending.start()
        while key not in client.ended:
            assert client.pump()
            came.update(client.came[key])
            client.came[key].clear()
        sending.join()

    while_ocirtd_dies(networked, move)
    assert came.digest() == sent.digest()
    client.close()


def test_attached_while_ocirtd_dies(node: Ocirtd) -> None:
    """Who is attached sees each line once, in order, and so does the log."""
    made = node.run(node.run_pod(), "sh", "-c", "read x; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done", stdin=True)
    client = WebSocketClient(attach_url(node, made, stdin=True, stdout=True))
    client.send(b"go\n")

    def listen() -> None:
        while client.pump():
            pass

    while_ocirtd_dies(node, listen)
    wanted = [str(number) for number in range(20000)]
    assert client.came["stdout"].decode().split() == wanted
    node.wait(made)
    assert [text for _, _, text in node.logged(made)] == wanted
    client.close()


def test_a_slow_reader(node: Ocirtd) -> None:
    """The program waits for it, and nothing piles up anywhere."""
    made = node.run(node.run_pod(), "sleep", "1000")
    client = SpdyClient(exec_url(node, made, "head", "-c", str(64 * MIB), "/dev/zero", stdout=True), wanted="stdout")
    client.until(lambda: client.counts["stdout"])
    (session,) = sessions(shim_of(node, made))
    time.sleep(1)
    peak = next(line for line in Path(f"/proc/{session}/status").read_text().splitlines() if line.startswith("RssAnon"))
    assert int(peak.split()[1]) < 16 << 10  # KiB
    client.keep = False
    assert client.finish()["status"] == "Success"
    assert client.counts["stdout"] == 64 * MIB


def test_a_slow_reader_of_a_container(node: Ocirtd) -> None:
    """It loses nothing either, and the log has everything."""
    script = f"read x; head -c {48 * MIB} /dev/zero | tr '\\0' x; echo; echo last"
    made = node.run(node.run_pod(), "sh", "-c", script, stdin=True)
    client = SpdyClient(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    client.send(b"go\n")
    client.until(lambda: client.counts["stdout"])
    time.sleep(1)
    client.keep = False
    assert client.finish()["status"] == "Success"
    assert client.counts["stdout"] == 48 * MIB + len("\nlast\n")
    assert node.wait(made).exit_code == 0
    node.until(lambda: node.logged(made)[-1][2] == "last", "the last line of the log")


def test_a_silent_reader_that_goes(node: Ocirtd) -> None:
    """A container that waited for it goes on."""
    made = node.run(node.run_pod(), "sh", "-c", f"read x; head -c {64 * MIB} /dev/zero; echo done >&2", stdin=True)
    client = SpdyClient(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    client.send(b"go\n")
    client.until(lambda: client.counts["stdout"])
    time.sleep(0.5)
    client.close()
    assert node.wait(made).exit_code == 0
    node.until(lambda: sessions(shim_of(node, made)) == [], "the session's end")


def test_the_head_in_pieces(node: Ocirtd) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "true", stdout=True)
    sock = dial(url)
    for byte in spdy_head(url, V4):
        sock.sendall(bytes([byte]))
        time.sleep(0.0005)
    assert "Upgrade: SPDY/3.1" in answer_of(sock)[0]
    sock.close()


def test_head_and_frames_at_once(node: Ocirtd) -> None:
    """What a client sends without waiting for the answer is not lost."""
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "wc", "-c", stdin=True, stdout=True)
    client = spdy.Connection(server=False)
    streams = [client.open({"streamtype": name}) for name in ("error", "stdin", "stdout")]
    client.send(streams[1], bytes(1000), last=True)
    sock = dial(url)
    sock.sendall(spdy_head(url, V4) + b"".join(client.outgoing))
    _, data = answer_of(sock)
    out = b""
    while True:
        for event in client.receive(data):
            if isinstance(event, spdy.Received) and event.stream == streams[2]:
                out += event.data
        if not (data := sock.recv(65536)):
            break
    sock.close()
    assert out.split() == [b"1000"]


@pytest.mark.parametrize("head", [spdy_head, websocket_head], ids=["spdy", "websocket"])
def test_garbage(node: Ocirtd, head: Callable[..., bytes]) -> None:
    """After the upgrade: it ends this stream, and nothing else."""
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "sleep", "1000", stdin=True, stdout=True)
    sock = dial(url)
    sock.sendall(head(url, V4))
    answer_of(sock)
    sock.sendall(b"\x80\x07garbage\xff" * 20)
    while sock.recv(65536):
        pass
    sock.close()
    node.until(lambda: sessions(shim_of(node, made)) == [], "the session's end")
    assert node.exec(made, "echo", "well").stdout == b"well\n"


@pytest.mark.parametrize("data", [b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x16\x03\x01\x00"])
def test_a_rude_client(node: Ocirtd, data: bytes) -> None:
    """Of the port."""
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "echo", "well", stdout=True)
    with dial(url) as sock:
        sock.sendall(data + b"\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 40")
    with dial(url):
        pass
    client = SpdyClient(url, wanted="stdout")
    client.finish()
    assert bytes(client.came["stdout"]) == b"well\n"


def test_a_url_is_good_once(node: Ocirtd) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "true", stdout=True)
    with pytest.raises(RefusedError) as said:
        SpdyClient(url.replace("/exec/", "/attach/"))
    assert said.value.status == 404
    with pytest.raises(RefusedError) as said:
        SpdyClient(url, protocol="v9.channel.k8s.io")
    assert (said.value.status, "X-Accepted-Stream-Protocol-Versions: v4.channel.k8s.io" in said.value.head) == (403, True)
    SpdyClient(url, wanted="stdout").finish()
    with pytest.raises(RefusedError) as said:
        SpdyClient(url)
    assert (said.value.status, said.value.text) == (404, "this was asked for already, or too long ago\n")


def test_only_so_many_urls(node: Ocirtd) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    for _ in range(1000):
        exec_url(node, made, "true", stdout=True)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        exec_url(node, made, "true", stdout=True)


def test_the_container_ends_meanwhile(node: Ocirtd) -> None:
    """Between the URL and the client; and under the client."""
    made = node.run(node.run_pod(), "sleep", "1000")
    early, late = (exec_url(node, made, "sh", "-c", "echo up; exec sleep 1000", stdout=True) for _ in range(2))
    client = SpdyClient(early, wanted="stdout")
    client.until_text("stdout", b"up")
    node.stop_container(made)
    assert client.finish()["details"]["causes"][0]["message"] == "137"
    with pytest.raises(RefusedError) as said:
        SpdyClient(late, wanted="stdout")
    assert said.value.status == 500
    assert "the container is exited" in said.value.text


def test_the_shim_is_killed(node: Ocirtd) -> None:
    """Its container is killed, so programs end, and with them their streams; nothing is left."""
    made = node.run(node.run_pod(), "sleep", "1000", stdin=True)
    programs = SpdyClient(exec_url(node, made, "sh", "-c", "echo up; exec sleep 1000", stdout=True), wanted="stdout")
    programs.until_text("stdout", b"up")
    attached = SpdyClient(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    shim = shim_of(node, made)
    node.until(lambda: len(sessions(shim)) == 2, "both sessions")
    both = sessions(shim)
    os.kill(shim, signal.SIGKILL)
    assert programs.finish()["status"] == "Failure"
    assert attached.finish()["status"] == "Success"
    node.until(lambda: node.status(made).state == cri.CONTAINER_EXITED, "the container's end")
    node.until(lambda: not are_there(both), "the sessions' end")


def test_a_slow_reader_of_the_end(node: Ocirtd) -> None:
    """A client takes what is left in its own time, the outcome too, when the container has long ended."""
    script = f"read x; head -c {14 * MIB} /dev/zero"
    made = node.run(node.run_pod(), "sh", "-c", script, stdin=True)
    client = SpdyClient(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    client.send(b"go\n")
    node.wait(made)
    time.sleep(11)  # longer than the farewell after the last word
    client.keep = False
    assert client.finish()["status"] == "Success"
    assert client.counts["stdout"] == 14 * MIB


def test_a_client_goes_that_was_held_back(node: Ocirtd) -> None:
    """Its program reads nothing, so nothing is read from it; its end is seen all the same."""
    made = node.run(node.run_pod(), "sleep", "1000")
    client = SpdyClient(exec_url(node, made, "sleep", "1000", stdin=True, stdout=True), wanted="stdin stdout")
    client.wire.socket.settimeout(1)
    with pytest.raises(TimeoutError):
        client.send(bytes(64 * MIB))
    assert sessions(shim_of(node, made)) != []
    client.close()
    node.until(lambda: sessions(shim_of(node, made)) == [], "the session's end")
