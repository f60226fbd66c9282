"""An ocirtd takes over from the release before: ten pods that the other one has started, held by the other one's shims.

The release is the last tag of this repository, or what OCIRT_TEST_RELEASE names; as long as there is none, a commit of its
history. It is installed into a virtual environment of its own, from its own sources.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.drivers import Machine
from conformance.goprograms import BUILD
from ocirt_api.cri import api_pb2 as cri
from tests.conftest import ROOT
from tests.support.layouts import Layer, directory, image, layout
from tests.support.networks import new_host
from tests.support.ocirtd import PATIENCE, Ocirtd
from tests.support.streams import ForwardClient, SpdyClient, WebSocketClient
from tests.system.conftest import entered

LANDED = "ecf7820a598eb985d25bfda8cb73e7f4907b1274"  # until there is a tag
PODS = 10
NAME = "localhost/upgrade:1"
_ANNOTATION = "org.opencontainers.image.ref.name"
_OWN = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.CONTAINER)
_COUNT = "trap 'echo ended; exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def release() -> str:
    """The commit of the release before this one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    wanted = os.environ.get("OCIRT_TEST_RELEASE") or git("describe", "--tags", "--abbrev=0", "HEAD^") or LANDED
    found = git("rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
    if not found:
        pytest.skip(f"these sources have no history with {wanted} in it")
    return found


@pytest.fixture(scope="session")
def programs() -> Path:
    """The directory of the release's programs. It is built once."""
    commit = release()
    place = BUILD / f"release-{commit[:12]}"
    if (place / "ready").exists():
        return place / "venv" / "bin"
    shutil.rmtree(place, ignore_errors=True)
    sources = place / "sources"
    sources.mkdir(parents=True)
    with subprocess.Popen(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", sources], stdin=archive.stdout, check=True)
    assert archive.returncode == 0
    python = os.path.realpath(sys.executable)
    with entered().on_host_network():
        for argv in (
            ["make", "-s", "api", f"PYTHON={python}"],
            [python, "-m", "venv", str(place / "venv")],
            [str(place / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check", f"{sources}[cri]"],
        ):
            done = subprocess.run(argv, cwd=sources, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{argv}: {done.stdout[-2000:]} {done.stderr[-2000:]}"
    shutil.rmtree(sources)
    (place / "ready").touch()
    return place / "venv" / "bin"


class Either(Ocirtd):
    """A daemon of this version, or with `programs` of another one, in the same directories."""

    programs: Path | None = None

    @property
    def command(self) -> list[str]:
        """How it is started."""
        words = super().command
        return [str(self.programs / "ocirtd"), *words[1:]] if self.programs else words


@pytest.fixture
def node(machine: Machine, programs: Path, no_leaks: list[Path]) -> Iterator[Either]:
    """The release before, with an image that its own command has put into its store."""
    place = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    no_leaks.append(place)
    with new_host():
        made = Either(place, machine.cgroup_parent)
        made.programs = programs
        plain = machine.image.read_bytes()
        found = image(Layer(plain, plain, ""), Cmd=["sleep", "1000"], Env=["PATH=/bin:/usr/bin"])
        target = found.descriptor(annotations={_ANNOTATION: NAME})
        (place / "layout").mkdir()
        archive = directory(place / "layout", layout([target], found.blobs()))
        argv = [str(programs / "ocirt"), "--image-root", str(place / "r/images"), "load", str(archive)]
        subprocess.run(argv, check=True, capture_output=True, env=made.environment)
        made.image = NAME
        made.start()
        with made.cleared():
            yield made


def runs(node: Ocirtd) -> Path:
    """Whose program the daemon is."""
    assert node.process is not None
    words = Path(f"/proc/{node.process.pid}/cmdline").read_bytes() + Path(f"/proc/{node.process.pid}/maps").read_bytes()
    return Path("venv" if b"/release-" in words else "build")


class Pod:
    """A pod of the release before: a counter, a cat for who is attached, one that was not started, one that has ended."""

    def __init__(self, node: Ocirtd, number: int) -> None:
        # One of them shares its processes, which an init of its own holds.
        shared = cri.NamespaceOption(network=cri.POD, ipc=cri.POD, pid=cri.POD)
        self.id = node.run_pod(node.pod_config(f"up{number}", options=shared if number == 1 else _OWN, hostname=f"up{number}"))
        self.counter = node.run(self.id, "sh", "-c", _COUNT, name="counter")
        self.cat = node.run(self.id, "cat", name="cat", stdin=True, tty=number % 2 == 1)
        self.waiting = node.create(self.id, node.container_config("sleep", "1000", name="waiting"))
        self.ended = node.run(self.id, "sh", "-c", "exit 4", name="ended")
        self.brief = node.run(self.id, "sh", "-c", "sleep 1.5; exit 9", name="brief")
        self.address = node.pod_status(self.id).network.ip


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_upgrade(node: Either, how: str) -> None:
    """Logs, exec, attach, port-forward, limits, statistics, stop: all of it with the shims of the release before."""
    assert runs(node) == Path("venv")
    pods = [Pod(node, number) for number in range(PODS)]
    before = {one.id for one in node.containers()}
    getattr(node, how)()
    time.sleep(2)  # meanwhile one of each pod ends
    node.programs = None
    node.start()
    assert runs(node) == Path("build")
    assert {one.id for one in node.containers()} == before
    assert {one.id for one in node.pods()} == {one.id for one in pods}
    for number, pod in enumerate(pods):
        _check(node, pod, SpdyClient if number % 2 else WebSocketClient, terminal=number % 2 == 1)
    # It makes new ones beside them, in old pods as well.
    fresh = node.run(pods[0].id, "sh", "-c", "echo fresh; sleep 1000")
    node.until(lambda: node.logged(fresh) == [("stdout", "F", "fresh")], "the log of a new container")
    for pod in pods:
        node.stop_container(pod.counter, 10)
        assert node.status(pod.counter).exit_code == 5
        said = _texts(Path(f"{node.status(pod.counter).log_path}.1")) + [text for _, _, text in node.logged(pod.counter)]
        assert said[-1] == "ended"
        assert [int(text) for text in said[:-1]] == list(range(1, len(said)))
        node.stop_pod(pod.id)
        assert node.status(pod.cat).state == cri.CONTAINER_EXITED
        node.remove_pod(pod.id)
    assert node.containers() == []


def _texts(log: Path) -> list[str]:
    return [line.split(" ", 3)[3] for line in log.read_text().splitlines()]


def _check(node: Ocirtd, pod: Pod, kind: type[SpdyClient | WebSocketClient], *, terminal: bool) -> None:
    status = node.pod_status(pod.id)
    assert (status.state, status.network.ip) == (cri.SANDBOX_READY, pod.address)
    assert node.status(pod.counter).state == node.status(pod.cat).state == cri.CONTAINER_RUNNING
    assert (node.status(pod.ended).exit_code, node.status(pod.ended).state) == (4, cri.CONTAINER_EXITED)
    assert (node.wait(pod.brief).exit_code, node.status(pod.brief).reason) == (9, "Error")
    # Logs: it goes on to write, also after a rotation.
    log = Path(node.status(pod.counter).log_path)
    log.rename(f"{log}.1")
    node.runtime.ReopenContainerLog(cri.ReopenContainerLogRequest(container_id=pod.counter), timeout=PATIENCE)
    node.until(lambda: log.exists() and log.stat().st_size, "a log that was rotated")
    # Exec, to its end and as a stream.
    done = node.exec(pod.counter, "sh", "-c", "hostname; exit 3")
    assert (done.stdout.decode().strip(), done.exit_code) == (status.metadata.name, 3)
    wanted = {"stdin": True, "stdout": True}
    url = node.runtime.Exec(
        cri.ExecRequest(container_id=pod.counter, cmd=["sh", "-c", "read x; echo got $x; exit 7"], **wanted)
    ).url
    client = kind(url, wanted="stdin stdout")
    client.send(b"word\n")
    assert client.finish()["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert bytes(client.came["stdout"]) == b"got word\n"
    # Attach, to what the release before has started.
    url = node.runtime.Attach(cri.AttachRequest(container_id=pod.cat, tty=terminal, **wanted)).url
    client = kind(url, wanted="stdin stdout resize" if terminal else "stdin stdout")
    client.send(b"there\n")
    client.until(lambda: b"there" in client.came["stdout"])
    client.wire.close()
    _forward(node, pod, tunnel=not terminal)
    # A created one is started; limits and statistics.
    node.start_container(pod.waiting)
    assert node.status(pod.waiting).state == cri.CONTAINER_RUNNING
    asked = cri.LinuxContainerResources(cpu_shares=307)
    node.runtime.UpdateContainerResources(
        cri.UpdateContainerResourcesRequest(container_id=pod.counter, linux=asked), timeout=PATIENCE
    )
    assert node.status(pod.counter).resources.linux.cpu_shares == 307
    stats = node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=pod.counter), timeout=PATIENCE).stats
    assert stats.cpu.usage_core_nano_seconds.value > 0


def _forward(node: Ocirtd, pod: Pod, *, tunnel: bool) -> None:
    """Into a pod's network namespace, to a server that an exec has begun there."""
    node.exec(pod.counter, "sh", "-c", "nc -l -p 7001 -e cat >/dev/null 2>&1 &")
    listening = "grep -h ':1B59 [0-9A-F:]* 0A' /proc/net/tcp /proc/net/tcp6"
    node.until(lambda: node.exec(pod.counter, "sh", "-c", listening).exit_code == 0, "a server")
    url = node.runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=pod.id), timeout=PATIENCE).url
    client = ForwardClient(url, tunnel=tunnel)
    key = client.open(7001)
    client.send(key, b"through", last=True)
    client.until_end(key)
    assert bytes(client.came[key]) == b"through"
    client.close()


def test_a_downgrade(node: Either) -> None:
    """The release before takes its pods back, or says in a sentence why it does not; it touches nothing of what it refuses."""
    pod = Pod(node, 0)
    node.stop()
    programs, node.programs = node.programs, None
    node.start()
    assert node.exec(pod.counter, "true").exit_code == 0
    node.stop()
    node.programs = programs
    assert programs is not None
    with node.log.open("ab") as log:
        node.process = subprocess.Popen(node.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=node.environment)
    node.until(lambda: _listens(node) or _ended(node), "the release before to start, or to refuse that")
    if _ended(node):
        assert "was written by" in node.log.read_text().splitlines()[-1]
        node.process = None
    else:
        node.connect()
        assert node.exec(pod.counter, "true").exit_code == 0
        node.stop()
    node.programs = None
    node.start()
    assert node.exec(pod.counter, "true").exit_code == 0
    node.remove_pod(pod.id)


def _ended(node: Ocirtd) -> bool:
    return node.process is not None and node.process.poll() is not None


def _listens(node: Ocirtd) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(node.socket)) == 0
