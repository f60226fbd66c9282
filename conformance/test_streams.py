"""Exec, Attach and PortForward for Kubernetes' own clients: client-go, of which kubectl and the kubelet are made, and crictl."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from conformance import goprograms
from conformance.drivers import Machine
from conformance.nodes import Crictl, Node, node_with
from ocirt_api.cri import api_pb2 as cri
from ocirt_api.cri import api_pb2_grpc as stubs
from tests.support.runtime import wait_for

IMAGE = "localhost/ocirt-test:latest"
MODULES = {"k8s.io/client-go": "v0.34.0", "k8s.io/apimachinery": "v0.34.0"}
PATIENCE = 40
MIB = 1 << 20
both = pytest.mark.parametrize("transport", ["spdy", "websocket"])


@pytest.fixture(scope="module")
def program() -> Path:
    """The program of streamclient.go."""
    text = Path(__file__).with_name("streamclient.go").read_text()
    return goprograms.build("streamclient", MODULES, ["."], go="1.26", files={"main.go": text}) / "streamclient"


@pytest.fixture
def node(machine: Machine, no_leaks: list[Path]) -> Iterator[Node]:
    """A node with a network of its own and one image."""
    assert not no_leaks
    with node_with(machine, IMAGE) as made:
        yield made


class Pod:
    """A pod with one container, asked for by gRPC."""

    def __init__(self, node: Node, *command: str, stdin: bool = False, tty: bool = False) -> None:
        self.channel = grpc.insecure_channel(node.endpoint, options=[("grpc.default_authority", "localhost")])
        self.runtime = stubs.RuntimeServiceStub(self.channel)
        metadata = cri.PodSandboxMetadata(name="p", uid="u", namespace="tests")
        options = cri.NamespaceOption(pid=cri.CONTAINER)
        linux = cri.LinuxPodSandboxConfig(
            cgroup_parent=node.machine.cgroup_parent,
            security_context=cri.LinuxSandboxSecurityContext(namespace_options=options),
        )
        config = cri.PodSandboxConfig(metadata=metadata, linux=linux, log_directory=str(node.place / "logs"))
        self.id = self.runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config)).pod_sandbox_id
        wanted = cri.ContainerConfig(
            metadata=cri.ContainerMetadata(name="c"),
            image=cri.ImageSpec(image=IMAGE),
            command=command,
            log_path="c.log",
            stdin=stdin,
            tty=tty,
        )
        wanted.linux.security_context.namespace_options.pid = cri.CONTAINER
        request = cri.CreateContainerRequest(pod_sandbox_id=self.id, config=wanted, sandbox_config=config)
        self.container = self.runtime.CreateContainer(request).container_id
        self.runtime.StartContainer(cri.StartContainerRequest(container_id=self.container))

    def exec_url(self, *command: str, **wanted: bool) -> str:
        """Where a command is had."""
        return str(self.runtime.Exec(cri.ExecRequest(container_id=self.container, cmd=command, **wanted)).url)

    def run(self, *command: str) -> bytes:
        """What a command writes."""
        request = cri.ExecSyncRequest(container_id=self.container, cmd=command)
        return bytes(self.runtime.ExecSync(request).stdout)

    def attach_url(self, **wanted: bool) -> str:
        """Where the container's own streams are."""
        return str(self.runtime.Attach(cri.AttachRequest(container_id=self.container, **wanted)).url)

    def forward_url(self) -> str:
        """Where its ports are."""
        return str(self.runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=self.id)).url)

    def close(self) -> None:
        """Remove it."""
        self.runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=self.id))
        self.channel.close()


@pytest.fixture
def pod(node: Node) -> Iterator[Pod]:
    """One whose container reads lines."""
    made = Pod(node, "sh", "-c", "while read x; do echo got $x; echo err $x >&2; done", stdin=True)
    yield made
    made.close()


def run(program: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The client, to its end."""
    return subprocess.run([program, *words], input=data, capture_output=True, check=False, timeout=PATIENCE)


@contextlib.contextmanager
def running(program: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The client, while it runs."""
    pipe = subprocess.PIPE
    with subprocess.Popen([program, *words], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


@both
def test_exec(program: Path, pod: Pod, transport: str) -> None:
    """Three streams and the exit code."""
    wanted = {"stdin": True, "stdout": True, "stderr": True}
    url = pod.exec_url("sh", "-c", "cat; echo err >&2; exit 7", **wanted)
    done = run(program, "command", transport, url, *wanted, data=b"hello\n" * 1000)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"hello\n" * 1000, b"err\n")


@both
def test_much(program: Path, pod: Pod, transport: str) -> None:
    """64 MiB there and back."""
    data = os.urandom(64 * MIB)
    url = pod.exec_url("cat", stdin=True, stdout=True)
    done = run(program, "command", transport, url, "stdin", "stdout", data=data)
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


@both
def test_a_terminal(program: Path, pod: Pod, transport: str) -> None:
    """Its size, and one output."""
    script = "until stty size 2>/dev/null | grep -q 33; do usleep 10000; done; stty size; tty >&2; exit 3"
    url = pod.exec_url("sh", "-c", script, stdin=True, stdout=True, tty=True)
    done = run(program, "command", transport, url, "stdin", "stdout", "tty")
    assert (done.returncode, done.stdout) == (3, b"33 111\r\n/dev/pts/0\r\n")


@both
def test_what_cannot_run(program: Path, pod: Pod, transport: str) -> None:
    """The client is told what."""
    done = run(program, "command", transport, pod.exec_url("/no/such", stdout=True), "stdout")
    assert done.returncode == 200
    assert b"/no/such" in done.stderr


@both
def test_attach(program: Path, pod: Pod, transport: str) -> None:
    """Lines go in and come out; the container ends, and so does the client."""
    url = pod.attach_url(stdin=True, stdout=True, stderr=True)
    words = ["command", transport, url, "stdin", "stdout", "stderr"]
    with subprocess.Popen([program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"got one\n"
        assert client.stderr.readline() == b"err one\n"
        pod.runtime.StopContainer(cri.StopContainerRequest(container_id=pod.container))
        assert client.wait(PATIENCE) == 0


@both
def test_port_forward(program: Path, pod: Pod, transport: str) -> None:
    """Many connections to two ports, one of which nobody serves."""
    server = pod.exec_url("sh", "-c", "while :; do nc -l -p 7001 -e cat; done", stdout=True)
    listening = "grep -h ':1B59 [0-9A-F:]* 0A' /proc/net/tcp /proc/net/tcp6"
    with (
        running(program, "command", "spdy", server, "stdout"),
        running(program, "forward", transport, pod.forward_url(), "7001", "7002") as client,
    ):
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        good, bad = (int(client.stdout.readline()) for _ in range(2))
        data = os.urandom(MIB)
        for _ in range(5):
            # Not by trying: the client gives up everything at the first connection that fails.
            wait_for(lambda: pod.run("sh", "-c", listening), "the server", 10)
            assert _echoed(good, data) == data
        assert _echoed(bad, b"x") == b""
        client.wait(PATIENCE)
        assert b"cannot connect to port 7002 in the pod" in client.stderr.read()


def _echoed(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        came = b""
        try:
            sock.sendall(data)
            while len(came) < len(data) and (part := sock.recv(1 << 16)):
                came += part
        except ConnectionError:
            pass
        return came


@both
def test_crictl(node: Node, transport: str) -> None:
    """Its verbs, as a person types them."""
    crictl = Crictl(node)
    try:
        made = crictl.pod()
        container = crictl.start(made, IMAGE, "sh", "-c", "while read x; do echo got $x; done", stdin=True)
        how = ("--transport", transport)
        said = crictl.call("exec", *how, container, "sh", "-c", "echo out; echo err >&2; exit 3")
        assert (said.rc, said.out) == (1, "out\n")
        assert "exit code 3" in said.err or "exit status 3" in said.err
        said = crictl.call("exec", *how, "--interactive", container, "cat", stdin="hello").ok()
        assert said.out == "hello"
    finally:
        crictl.clean_up()
