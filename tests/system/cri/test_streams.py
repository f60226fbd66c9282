"""Exec and Attach by both transports and all their versions, with real containers."""

from __future__ import annotations

import grpc
import pytest

from ocirt_api.cri import api_pb2 as cri
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.streams import SpdyClient, WebSocketClient

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

Kind = type[SpdyClient] | type[WebSocketClient]
SPDY = [f"{version}channel.k8s.io" for version in ("", "v2.", "v3.", "v4.")]
WEBSOCKET = ["", "channel.k8s.io", "base64.channel.k8s.io", "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "v5.channel.k8s.io"]
ALL: list[tuple[Kind, str]] = [(SpdyClient, one) for one in SPDY] + [(WebSocketClient, one) for one in WEBSOCKET]
every_protocol = pytest.mark.parametrize(
    ("kind", "protocol"), ALL, ids=[f"{'spdy' if kind is SpdyClient else 'websocket'}-{name or 'none'}" for kind, name in ALL]
)
both = pytest.mark.parametrize("kind", [SpdyClient, WebSocketClient], ids=["spdy", "websocket"])


def exec_url(node: Ocirtd, container: str, *command: str, **wanted: bool) -> str:
    """Where a command's streams are had."""
    streams = wanted or {"stdout": True, "stderr": True}
    return str(node.runtime.Exec(cri.ExecRequest(container_id=container, cmd=command, **streams), timeout=PATIENCE).url)


def attach_url(node: Ocirtd, container: str, **wanted: bool) -> str:
    """Where a container's streams are had."""
    streams = wanted or {"stdout": True, "stderr": True}
    return str(node.runtime.Attach(cri.AttachRequest(container_id=container, **streams), timeout=PATIENCE).url)


@every_protocol
def test_exec(node: Ocirtd, kind: Kind, protocol: str) -> None:
    """Output, errors, the exit code; what is written to standard input."""
    made = node.run(node.run_pod(), "sleep", "1000")
    url = exec_url(node, made, "sh", "-c", "read x; echo got $x; echo err >&2; exit 7", stdin=True, stdout=True, stderr=True)
    client = kind(url, protocol=protocol)
    client.send(b"word\n")
    outcome = client.finish()
    assert (bytes(client.came["stdout"]), bytes(client.came["stderr"])) == (b"got word\n", b"err\n")
    if protocol.startswith(("v4", "v5")):
        assert outcome["status"] == "Failure"
        assert outcome["reason"] == "NonZeroExitCode"
        assert outcome["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    else:
        assert outcome == "command terminated with non-zero exit code: exit status 7"


@every_protocol
def test_exec_that_is_well(node: Ocirtd, kind: Kind, protocol: str) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    client = kind(exec_url(node, made, "echo", "hello"), wanted="stdout stderr", protocol=protocol)
    outcome = client.finish()
    assert bytes(client.came["stdout"]) == b"hello\n"
    assert outcome == ({"metadata": {}, "status": "Success"} if protocol.startswith(("v4", "v5")) else None)


@both
def test_input_ends(node: Ocirtd, kind: Kind) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    wanted = {"stdin": True, "stdout": True}
    client = kind(exec_url(node, made, "sh", "-c", "wc -c", **wanted), wanted="stdin stdout")
    for _ in range(64):
        client.send(bytes(1 << 14))
    client.end_input()
    assert client.finish()["status"] == "Success"
    assert client.came["stdout"].split() == [str(1 << 20).encode()]


@both
def test_terminal(node: Ocirtd, kind: Kind) -> None:
    """One output, and sizes."""
    made = node.run(node.run_pod(), "sleep", "1000")
    wanted = {"tty": True, "stdin": True, "stdout": True}
    client = kind(exec_url(node, made, "sh", **wanted), wanted="stdin stdout resize")
    client.resize(33, 111)
    client.send(b"stty size; echo $((40+2))\n")
    client.until_text("stdout", b"33 111")
    client.until_text("stdout", b"42")
    client.resize(44, 122)
    client.send(b"stty size; echo set$((50+2))\n")
    client.until_text("stdout", b"44 122")
    client.until_text("stdout", b"set52")
    client.send(b"exit 4\n")
    assert client.finish()["details"]["causes"][0]["message"] == "4"


@both
def test_terminal_whose_client_goes(node: Ocirtd, kind: Kind) -> None:
    """It hangs up."""
    made = node.run(node.run_pod(), "sleep", "1000")
    script = "trap 'echo > /gone; exit' HUP; echo ready; while :; do sleep 1; done"
    wanted = {"tty": True, "stdin": True, "stdout": True}
    client = kind(exec_url(node, made, "sh", "-c", script, **wanted), wanted="stdin stdout resize")
    client.until_text("stdout", b"ready")
    client.close()
    node.until(lambda: node.exec(made, "ls", "/gone").exit_code == 0, "the hang-up")


@both
def test_what_cannot_run(node: Ocirtd, kind: Kind) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    client = kind(exec_url(node, made, "/no/such/program"), wanted="stdout stderr")
    outcome = client.finish()
    assert (outcome["status"], outcome["reason"], outcome["code"]) == ("Failure", "InternalError", 500)
    assert "/no/such/program" in outcome["message"]


def test_streams_that_contradict(node: Ocirtd) -> None:
    made = node.run(node.run_pod(), "sleep", "1000")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        exec_url(node, made, "true", tty=True, stdout=True, stderr=True)
    assert said[0].startswith("stderr: ")
    with refused(grpc.StatusCode.INVALID_ARGUMENT):
        exec_url(node, made, "true", stdout=False)
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as said:
        exec_url(node, made, stdout=True)
    assert said[0].startswith("cmd: ")
    with refused(grpc.StatusCode.NOT_FOUND):
        exec_url(node, "f" * 64, "true")
    node.stop_container(made)
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        exec_url(node, made, "true")
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        attach_url(node, made)


@both
def test_attach(node: Ocirtd, kind: Kind) -> None:
    """Nothing is replayed, and nothing lost; several at once; the log has it, too."""
    script = "echo early; while read x; do echo out $x; echo err $x >&2; done; exit 3"
    made = node.run(node.run_pod(), "sh", "-c", script, stdin=True)
    node.until(lambda: len(node.logged(made)) == 1, "the first line")
    one = kind(attach_url(node, made, stdin=True, stdout=True, stderr=True))
    two = kind(attach_url(node, made), wanted="stdout stderr")
    one.send(b"1\n2\n")
    for each in (one, two):
        each.until_text("stdout", b"out 2\n")
        each.until_text("stderr", b"err 2\n")
        assert bytes(each.came["stdout"]) == b"out 1\nout 2\n"
    two.close()
    one.send(b"3\n")
    one.until_text("stdout", b"out 3\n")
    node.stop_container(made)
    assert one.finish()["status"] == "Success"
    assert bytes(one.came["stdout"]) == b"out 1\nout 2\nout 3\n"
    assert len(node.logged(made)) == 7


@both
def test_attach_to_a_terminal(node: Ocirtd, kind: Kind) -> None:
    made = node.run(node.run_pod(), "sh", stdin=True, tty=True)
    client = kind(attach_url(node, made, stdin=True, stdout=True, tty=True), wanted="stdin stdout resize")
    client.resize(22, 77)
    client.send(b"stty size; echo $((40+2))\n")
    client.until_text("stdout", b"22 77")
    client.until_text("stdout", b"42")
    client.send(b"exit 5\n")
    assert client.finish()["status"] == "Success"
    assert node.wait(made).exit_code == 5


@pytest.mark.parametrize("once", [True, False])
@both
def test_input_of_the_first(node: Ocirtd, kind: Kind, once: bool) -> None:
    """With stdin_once the container's input ends with the client that goes; else it stays open."""
    made = node.run(node.run_pod(), "sh", "-c", "cat; echo over", stdin=True, stdin_once=once)
    client = kind(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    client.send(b"one\n")
    client.until_text("stdout", b"one\n")
    client.close()
    if once:
        assert node.wait(made).exit_code == 0
        assert [text for _, _, text in node.logged(made)] == ["one", "over"]
        return
    again = kind(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    again.send(b"two\n")
    again.until_text("stdout", b"two\n")
    again.close()
    assert node.status(made).state == cri.CONTAINER_RUNNING


def test_who_only_looks_does_not_end_the_input(node: Ocirtd) -> None:
    """With stdin_once, a client that has no part in the input may go."""
    made = node.run(node.run_pod(), "sh", "-c", "read x; echo got $x", stdin=True, stdin_once=True)
    SpdyClient(attach_url(node, made, stdout=True), wanted="stdout").close()
    client = SpdyClient(attach_url(node, made, stdin=True, stdout=True), wanted="stdin stdout")
    node.until(lambda: node.exec(made, "true").exit_code == 0, "the container, which still runs")
    client.send(b"word\n")
    assert client.finish()["status"] == "Success"
    assert bytes(client.came["stdout"]) == b"got word\n"


def test_a_terminal_that_ends_at_once(node: Ocirtd) -> None:
    """All that a short program wrote comes, though the kernel holds it in several places."""
    made = node.run(node.run_pod(), "sleep", "1000")
    for _ in range(5):
        client = SpdyClient(exec_url(node, made, "seq", "1", "2500", tty=True, stdout=True), wanted="stdout resize")
        assert client.finish()["status"] == "Success"
        assert client.came["stdout"].split() == [str(number).encode() for number in range(1, 2501)]


def test_a_terminal_that_nobody_has_for_a_while(node: Ocirtd) -> None:
    """A program may close its terminal, and open it again: the log goes on."""
    script = "echo one; exec >/dev/null 2>&1 </dev/null; sleep 1; echo two >/dev/console; sleep 1000"
    made = node.run(node.run_pod(), "sh", "-c", script, tty=True)
    node.until(lambda: [text for _, _, text in node.logged(made)] == ["one", "two"], "the second line")
