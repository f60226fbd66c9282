"""Streams into containers and pods, by SPDY; by WebSocket as well, where the spec has the same title."""

from __future__ import annotations

import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support import specs
from tests.support.ocirtd import PATIENCE, Ocirtd
from tests.support.specs import page, spec
from tests.support.streams import ForwardClient, SpdyClient, WebSocketClient

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

STREAMING = "Streaming runtime should support streaming interfaces runtime should support "
KINDS: tuple[type[SpdyClient | WebSocketClient], ...] = (SpdyClient, WebSocketClient)
SUCCESS = {"metadata": {}, "status": "Success"}


def exec_url(node: Ocirtd, box: str, **wanted: bool) -> str:
    """Where a program's streams are had that greets."""
    request = cri.ExecRequest(container_id=box, cmd=["echo", "-n", "hello"], **wanted)
    return str(node.runtime.Exec(request, timeout=PATIENCE).url)


@spec(STREAMING + "exec with tty=false and stdin=false [Conformance]")
def test_exec(node: Ocirtd, box: str) -> None:
    for kind in KINDS:
        client = kind(exec_url(node, box, stdout=True, stderr=True), wanted="stdout stderr")
        assert client.finish() == SUCCESS
        assert (bytes(client.came["stdout"]), bytes(client.came["stderr"])) == (b"hello", b"")


@spec(STREAMING + "exec with tty=true and stdin=true [Conformance]")
def test_exec_with_a_terminal(node: Ocirtd, box: str) -> None:
    for kind in KINDS:
        client = kind(exec_url(node, box, stdin=True, stdout=True, tty=True), wanted="stdin stdout resize")
        assert client.finish() == SUCCESS
        assert (bytes(client.came["stdout"]), bytes(client.came["stderr"])) == (b"hello", b"")


@spec(STREAMING + "attach [Conformance]")
def test_attach(node: Ocirtd, pod: str) -> None:
    """A shell that reads what the client types, answers that and nothing else, and ends with the client."""
    for kind in KINDS:
        box = specs.started(node, specs.create(node, pod, "/bin/sh", stdin=True, stdin_once=True))
        request = cri.AttachRequest(container_id=box, stdin=True, stdout=True, stderr=True)
        client = kind(str(node.runtime.Attach(request, timeout=PATIENCE).url))
        client.send(b"echo -n hello\n")
        client.until_text("stdout", b"hello")
        client.send(b"exit 0\n")
        assert client.finish() == SUCCESS
        assert (bytes(client.came["stdout"]), bytes(client.came["stderr"])) == (b"hello", b"")
        assert node.wait(box).exit_code == 0


def forwarded(node: Ocirtd, pod: str, port: int) -> None:
    """The page of a pod's server comes by a port-forward."""
    for tunnel in (False, True):
        url = node.runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=pod), timeout=PATIENCE).url
        client = ForwardClient(str(url), tunnel=tunnel)
        key = client.open(port)
        client.send(key, b"GET / HTTP/1.0\r\n\r\n")
        client.until_end(key)
        came, failure = bytes(client.came[key]), client.failure(key)
        client.close()
        assert failure == ""
        assert came.split(b" ")[1] == b"200"
        assert came.endswith(b"\r\n\r\nhere\n")


@spec(STREAMING + "portforward [Conformance]")
def test_port_forward(node: Ocirtd) -> None:
    pod = node.run_pod(specs.pod_config(node, port_mappings=[cri.PortMapping(container_port=80)]))
    specs.started(node, specs.create(node, pod, image=specs.NGINX))
    node.until(lambda: page(node.pod_status(pod).network.ip, 80) == 200, "the server")
    forwarded(node, pod, 80)


@spec(STREAMING + "portforward in host network")
def test_port_forward_to_the_host(node: Ocirtd) -> None:
    pod = specs.run_pod(node, cri.NamespaceOption(network=cri.NODE), port_mappings=[cri.PortMapping(container_port=12003)])
    host = cri.NamespaceOption(network=cri.NODE)
    specs.started(node, specs.create(node, pod, image=specs.HOST_NGINX, namespace_options=host))
    node.until(lambda: page("127.0.0.1", 12003) == 200, "the server")
    forwarded(node, pod, 12003)
