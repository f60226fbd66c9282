"""NOTIFY_SOCKET out of a container (sd_notify(3)), and pidfds for the caller."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runtime import Runtime, wait_for
from tests.support.terminal import ConsoleSocket
from tests.system.conftest import MakeBundle
from tests.system.test_namespaces import with_user_namespace


class Manager:
    """What systemd is: reads datagrams, and closes the descriptor of a barrier when it has come to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[str] = []
        self.barriers = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 8)
            if data == b"stop":
                return
            if data == b"BARRIER=1":
                self.barriers += len(fds)
            else:
                self.messages.append(data.decode())
            for fd in fds:
                os.close(fd)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a service."""
        return {**os.environ, "NOTIFY_SOCKET": self.address}

    def stop(self) -> None:
        """Close the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"stop", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Manager]:
    """One with a path, and one with an abstract name."""
    made = Manager(str(tmp_path / "manager") if request.param == "path" else f"@{tmp_path.name}-{os.getpid()}")
    yield made
    made.stop()


SCRIPT = "probe notify STATUS=busy; sleep 0.3; probe notify READY=1; probe notify STATUS=later; "


def test_start_waits_for_the_word(runtime: Runtime, bundle: MakeBundle, manager: Manager) -> None:
    """`start` passes on READY=1 alone, then who the service is, and returns when that was read."""
    container = runtime.create(bundle(args=["sh", "-c", SCRIPT + "sleep 1000"]), env=manager.env)
    assert manager.messages == []
    began = time.monotonic()
    runtime.call("start", container, env=manager.env).ok()
    assert time.monotonic() - began > 0.3
    assert manager.messages == ["READY=1\n", f"MAINPID={runtime.pid(container)}\n"]
    assert manager.barriers == 1
    assert runtime.status(container) == "running"


def test_run_detached_waits_for_the_word(runtime: Runtime, bundle: MakeBundle, manager: Manager) -> None:
    """As `start` does."""
    container = runtime.run_detached(bundle(args=["sh", "-c", SCRIPT + "sleep 1000"]), env=manager.env)
    assert manager.messages == ["READY=1\n", f"MAINPID={runtime.pid(container)}\n"]
    assert manager.barriers == 1


@pytest.mark.ocirt_only("runc waits for ever for an init that has ended and that its parent has not waited for")
def test_a_program_that_ends_without_a_word(runtime: Runtime, bundle: MakeBundle, manager: Manager) -> None:
    """Nobody waits for ever."""
    container = runtime.create(bundle(args=["sleep", "0.2"]), env=manager.env)
    runtime.call("start", container, env=manager.env).ok()
    wait_for(lambda: runtime.status(container) == "stopped", "the end")
    assert manager.messages == []


@pytest.mark.ocirt_only("runc waits for READY=1 before it passes on signals, also past the program's end")
def test_run_attached(runtime: Runtime, bundle: MakeBundle, manager: Manager) -> None:
    """The service is the runtime, which stays; a program that says nothing, or says it last, ends all the same."""
    made = bundle(args=["sh", "-c", SCRIPT + "sleep 1000"])
    container = runtime.new_id()
    runtime.prepare(made, container)
    argv = runtime.argv("run", "--bundle", made.path, container)
    with subprocess.Popen(argv, env=manager.env, stdin=subprocess.DEVNULL) as process:
        wait_for(lambda: len(manager.messages) == 2, "both messages")
        assert manager.messages == ["READY=1\n", f"MAINPID={process.pid}\n"]
        process.send_signal(signal.SIGKILL)
    runtime.delete(container, "--force").ok()
    assert runtime.run(made.edit(args=["sh", "-c", "exit 3"]), env=manager.env).rc == 3
    assert len(manager.messages) == 2
    assert runtime.run(made.edit(args=["probe", "notify", "READY=1"]), env=manager.env).rc == 0
    wait_for(lambda: len(manager.messages) == 4, "a last word")


def test_what_the_container_has(runtime: Runtime, bundle: MakeBundle, manager: Manager) -> None:
    """The variable, whatever config.json says of it; a read-only directory with the socket alone. Nothing without being asked."""
    script = "echo $NOTIFY_SOCKET; ls /run/notify; touch /run/notify/x || echo read-only; grep /run/notify /proc/mounts"
    script += "; probe notify READY=1"
    made = bundle(args=["sh", "-c", script], env=["PATH=/bin", "NOTIFY_SOCKET=/else"], user={"uid": 1000, "gid": 1000})
    container = runtime.run_detached(made, env=manager.env)
    lines = runtime.wait_output(container, " /run/notify ").splitlines()
    assert lines[:3] == ["/run/notify/notify.sock", "notify.sock", "read-only"]
    assert set(lines[3].split()[3].split(",")) >= {"ro", "nosuid", "nodev", "noexec"}
    seen = runtime.probe(made.edit(env=["PATH=/bin"]))
    assert not [entry for entry in seen["env"] if entry.startswith("NOTIFY")]


def test_from_a_user_namespace(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Its users may write to the socket."""
    manager = Manager(str(tmp_path / "manager"))
    made = with_user_namespace(bundle(args=["sh", "-c", SCRIPT + "sleep 1000"], user={"uid": 5, "gid": 5}))
    container = runtime.run_detached(made, env=manager.env)
    assert manager.messages == ["READY=1\n", f"MAINPID={runtime.pid(container)}\n"]
    manager.stop()


@pytest.mark.ocirt_only("runc does not start what was created without NOTIFY_SOCKET")
def test_start_alone_has_the_variable(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Nobody inside could say anything, so nothing is waited for; a second start is told what it is."""
    manager = Manager(str(tmp_path / "manager"))
    container = runtime.create(bundle(args=["sleep", "1000"]))
    runtime.call("start", container, env=manager.env).ok()
    runtime.call("start", container, env=manager.env).failed("cannot start an already running container", rc=1)
    manager.stop()


def test_a_manager_that_is_not_there(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """`start` says so; the container runs."""
    env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "nobody")}
    container = runtime.create(bundle(args=["sh", "-c", "sleep 0.2; probe notify READY=1; sleep 1000"]), env=env)
    runtime.call("start", container, env=env).failed("no such file or directory", rc=1)
    assert runtime.status(container) == "running"


# -- pidfds --------------------------------------------------------------------------------------------------------------------


def pid_of(pidfd: int) -> int:
    """The process behind a pidfd, as this /proc numbers it."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return int(text.partition("\nPid:")[2].split()[0])


def ended(pidfd: int) -> bool:
    """Whether the process ends within some seconds."""
    return bool(select.select([pidfd], [], [], 10)[0])


def test_pidfd_of_create(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """The init's, sent with the word "standard" before the command returns; good for signals."""
    with ConsoleSocket(tmp_path / "pidfd") as receiver:
        container = runtime.create(bundle(args=["sleep", "1000"]), "--pidfd-socket", receiver.path)
        word, (pidfd,) = receiver.receive()
        assert (word, pid_of(pidfd)) == ("standard", runtime.pid(container))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert ended(pidfd)
        wait_for(lambda: runtime.status(container) == "stopped", "the end")


def test_pidfd_of_run_and_exec(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """That of exec has the word "setns", and is of the process, not of init."""
    with ConsoleSocket(tmp_path / "pidfd") as receiver:
        container = runtime.run_detached(bundle(args=["sleep", "1000"]), "--pidfd-socket", receiver.path)
        word, (pidfd,) = receiver.receive()
        assert (word, pid_of(pidfd)) == ("standard", runtime.pid(container))
        pid_file = tmp_path / "pid"
        flags = ("--detach", "--pid-file", pid_file, "--pidfd-socket", receiver.path)
        runtime.detached("exec", *flags, container, "sleep", "1000", out=tmp_path / "out").ok()
        word, (pidfd,) = receiver.receive()
        assert (word, pid_of(pidfd)) == ("setns", int(pid_file.read_text()))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert ended(pidfd)
        assert runtime.status(container) == "running"


def test_a_pidfd_socket_that_is_not_there(runtime: Runtime, bundle: MakeBundle, tmp_path: Path) -> None:
    """Nothing is made, and nothing runs."""
    nobody = tmp_path / "nobody"
    runtime.try_create(bundle(), "--pidfd-socket", nobody).failed("nobody.*no such file", rc=1)
    made = bundle(args=["sleep", "1000"])
    container = runtime.run_detached(made)
    runtime.exec(container, "touch", "/ran", flags=["--pidfd-socket", nobody]).failed("nobody.*no such file", rc=255)
    assert not (made.rootfs / "ran").exists()
    assert runtime.call("list", "-q").ok().out.split() == [container]
