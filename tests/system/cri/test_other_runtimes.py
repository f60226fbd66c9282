"""Handlers whose containers another OCI runtime makes: runc (OCIRT_TEST_PEER, or the machine's), and crun where it can."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from ocirt.cgroups.layout import detect
from ocirt_api.cri import api_pb2 as cri
from ocirt_cri import machine, runtimes
from tests.support.isolation import mount_targets
from tests.support.ocirtd import PATIENCE, Ocirtd, refused
from tests.support.streams import SpdyClient, WebSocketClient
from tests.system.cri.test_handlers import run_pod, status, with_handlers
from tests.system.cri.test_resize import has
from tests.system.cri.test_restart import shim_of

pytestmark = pytest.mark.ocirt_only("the daemon is ocirt's own")

PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin"


def runc() -> str:
    found = os.environ.get("OCIRT_TEST_PEER") or shutil.which("runc", path=PATH)
    if not found:
        pytest.skip("not installed: runc")
    return found


def crun() -> str:
    found = shutil.which("crun", path=PATH)
    if not found:
        pytest.skip("not installed: crun")
    if detect().mode == "hybrid":
        pytest.skip("crun takes no machine with cgroups of both versions")
    if "CAP_SYS_RESOURCE" not in machine.look().capabilities:
        pytest.skip("crun raises RLIMIT_MEMLOCK, for which it needs CAP_SYS_RESOURCE")
    return found


def handler(node: Ocirtd, path: str, name: str = "other") -> str:
    """A handler with this runtime is there; its name."""
    with_handlers(node, f'[handlers.{name}.runtime]\npath = "{path}"\n')
    node.until(lambda: name in {one.name for one in status(node).runtime_handlers}, "the handler")
    return name


def known(node: Ocirtd, path: str) -> list[str]:
    """What the runtime itself says that there is."""
    if not (node.place / "v/runtimes/other").exists():
        return []
    said = subprocess.run(
        [path, "--root", f"{node.place}/v/runtimes/other", "list", "-q"], capture_output=True, text=True, check=True
    )
    return said.stdout.split()


def mounted(node: Ocirtd) -> list[str]:
    return [str(one) for one in mount_targets() if one.is_relative_to(node.place / "r")]


@pytest.fixture
def other(node: Ocirtd) -> Iterator[tuple[Ocirtd, str]]:
    """A daemon and a pod of runc's, of which nothing is left afterwards."""
    path = runc()
    pod = run_pod(node, handler(node, path))
    yield node, pod
    if node.process is not None:
        node.remove_pod(pod)
        assert known(node, path) == []
        assert mounted(node) == node.left() == []


@pytest.mark.parametrize("which", [runc, crun])
def test_a_life(node: Ocirtd, which: object) -> None:
    """Streams into the log, exit code, exec with its own and with a time-out, the stop signal, SIGKILL; nothing is left."""
    path = which()  # type: ignore[operator]
    pod = run_pod(node, handler(node, path))
    brief = node.run(pod, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert node.wait(brief).exit_code == 7
    assert sorted(node.logged(brief)) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    made = node.run(pod, "sh", "-c", "trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done")
    assert known(node, path).count(made) == 1
    done = node.exec(made, "sh", "-c", "echo a; echo b >&2; exit 5")
    assert (done.stdout, done.stderr, done.exit_code) == (b"a\n", b"b\n", 5)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        node.exec(made, "sh", "-c", "sleep 1234 & sleep 1234", timeout=1)
    assert "1234" not in node.exec(made, "ps").stdout.decode()
    stats = node.runtime.ContainerStats(cri.ContainerStatsRequest(container_id=made), timeout=10).stats
    assert stats.cpu.usage_core_nano_seconds.value > 0
    node.stop_container(made, 10)
    assert (node.status(made).exit_code, node.logged(made)) == (3, [("stdout", "F", "ended")])
    deaf = node.run(pod, "sleep", "1000")
    node.stop_container(deaf)
    assert node.status(deaf).exit_code == 137
    node.remove_pod(pod)
    assert known(node, path) == []
    assert mounted(node) == node.left() == []


@pytest.mark.parametrize("kind", [SpdyClient, WebSocketClient], ids=["spdy", "websocket"])
def test_streams(other: tuple[Ocirtd, str], kind: type[SpdyClient | WebSocketClient]) -> None:
    """Exec with and without a terminal, attach to a terminal."""
    node, pod = other
    made = node.run(pod, "cat", tty=True, stdin=True)
    wanted = {"stdin": True, "stdout": True}
    url = node.runtime.Exec(
        cri.ExecRequest(container_id=made, cmd=["sh", "-c", "read x; echo got $x; exit 4"], **wanted), timeout=9
    ).url
    client = kind(url, wanted="stdin stdout")
    client.send(b"word\n")
    assert client.finish()["details"]["causes"] == [{"reason": "ExitCode", "message": "4"}]
    assert bytes(client.came["stdout"]) == b"got word\n"
    url = node.runtime.Exec(cri.ExecRequest(container_id=made, cmd=["sh"], tty=True, **wanted), timeout=9).url
    client = kind(url, wanted="stdin stdout resize")
    client.resize(33, 111)
    client.send(b"sleep 0.3; stty size; exit\n")
    assert client.finish()["status"] == "Success"
    assert b"33 111" in client.came["stdout"]
    url = node.runtime.Attach(cri.AttachRequest(container_id=made, tty=True, **wanted), timeout=9).url
    client = kind(url, wanted="stdin stdout resize")
    client.send(b"there\n\x04")
    client.finish()
    assert client.came["stdout"].count(b"there") == 2  # the terminal's echo, and cat's
    assert node.wait(made).exit_code == 0


def test_ocirtd_is_killed(other: tuple[Ocirtd, str]) -> None:
    """Containers go on, no line is missing, one that has ended meanwhile is found; a lost shim takes its container along."""
    node, pod = other
    counter = node.run(pod, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done")
    waiting = node.create(pod, node.container_config("sleep", "1000"))
    brief = node.run(pod, "sh", "-c", "sleep 0.5; exit 9")
    lost = node.run(pod, "sleep", "1000")
    node.kill()
    os.kill(shim_of(node, lost), signal.SIGKILL)
    time.sleep(0.7)
    node.start()
    assert (node.status(counter).state, node.status(waiting).state) == (cri.CONTAINER_RUNNING, cri.CONTAINER_CREATED)
    assert (node.wait(brief).exit_code, node.status(brief).reason) == (9, "Error")
    assert (node.wait(lost).exit_code, node.status(lost).reason) == (255, "Unknown")
    assert sorted(known(node, runc())) == sorted([counter, waiting, brief])
    assert node.exec(counter, "echo", "here").stdout == b"here\n"
    node.start_container(waiting)
    node.stop_container(counter)
    numbers = [int(text) for _, _, text in node.logged(counter)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 20


@pytest.mark.parametrize("milliseconds", [5, 30, 80])
def test_a_kill_while_one_is_made_leaves_nothing(other: tuple[Ocirtd, str], milliseconds: int) -> None:
    node, pod = other
    wanted = node.container_config("sleep", "1000")
    call = node.runtime.CreateContainer.future(cri.CreateContainerRequest(pod_sandbox_id=pod, config=wanted))
    time.sleep(milliseconds / 1000)
    node.kill()
    call.cancel()
    node.start()
    node.start_container(node.create(pod, wanted))
    assert len(node.containers()) == 1


def test_limits(other: tuple[Ocirtd, str]) -> None:
    """They read back what is in force, before and after a change; a lack of memory is told."""
    node, pod = other
    if not has("memory"):
        pytest.skip("no controller of memory")
    limits = cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, cpu_quota=20_000, cpu_period=100_000)
    made = node.run(pod, "sleep", "1000", linux=cri.LinuxContainerConfig(resources=limits))
    assert node.status(made).resources.linux.memory_limit_in_bytes == 64 << 20
    asked = cri.LinuxContainerResources(memory_limit_in_bytes=32 << 20, cpu_quota=50_000)
    node.runtime.UpdateContainerResources(cri.UpdateContainerResourcesRequest(container_id=made, linux=asked), timeout=10)
    now = node.status(made).resources.linux
    assert (now.memory_limit_in_bytes, now.cpu_quota) == (32 << 20, 50_000)
    small = cri.LinuxContainerConfig(
        resources=cri.LinuxContainerResources(memory_limit_in_bytes=12 << 20, memory_swap_limit_in_bytes=12 << 20)
    )
    eater = node.run(pod, "sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=64M", linux=small)
    ended = node.wait(eater)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")


def test_what_fails_has_the_runtimes_words(other: tuple[Ocirtd, str]) -> None:
    """And leaves nothing."""
    node, pod = other
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.create(pod, node.container_config("/nope"))
    assert f"{runc()} create: failed with exit status 1" in words[0]
    assert 'exec: "/nope"' in words[0]
    assert "no such file or directory" in words[0]
    assert node.containers() == []
    assert mounted(node) == known(node, runc()) == []
    made = node.run(pod, "sleep", "1000")
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.exec(made, "/nope")
    assert "exec" in words[0]
    assert "/nope" in words[0]
    request = cri.CheckpointContainerRequest(container_id=made, location=f"{node.place}/c.tar")
    with refused(grpc.StatusCode.UNIMPLEMENTED) as words:
        node.runtime.CheckpointContainer(request, timeout=PATIENCE)
    assert runc() in words[0]


def test_a_runtime_that_is_not_there(node: Ocirtd) -> None:
    """Its pods are refused, with what to do. One that goes away is told when it is called; nothing is left all the same."""
    missing = node.place / "runc"
    name = handler(node, str(missing))
    assert not _features(node, name).user_namespaces
    with refused(grpc.StatusCode.FAILED_PRECONDITION) as words:
        run_pod(node, name)
    assert f"{missing}: the handler's runtime cannot be executed: No such file or directory (install it" in words[0]
    missing.symlink_to(runc())
    pod = run_pod(node, name)
    made = node.run(pod, "sleep", "1000")
    missing.unlink()
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        node.create(pod, node.container_config("true"))
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.exec(made, "true")
    assert f"{missing}: cannot be executed: No such file or directory (is it installed?" in words[0]
    missing.symlink_to(runc())
    node.remove_pod(pod)
    assert mounted(node) == node.left() == []


def test_a_runtime_that_leaves_its_cgroup(node: Ocirtd) -> None:
    """As crun 1.8 does when it fails: what is named as the container's and is empty is taken away."""
    script = node.place / "own"
    made = [f"mkdir -p {Path(directory, node.cgroup_parent[1:])}/$ID" for directory in dict.fromkeys(detect().mounts.values())]
    text = f'#!/bin/sh\nfor ID; do :; done\ncase "$*" in *" create "*) {"; ".join(made)}; exit 1;; esac\n'
    script.write_text(text)
    script.chmod(0o755)
    if not node.cgroup_parent.startswith("/"):
        pytest.skip("systemd makes the cgroups")
    pod = run_pod(node, handler(node, str(script)))
    with refused(grpc.StatusCode.UNKNOWN):
        node.create(pod, node.container_config("true"))
    left = [path for directory in detect().mounts.values() for path in Path(directory, node.cgroup_parent[1:]).glob("?" * 64)]
    assert left == []
    node.remove_pod(pod)


def test_a_runtime_of_the_users_own(node: Ocirtd) -> None:
    """A script is one as well: it gets its options before the verb, and what it says last is told."""
    script = node.place / "own"
    script.write_text('#!/bin/sh\necho "$@" >>"$0.calls"\necho a warning >&2\ncase "$*" in *create*) exit 9;; esac\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with_handlers(node, f'[handlers.own.runtime]\npath = "{script}"\nroot = "/run/own"\noptions = ["--debug", "--x=1"]\n')
    node.until(lambda: "own" in {one.name for one in status(node).runtime_handlers}, "the handler")
    pod = run_pod(node, "own")
    with refused(grpc.StatusCode.UNKNOWN) as words:
        node.create(pod, node.container_config("true"))
    assert f"{script} create: failed with exit status 9" in words[0]
    calls = Path(f"{script}.calls").read_text().splitlines()
    by_systemd = " --systemd-cgroup" if "systemd" in node.config.read_text() else ""
    assert calls[0] == "features"
    assert calls[1].startswith(f"--root /run/own{by_systemd} --debug --x=1 --log ")
    assert " --log-format json create --bundle " in calls[1]
    node.remove_pod(pod)
    assert mounted(node) == node.left() == []


def test_features_are_the_runtimes(other: tuple[Ocirtd, str]) -> None:
    node, _ = other
    found, ours = _features(node, "other"), _features(node, "")
    says = runtimes.ask(runc())
    assert not found.user_namespaces
    assert found.recursive_read_only_mounts == (says.recursive_read_only and ours.recursive_read_only_mounts)


def _features(node: Ocirtd, name: str) -> cri.RuntimeHandlerFeatures:
    return next(one.features for one in status(node).runtime_handlers if one.name == name)


def test_a_user_namespace_is_refused(other: tuple[Ocirtd, str]) -> None:
    """As Status has said: its root could not reach the container's, which lies in directories that are for root alone."""
    node, _ = other
    ids = [cri.IDMapping(host_id=1_000_000, container_id=0, length=65536)]
    user = cri.UserNamespace(mode=cri.POD, uids=ids, gids=ids)
    options = cri.NamespaceOption(network=cri.NODE, ipc=cri.POD, pid=cri.CONTAINER, userns_options=user)
    request = cri.RunPodSandboxRequest(config=node.pod_config(options=options), runtime_handler="other")
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        node.runtime.RunPodSandbox(request, timeout=PATIENCE)
