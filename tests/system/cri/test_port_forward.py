"""PortForward by SPDY, SPDY in a WebSocket, and the WebSocket of before, into pods with networks of their own."""

from __future__ import annotations

import hashlib
import os
import threading

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.streams import ForwardClient, OldForwardClient

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

tunnelled = pytest.mark.parametrize("tunnel", [False, True], ids=["spdy", "tunnel"])


def url_of(node: Ocirtd, pod: str, *ports: int) -> str:
    """Where a pod's ports are had."""
    return str(node.runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=pod, port=ports), timeout=PATIENCE).url)


def networked_pod(node: Ocirtd) -> str:
    """A pod with a network of its own."""
    return node.run_pod(node.pod_config(options=cri.NamespaceOption(pid=cri.CONTAINER)))


def serve(node: Ocirtd, pod: str, port: int, command: str) -> str:
    """A container that runs a command for each connection."""
    made = node.run(pod, "sh", "-c", f"while :; do nc -l -p {port} -e sh -c '{command}'; done")
    until_it_listens(node, made, port)
    return made


def until_it_listens(node: Ocirtd, container: str, port: int) -> None:
    """Wait for a server, which is another one after each connection."""
    command = f"grep -h ':{port:04X} [0-9A-F:]* 0A' /proc/net/tcp /proc/net/tcp6"
    node.until(lambda: node.exec(container, "sh", "-c", command).exit_code == 0, "it to listen")


@tunnelled
def test_both_ways(networked: Ocirtd, tunnel: bool) -> None:
    """Bytes go and come; the end of one side is the other's; a second connection goes over the same client."""
    pod = networked_pod(networked)
    server = serve(networked, pod, 7001, "cat; echo over")
    client = ForwardClient(url_of(networked, pod), tunnel=tunnel)
    for word in (b"one", b"two"):
        until_it_listens(networked, server, 7001)
        key = client.open(7001)
        client.send(key, word, last=True)
        client.until_end(key)
        assert (bytes(client.came[key]), client.failure(key)) == (word + b"over\n", "")
    client.close()
    networked.stop_pod(pod)


@tunnelled
def test_where_nobody_listens(networked: Ocirtd, tunnel: bool) -> None:
    pod = networked_pod(networked)
    client = ForwardClient(url_of(networked, pod), tunnel=tunnel)
    key = client.open(7002)
    client.until_end(key)
    assert client.failure(key).startswith("cannot connect to port 7002 in the pod: 127.0.0.1: Connection refused")
    assert not client.came[key]
    client.close()


def test_of_the_node(networked: Ocirtd) -> None:
    """A pod without a network of its own has the node's ports."""
    pod = networked.run_pod()
    serve(networked, pod, 7003, "echo here")
    client = ForwardClient(url_of(networked, pod))
    key = client.open(7003)
    client.until_end(key)
    assert bytes(client.came[key]) == b"here\n"
    client.close()


@pytest.mark.parametrize("protocol", ["", "v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_before_there_was_a_tunnel(networked: Ocirtd, protocol: str) -> None:
    pod = networked_pod(networked)
    serve(networked, pod, 7004, "read x; echo got $x")
    client = OldForwardClient(url_of(networked, pod, 7004, 7005), protocol)
    client.until(lambda: client.came[0] == b"\x5c\x1b" and client.came[2] == b"\x5d\x1b")
    client.until(lambda: b"cannot connect to port 7005" in client.came[3])
    client.send(0, b"word\n")
    client.until(lambda: client.came[0].endswith(b"got word\n"))
    client.close()


@tunnelled
def test_much_both_ways(networked: Ocirtd, tunnel: bool) -> None:
    pod = networked_pod(networked)
    serve(networked, pod, 7006, "cat")
    client = ForwardClient(url_of(networked, pod), tunnel=tunnel)
    key = client.open(7006)
    data = os.urandom(1 << 20)
    sent = hashlib.sha256()

    def send() -> None:
        for _ in range(16):
            sent.update(data)
            client.send(key, data)
        client.send(key, b"", last=True)

    sending = threading.Thread(target=send)
    sending.start()
    client.until_end(key)
    sending.join()
    assert hashlib.sha256(client.came[key]).digest() == sent.digest()
    client.close()


def test_the_pod_goes(networked: Ocirtd) -> None:
    """The client is let go, and nothing keeps the network namespace."""
    pod = networked_pod(networked)
    serve(networked, pod, 7007, "cat")
    client = ForwardClient(url_of(networked, pod))
    key = client.open(7007)
    client.send(key, b"hello")
    client.until(lambda: client.came[key] == b"hello")
    networked.stop_pod(pod)
    while client.pump():
        pass
    client.close()


def test_what_is_refused(networked: Ocirtd) -> None:
    pod = networked_pod(networked)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        url_of(networked, pod, 80, 70000)
    assert said[0].startswith("port[1]: ")
    client = ForwardClient(url_of(networked, pod))
    for headers in (
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "x", "port": "80"},
        {"port": "80"},
    ):
        stream = client.open_stream(headers)
        client.until_refused(stream)
    client.close()
    networked.stop_pod(pod)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        url_of(networked, pod)
